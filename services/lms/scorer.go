package lms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/risk"
)

// scorer asks the risk scorer, and remembers for a moment what every page needs.
type scorer struct {
	call    Call
	wall    func() time.Time
	roster  remembered[[]risk.Standing]
	company remembered[risk.Organisation]
	causes  remembered[[]cause]

	mu       sync.Mutex
	compared map[string]*remembered[[]risk.Standing] // by the profile beside
	clock    *risk.Clock
	read     time.Time // wall clock
}

func newScorer(call Call, wall func() time.Time) *scorer {
	return &scorer{
		call: call, wall: wall,
		roster:  remembered[[]risk.Standing]{fresh: time.Second, usable: time.Second, atMost: 10 * time.Second, last: 10 * time.Minute},
		company: remembered[risk.Organisation]{fresh: time.Second, usable: 5 * time.Second, atMost: time.Minute, last: 10 * time.Minute},
		causes:  remembered[[]cause]{fresh: 3 * time.Second, usable: 5 * time.Minute, atMost: time.Minute, last: 10 * time.Minute},
	}
}

const (
	askWithin     = 5 * time.Second
	askAtMost     = 100 * time.Second // what many readers share
	longestAnswer = 64 << 20

	askAhead  = 10 // an answer is usable for so many times what asking takes
	askRarely = 5  // and fresh for so many times, so that asking takes a small part of the scorer's time
)

// remembered keeps one answer. While it is fresh nobody asks again; while it is usable it is answered at once and renewed
// behind the reader's back; until last it stands in for a peer that does not answer. What takes long to ask for is fresh and usable
// for longer, but by atMost.
type remembered[T any] struct {
	fresh, usable, atMost, last time.Duration

	mu     sync.Mutex
	value  T
	at     time.Time
	took   time.Duration // asking, the last time
	err    error         // of the last time
	asking chan struct{} // closed when the asking under way has ended; nil: nobody asks
}

// stale says that a remembered answer was given because the peer is away.
type stale struct {
	since time.Time
	cause error
}

func (s *stale) Error() string {
	return fmt.Sprintf("answer of %s: %v", s.since.Format(time.TimeOnly), s.cause)
}
func (s *stale) Unwrap() error { return s.cause }

// get answers with the value and nil, an older value and *stale, or no value and the error of ask.
func (m *remembered[T]) get(now func() time.Time, ask func(context.Context) (T, error)) (T, error) {
	m.mu.Lock()
	age := now().Sub(m.at)
	// What takes long to ask for is renewed behind the readers' backs for longer: in a large company nobody waits for it, in a
	// small one nobody reads what is older than a moment.
	if !m.at.IsZero() && age < max(m.usable, min(askAhead*m.took, m.atMost)) {
		defer m.mu.Unlock()
		if age >= max(m.fresh, min(askRarely*m.took, m.atMost/2)) {
			m.begin(now, ask)
		}
		return m.value, nil
	}
	asking := m.begin(now, ask)
	m.mu.Unlock()
	timer := time.NewTimer(askWithin)
	defer timer.Stop()
	select {
	case <-asking:
	case <-timer.C: // the asking goes on: a scorer that has just started reads everything first
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.err
	if m.asking == asking { // not ended: of an answer and the timer that come at once, the answer is taken
		err = fmt.Errorf("no answer yet: %w", context.DeadlineExceeded)
	}
	if err != nil && !m.at.IsZero() && now().Sub(m.at) < m.last {
		return m.value, &stale{since: m.at, cause: err}
	}
	if err != nil {
		var none T
		return none, err
	}
	return m.value, nil
}

// begin asks, unless somebody does: many readers ask once, and not for the first of them alone. The caller holds mu.
func (m *remembered[T]) begin(now func() time.Time, ask func(context.Context) (T, error)) <-chan struct{} {
	if m.asking != nil {
		return m.asking
	}
	done := make(chan struct{})
	m.asking = done
	begun := now()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), askAtMost)
		defer cancel()
		next, err := ask(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.err = err; err == nil {
			m.value, m.at, m.took = next, now(), now().Sub(begun)
		}
		m.asking = nil
		close(done)
	}()
	return done
}

// get asks the scorer; a request of a page gives up after askWithin.
func (s *scorer) get(ctx context.Context, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	return s.fetch(ctx, path, v)
}

