// Package outbox hands what the learning system taught to the risk scorer: an event is stored with the change that it
// reports, and delivered at least once and in order afterwards (a transactional outbox).
package outbox

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/store"
)

// Outbox delivers training events to the scorer, at least once and in order.
type Outbox struct {
	*Store
	scorer *riskclient.Client
	log    *slog.Logger
	wake   chan struct{}

	delivering sync.Mutex // held while a batch is on its way, so that a reset is not followed by an event of before it

	mu      sync.Mutex
	waiters map[string][]chan struct{}
}

// New makes an outbox in db, whose events go to scorer. Nothing is delivered until Run.
func New(db *store.Store, scorer *riskclient.Client, log *slog.Logger) *Outbox {
	return &Outbox{
		Store:   &Store{db},
		scorer:  scorer,
		log:     log,
		wake:    make(chan struct{}, 1),
		waiters: map[string][]chan struct{}{},
	}
}

// Kick says that there is something to deliver.
func (o *Outbox) Kick() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

const (
	batchOfEvents = 1000
	shortestPause = 200 * time.Millisecond
	longestPause  = 5 * time.Second
	lookAgain     = time.Second // for events of another replica, or of before a start
)

// Run delivers events to the scorer, in batches and in order, until ctx ends. It repeats what does not arrive.
func (o *Outbox) Run(ctx context.Context) error {
	pause := shortestPause
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.wake:
		case <-timer.C:
		}
		more, err := o.deliver(ctx)
		next := lookAgain
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			next = pause
			var answered *httpjson.Error
			if errors.As(err, &answered) && answered.RetryAfter > 0 {
				next = answered.RetryAfter
			}
			if pause = min(longestPause, 2*pause); pause == longestPause {
				o.log.Warn("deliver training events", "error", err.Error(), "again_in", next.String())
			}
		default:
			pause = shortestPause
			if more {
				next = 0
			}
		}
		timer.Reset(next)
	}
}

// Hold lets nothing be delivered until what it answers is called.
func (o *Outbox) Hold() (release func()) {
	o.delivering.Lock()
	return o.delivering.Unlock
}

// deliver sends one batch, and says whether there may be more.
func (o *Outbox) deliver(ctx context.Context) (bool, error) {
	o.delivering.Lock()
	defer o.delivering.Unlock()
	batch, err := o.waiting(ctx, batchOfEvents)
	if err != nil || len(batch) == 0 {
		return false, err
	}
	entries := make([]activity.Entry, len(batch))
	for i := range batch {
		entries[i] = activity.Entry{Seq: uint64(batch[i].Seq), Event: &batch[i].Event}
	}
	receipts, err := o.scorer.Send(ctx, entries)
	if err != nil {
		return false, err
	}
	for _, w := range batch {
		if !w.Ends {
			continue
		}
		// The new score first: once the receipt is kept, nobody would ask for it again. Without one the batch goes out once more,
		// and is a duplicate then.
		a, err := o.scorer.Risk(ctx, w.Event.Person)
		if errors.Is(err, riskclient.ErrUnknownPerson) {
			continue // whoever has left has no score
		}
		if err != nil {
			return false, err
		}
		if err := o.scored(ctx, w.ID, a.Score); err != nil {
			return false, err
		}
	}
	if err := o.delivered(ctx, batch, receipts); err != nil {
		return false, err
	}
	for i, w := range batch {
		if s := receipts[i].Status; s != activity.Stored && s != activity.Duplicate {
			o.log.Error("training event was not taken", "event", w.ID, "status", s, "reason", receipts[i].Reason)
		}
		o.announce(w.ID)
	}
	return len(batch) == batchOfEvents, nil
}

// Expect returns a channel that is closed when the event has been delivered, and what to call when nobody waits any
// more.
func (o *Outbox) Expect(id string) (<-chan struct{}, func()) {
	c := make(chan struct{})
	o.mu.Lock()
	o.waiters[id] = append(o.waiters[id], c)
	o.mu.Unlock()
	return c, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.waiters[id] = slices.DeleteFunc(o.waiters[id], func(other chan struct{}) bool { return other == c })
		if len(o.waiters[id]) == 0 {
			delete(o.waiters, id)
		}
	}
}

func (o *Outbox) announce(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.waiters[id] {
		close(c)
	}
	delete(o.waiters, id)
}
