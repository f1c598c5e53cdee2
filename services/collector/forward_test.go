package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/collector/collectorapi"
)

func respond(status int, kind, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {kind}}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

func (s *scorer) post(_ context.Context, path, kind string, body []byte) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if path != "/v1/events" || kind != "application/x-ndjson" {
		return nil, fmt.Errorf("call of %s with %s", path, kind)
	}
	var entries []activity.Entry
	d := json.NewDecoder(bytes.NewReader(body))
	for d.More() {
		var e activity.Entry
		if err := d.Decode(&e); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	s.calls++
	return s.answer(s.calls, entries)
}

// take stores entries and writes their receipts.
func (s *scorer) take(entries []activity.Entry) string {
	var b strings.Builder
	for _, e := range entries {
		status := activity.Stored
		id := ""
		if e.Event != nil {
			id = e.Event.ID
			if s.stored[id]++; s.stored[id] > 1 {
				status = activity.Duplicate
			}
		}
		fmt.Fprintf(&b, `{"seq":%d,"id":%q,"status":%q}`+"\n", e.Seq, id, status)
	}
	return b.String()
}

// forward runs a forwarder until all is settled. It is called in a bubble of synctest, where pauses are as long as they
// say, however slow the machine is, and cost nothing.
func forward(t *testing.T, c *Collector, s *scorer) collectorapi.Spool {
	t.Helper()
	f := newForwarder(c.spool, s.post, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.run(ctx) }()
	for began := time.Now(); c.spool.read().Spooled > 0; <-time.After(10 * time.Millisecond) {
		if time.Since(began) > time.Hour {
			t.Fatal("an hour was not enough to empty the spool")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return counted(t, c)
}

func fill(t *testing.T, c *Collector, n int) {
	t.Helper()
	for i := range n {
		want(t, send(c, fmt.Sprint("d", i), push(fmt.Sprint("sha", i))), http.StatusAccepted)
	}
}

func TestOutageOfTheScorerLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, activity.Git, 1000)
		fill(t, c, 20)
		s := &scorer{stored: map[string]int{}}
		s.answer = func(call int, entries []activity.Entry) (*http.Response, error) {
			switch call {
			case 1:
				return nil, errors.New("connection refused")
			case 2:
				return respond(503, "application/json", `{}`), nil
			case 3:
				return respond(403, "application/json", `{}`), nil
			case 4: // it committed, and the answer was cut off: the rest comes again and is known
				text := s.take(entries)
				return respond(200, batchType, text[:len(text)/2]), nil
			case 5:
				return respond(429, "application/json", `{}`, "Retry-After", "0"), nil
			}
			return respond(200, batchType, s.take(entries)), nil
		}
		n := forward(t, c, s)
		if len(s.stored) != 40 || n.Accepted != 40 || n.Stored+n.Duplicate != 40 || n.Duplicate == 0 || n.Watermark != n.Seq {
			t.Errorf("%d stored; %+v", len(s.stored), n)
		}
	})
}

func TestPoisonousEventBecomesADeadLetterAndDelaysNobody(t *testing.T) {
	for _, status := range []int{400, 500} {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, activity.Git, 1000)
			fill(t, c, 50)
			s := &scorer{stored: map[string]int{}}
			lastFailed, after := 0, 0
			s.answer = func(_ int, entries []activity.Entry) (*http.Response, error) {
				for _, e := range entries {
					if e.Event.ID == "git:commit/payments/sha7" {
						if len(entries) == 1 {
							lastFailed++
						}
						return respond(status, "application/json", `{"error":{"code":"poison"}}`), nil
					}
				}
				if lastFailed == 1 {
					after += len(entries)
				}
				return respond(200, batchType, s.take(entries)), nil
			}
			n := forward(t, c, s)
			if n.DeadLettered != 1 || n.Stored != 99 || lastFailed != failures {
				t.Errorf("%d: %+v after %d tries", status, n, lastFailed)
			}
			if len(n.Dead) != 1 || n.Dead[0].Event.ID != "git:commit/payments/sha7" || !strings.Contains(n.Dead[0].Reason,
				"poison") {
				t.Errorf("%d: dead letters %+v", status, n.Dead)
			}
			if after == 0 {
				t.Errorf("%d: nothing was stored while the event was set aside", status)
			}
			if again := counted(t, killed(t, c)); again.DeadLettered != 1 || len(again.Dead) != 1 {
				t.Errorf("%d: the dead letter was gone after a kill: %+v", status, again)
			}
		})
	}
}

func TestScorerThatFailsEverythingMakesNoDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, activity.Git, 1000)
		fill(t, c, 5)
		s := &scorer{stored: map[string]int{}}
		s.answer = func(call int, entries []activity.Entry) (*http.Response, error) {
			if call < 100 {
				return respond(500, "application/json", `{}`), nil
			}
			return respond(200, batchType, s.take(entries)), nil
		}
		if n := forward(t, c, s); n.DeadLettered != 0 || n.Stored != 10 {
			t.Errorf("%+v", n)
		}
	})
}

func TestFinalRefusalIsCountedAndKeptWithItsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, activity.Git, 1000)
		fill(t, c, 1)
		s := &scorer{answer: func(_ int, entries []activity.Entry) (*http.Response, error) {
			return respond(422, batchType, `{"seq":1,"status":"rejected","reason":"too_far_ahead"}`+"\n"+
				`{"seq":2,"status":"rejected","reason":"too_far_ahead"}`+"\n"), nil
		}}
		n := forward(t, c, s)
		if n.Rejected != 2 || len(n.Dead) != 2 || n.Dead[0].Reason != "too_far_ahead" || s.calls != 1 {
			t.Errorf("%+v after %d calls", n, s.calls)
		}
	})
}
