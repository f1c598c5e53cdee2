package riskclient

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// AskWithin is how long a page waits for an answer of the risk scorer.
const AskWithin = 5 * time.Second

const (
	askAtMost = 100 * time.Second // timeout of a request whose answer many callers share
	askAhead  = 10                // an answer is usable for this many times the duration of the request
	askRarely = 5                 // and fresh for this many times, which bounds the load on the risk scorer
)

// Cache keeps one answer of a peer. While it is younger than Fresh, it is returned. While it is younger than Usable, it
// is returned and renewed in the background. While it is younger than Last, it is returned if the peer does not answer.
// Answers of slow requests are fresh and usable for longer, up to AtMost. A Cache is safe for concurrent use.
type Cache[T any] struct {
	Fresh, Usable, AtMost, Last time.Duration

	mu     sync.Mutex
	value  T
	at     time.Time
	took   time.Duration // duration of the last successful request
	err    error         // of the last request
	asking chan struct{} // closed when the current request ends; nil: there is none
}

// Stale is the error that comes with a cached answer of the time Since, because the peer failed with Cause.
type Stale struct {
	Since time.Time
	Cause error
}

func (s *Stale) Error() string {
	return fmt.Sprintf("answer of %s: %v", s.Since.Format(time.TimeOnly), s.Cause)
}

func (s *Stale) Unwrap() error { return s.Cause }

// Get returns the value and nil, an older value and a *Stale, or the zero value and the error of ask. now is the wall
// clock. It waits for at most AskWithin.
func (c *Cache[T]) Get(now func() time.Time, ask func(context.Context) (T, error)) (T, error) {
	c.mu.Lock()
	if usable, fresh := c.ages(); !c.at.IsZero() && now().Sub(c.at) < usable {
		defer c.mu.Unlock()
		if now().Sub(c.at) >= fresh {
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
	case <-timer.C: // the request continues: a risk scorer that has just started takes long to answer
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.err
	if c.asking == asking { // still running; if it ended together with the timer, its answer counts
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

// ages returns for how long an answer is usable and fresh. A request that takes long extends both: the pages of a large
// company do not wait for it, and those of a small company show only recent data. The caller holds mu.
func (c *Cache[T]) ages() (usable, fresh time.Duration) {
	return max(c.Usable, min(askAhead*c.took, c.AtMost)), max(c.Fresh, min(askRarely*c.took, c.AtMost/2))
}

// begin starts a request, unless one is running: concurrent callers share it, and it does not end with the context of
// one of them. The caller holds mu.
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

// Forget drops the answer. It waits for a running request and drops its answer, too.
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

// Took is how long the last successful request took.
func (c *Cache[T]) Took() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.took
}
