package riskclient

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// AskWithin is how long a page waits for an answer of the scorer.
const AskWithin = 5 * time.Second

const (
	askAtMost = 100 * time.Second // what many readers share
	askAhead  = 10                // an answer is usable for so many times what asking takes
	askRarely = 5                 // and fresh for so many times, so that asking takes a small part of the scorer's time
)

// Cache keeps one answer. While it is fresh it is not asked for again; while it is usable it is answered at once and
// renewed behind the reader's back; until last it stands in for a peer that does not answer. What takes long to ask for
// is fresh and usable for longer, but by atMost.
type Cache[T any] struct {
	Fresh, Usable, AtMost, Last time.Duration

	mu     sync.Mutex
	value  T
	at     time.Time
	took   time.Duration // asking, the last time
	err    error         // of the last time
	asking chan struct{} // closed when the asking under way has ended; nil: none
}

// Stale says that a remembered answer was given because the peer is away.
type Stale struct {
	Since time.Time
	Cause error
}

func (s *Stale) Error() string {
	return fmt.Sprintf("answer of %s: %v", s.Since.Format(time.TimeOnly), s.Cause)
}

func (s *Stale) Unwrap() error { return s.Cause }

// Get answers with the value and nil, an older value and *stale, or no value and the error of ask.
func (c *Cache[T]) Get(now func() time.Time, ask func(context.Context) (T, error)) (T, error) {
	c.mu.Lock()
	age := now().Sub(c.at)
	// What takes long to ask for is renewed behind the readers' backs for longer: in a large company a page does not wait
	// for it, and in a small one a page shows nothing that is older than a moment.
	if !c.at.IsZero() && age < max(c.Usable, min(askAhead*c.took, c.AtMost)) {
		defer c.mu.Unlock()
		if age >= max(c.Fresh, min(askRarely*c.took, c.AtMost/2)) {
			c.begin(now, ask)
		}
		return c.value, nil
	}
	asking := c.begin(now, ask)
	c.mu.Unlock()
	timer := time.NewTimer(AskWithin)
	defer timer.Stop()
	select {
	case <-asking:
	case <-timer.C: // the asking goes on: a scorer that has just started reads everything first
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.err
	if c.asking == asking { // not ended: of an answer and the timer that come at once, the answer is taken
		err = fmt.Errorf("no answer yet: %w", context.DeadlineExceeded)
	}
	if err != nil && !c.at.IsZero() && now().Sub(c.at) < c.Last {
		return c.value, &Stale{Since: c.at, Cause: err}
	}
	if err != nil {
		var none T
		return none, err
	}
	return c.value, nil
}

// begin asks, unless a call is under way: many readers ask once, and not for the first of them alone. The caller holds
// mu.
func (c *Cache[T]) begin(now func() time.Time, ask func(context.Context) (T, error)) <-chan struct{} {
	if c.asking != nil {
		return c.asking
	}
	done := make(chan struct{})
	c.asking = done
	begun := now()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), askAtMost)
		defer cancel()
		next, err := ask(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err = err; err == nil {
			c.value, c.at, c.took = next, now(), now().Sub(begun)
		}
		c.asking = nil
		close(done)
	}()
	return done
}

// Forget drops what is remembered, also what is being asked for at this moment.
func (c *Cache[T]) Forget() {
	for {
		c.mu.Lock()
		asking := c.asking
		if asking == nil {
			c.at, c.err = time.Time{}, nil
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		<-asking
	}
}

// Took says how long asking took, the last time.
func (c *Cache[T]) Took() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.took
}