// fetch asks the scorer for as long as ctx lasts.
func (s *scorer) fetch(ctx context.Context, path string, v any) error {
	resp, err := s.call(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	return httpjson.ReadAnswer(resp, longestAnswer, v)
}

// staff is everybody who works here, the highest score first, without those who were made for a run of an exercise: the
// company's figures and lists are of them alone. With *stale the list is an old one.
func (s *scorer) staff() ([]risk.Standing, error) {
	people, err := s.people()
	own := make([]risk.Standing, 0, len(people))
	for _, p := range people {
		if p.Run == "" {
			own = append(own, p)
		}
	}
	return own, err
}

// people is everybody whom the roster lists, those of runs among them, the highest score first. With *stale the list is
// an old one.
func (s *scorer) people() ([]risk.Standing, error) {
	return s.roster.get(s.wall, func(ctx context.Context) ([]risk.Standing, error) {
		var list []risk.Standing
		if err := s.fetch(ctx, "/v1/people?runs=all", &list); err != nil {
			return nil, fmt.Errorf("read roster: %w", err)
		}
		return list, nil
	})
}

func (s *scorer) organisation() (risk.Organisation, error) {
	return s.company.get(s.wall, func(ctx context.Context) (risk.Organisation, error) {
		var o risk.Organisation
		if err := s.fetch(ctx, "/v1/organisation", &o); err != nil {
			return o, fmt.Errorf("read organisation: %w", err)
		}
		return o, nil
	})
}

// errUnknownPerson says that the roster does not list the person.
var errUnknownPerson = errors.New("the roster does not list this person")

// risk is a person's assessment of this moment.
func (s *scorer) risk(ctx context.Context, person string) (risk.Assessment, error) {
	var a risk.Assessment
	err := s.get(ctx, "/v1/people/"+url.PathEscape(person)+"/risk", &a)
	var answered *httpjson.Error
	if errors.As(err, &answered) && answered.Status == http.StatusNotFound {
		return a, errUnknownPerson
	}
	if err != nil {
		return a, fmt.Errorf("read risk: %w", err)
	}
	return a, nil
}

// risks are the assessments of several people, in their order. Somebody who has left meanwhile has an empty one.
func (s *scorer) risks(ctx context.Context, people []risk.Standing) ([]risk.Assessment, error) {
	list := make([]risk.Assessment, len(people))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, p := range people {
		g.Go(func() error {
			a, err := s.risk(ctx, p.ID)
			if errors.Is(err, errUnknownPerson) {
				return nil
			}
			list[i] = a
			return err
		})
	}
	return list, g.Wait()
}

// cause is a verb that weighs on the company.
type cause struct {
	Verb   activity.Verb
	People int   // on whom it weighs
	Count  int   // how often
	Part   int64 // whole millionths, summed over people
}

// mostAsked bounds the people whose reasons make up the company's: those with the highest scores.
const mostAsked = 60

// reasons are the company's causes, the weightiest first, over the mostAsked people with the highest scores.
func (s *scorer) reasons() ([]cause, error) {
	return s.causes.get(s.wall, func(ctx context.Context) ([]cause, error) {
		people, err := s.staff()
		if err != nil {
			return nil, err
		}
		all, err := s.risks(ctx, people[:min(mostAsked, len(people))])
		if err != nil {
			return nil, err
		}
		sum := map[activity.Verb]*cause{}
		for _, a := range all {
			for _, r := range a.Reasons {
				c := sum[r.Verb]
				if c == nil {
					c = &cause{Verb: r.Verb}
					sum[r.Verb] = c
				}
				c.People++
				c.Count += r.Count
				c.Part += r.Part
			}
		}
		list := make([]cause, 0, len(sum))
		for _, c := range sum {
			list = append(list, *c)
		}
		slices.SortFunc(list, func(a, b cause) int {
			if a.Part != b.Part {
				return int(min(1, max(-1, b.Part-a.Part)))
			}
			return bytes.Compare([]byte(a.Verb), []byte(b.Verb))
		})
		return list, nil
	})
}

// now is the lab's time: asked for, or carried on from the last answer by its pace while the scorer is away.
func (s *scorer) now(ctx context.Context) (time.Time, error) {
	var c risk.Clock
	err := s.get(ctx, "/v1/clock", &c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.clock, s.read = &c, s.wall()
		return c.Now, nil
	}
	if s.clock == nil {
		return time.Time{}, err
	}
	return s.clock.Now.Add(time.Duration(float64(s.wall().Sub(s.read)) * s.clock.Pace)), nil
}

// send hands in events, and answers with their receipts in the same order.
func (s *scorer) send(ctx context.Context, entries []activity.Entry) ([]activity.Receipt, error) {
	var body bytes.Buffer
	line := json.NewEncoder(&body)
	for _, e := range entries {
		if err := line.Encode(e); err != nil {
			return nil, fmt.Errorf("encode event: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	resp, err := s.call(ctx, http.MethodPost, "/v1/events", "application/x-ndjson", body.Bytes())
	if err != nil {
		return nil, err
	}
	// 422 with receipts: none of the events can be stored, and each receipt says why.
	if resp.StatusCode != http.StatusOK && (resp.StatusCode != http.StatusUnprocessableEntity || resp.Header.Get("Content-Type") != "application/x-ndjson") {
		if err := httpjson.ReadAnswer(resp, longestAnswer, nil); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("hand in events: unexpected status %d", resp.StatusCode)
	}
	defer resp.Body.Close()
	receipts := make([]activity.Receipt, len(entries))
	d := json.NewDecoder(resp.Body)
	for i := range receipts {
		if err := d.Decode(&receipts[i]); err != nil {
			return nil, fmt.Errorf("read receipt %d of %d: %w", i+1, len(entries), err)
		}
		if receipts[i].Seq != entries[i].Seq {
			return nil, fmt.Errorf("read receipt %d: it is for %d, not %d", i+1, receipts[i].Seq, entries[i].Seq)
		}
	}
	return receipts, nil
}
