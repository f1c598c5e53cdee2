package world

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/source"
)

// oktaLog is Okta's System Log, which is polled. A cursor identifies its log: one of an earlier log, from before a
// restart, begins at the first event.
type oktaLog struct {
	name string

	mu      sync.Mutex
	entries []oktaEntry
	asked   int           // everything before this was fetched, since a client asked for what follows
	changed chan struct{} // closed when asked moves
	window  time.Time     // of the rate limit
	used    int
}

type oktaEntry struct {
	body      []byte
	published time.Time
	play      *play
}

// perMinute is how many pages a client may request. Okta's limit, 120, would delay the history of a large company.
const perMinute = 600

func newOktaLog() *oktaLog {
	return &oktaLog{name: guid(time.Now().String())[:8], changed: make(chan struct{})}
}

func (l *oktaLog) append(p *play, body []byte) {
	var e source.OktaEvent
	_ = json.Unmarshal(body, &e) // it was written by this program
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, oktaEntry{body, e.Published, p})
}

// fetched waits until everything that p added to the log was fetched, or ctx ends.
func (l *oktaLog) fetched(ctx context.Context, p *play) error {
	for {
		l.mu.Lock()
		last := -1
		for i := len(l.entries) - 1; i >= 0 && last < 0; i-- {
			if l.entries[i].play == p {
				last = i
			}
		}
		behind, changed := last >= l.asked, l.changed
		l.mu.Unlock()
		if !behind {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// page returns up to limit events from position on, and records that earlier ones were fetched.
func (l *oktaLog) page(from, limit int, since time.Time) (bodies [][]byte, next int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from = min(max(from, 0), len(l.entries))
	if from > l.asked {
		for _, e := range l.entries[l.asked:from] {
			e.play.update(func(s *Status) { s.Delivered++ })
		}
		l.asked = from
		close(l.changed)
		l.changed = make(chan struct{})
	}
	next = from
	for next < len(l.entries) && len(bodies) < limit {
		if e := l.entries[next]; !e.published.Before(since) {
			bodies = append(bodies, e.body)
		}
		next++
	}
	return bodies, next
}

// take uses up one request of the rate limit.
func (l *oktaLog) take(now time.Time) (remaining int, reset time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.window) >= time.Minute {
		l.window, l.used = now, 0
	}
	reset = l.window.Add(time.Minute)
	if l.used >= perMinute {
		return 0, reset, false
	}
	l.used++
	return perMinute - l.used, reset, true
}

// serveLog answers GET /api/v1/logs?since=&after=&limit=. There is always a next link, which clients poll.
func (w *World) serveLog(rw http.ResponseWriter, r *http.Request) error {
	if err := source.VerifyToken("SSWS", w.secret, r.Header); err != nil {
		return err
	}
	remaining, reset, ok := w.log.take(time.Now())
	h := rw.Header()
	h.Set("X-Rate-Limit-Limit", strconv.Itoa(perMinute))
	h.Set("X-Rate-Limit-Remaining", strconv.Itoa(remaining))
	h.Set("X-Rate-Limit-Reset", strconv.FormatInt(reset.Unix(), 10))
	if !ok {
		return httpjson.Errorf(http.StatusTooManyRequests, "E0000047",
			"API call exceeded rate limit due to too many requests")
	}
	q := r.URL.Query()
	limit := 100
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > 1000 {
			return httpjson.Errorf(http.StatusBadRequest, "E0000001", "limit: want 0 to 1000")
		}
		limit = n
	}
	var since time.Time
	if text := q.Get("since"); text != "" {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return httpjson.Errorf(http.StatusBadRequest, "E0000001", "since: want an ISO 8601 time")
		}
		since = t
	}
	from := 0
	if name, position, ok := strings.Cut(q.Get("after"), "."); ok && name == w.log.name {
		n, err := strconv.Atoi(position)
		if err != nil {
			return httpjson.Errorf(http.StatusBadRequest, "E0000001", "after: not a cursor of this log")
		}
		from = n
	}
	bodies, next := w.log.page(from, limit, since)
	link := func(after string, rel string) string {
		v := url.Values{"limit": {strconv.Itoa(limit)}}
		if after != "" {
			v.Set("after", after)
		}
		if text := q.Get("since"); text != "" {
			v.Set("since", text)
		}
		return fmt.Sprintf(`<https://example.okta.com/api/v1/logs?%s>; rel="%s"`, v.Encode(), rel)
	}
	h.Add("Link", link(q.Get("after"), "self"))
	h.Add("Link", link(w.log.name+"."+strconv.Itoa(next), "next"))
	h.Set("Content-Type", "application/json")
	body := []byte{'['}
	for i, b := range bodies {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, b...)
	}
	_, err := rw.Write(append(body, ']'))
	return err
}
