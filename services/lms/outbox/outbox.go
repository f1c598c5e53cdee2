// Package outbox is a transactional outbox for training events: an event is stored together with the change that it
// reports, and then delivered to the risk scorer, in order and at least once.
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

// Outbox delivers training events to the risk scorer. Its methods are safe for concurrent use.
type Outbox struct {
	*Store
	scorer *riskclient.Client
	log    *slog.Logger
	wake   chan struct{}

	delivering sync.Mutex // held while a batch is delivered, so that no event arrives after a reset that deletes it

	mu      sync.Mutex
	waiters map[string][]chan struct{}
}

// New returns an outbox in db that delivers to scorer. It delivers nothing until Run.
func New(db *store.Store, scorer *riskclient.Client, log *slog.Logger) *Outbox {
	return &Outbox{
		Store:   &Store{db},
		scorer:  scorer,
		log:     log,
		wake:    make(chan struct{}, 1),
		waiters: map[string][]chan struct{}{},
	}
}

// Kick makes Run deliver at once.
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
	lookAgain     = time.Second // for events that another replica stored, or that were stored before the start
)

// Run delivers events in batches and in order until ctx ends. It retries a batch that fails.
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

// Hold stops deliveries until release is called.
func (o *Outbox) Hold() (release func()) {
	o.delivering.Lock()
	return o.delivering.Unlock
}

// deliver sends one batch, and reports whether there may be more.
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
	// The scores are stored before the receipts: a batch with receipts is not sent again. If a score is missing, the batch
	// is, and the risk scorer reports duplicates.
	if err := o.storeScores(ctx, batch); err != nil {
		return false, err
	}
	if err := o.delivered(ctx, batch, receipts); err != nil {
		return false, err
	}
	for i, w := range batch {
		if s := receipts[i].Status; s != activity.Stored && s != activity.Duplicate {
			o.log.Error("training event was rejected", "event", w.ID, "status", s, "reason", receipts[i].Reason)
		}
		o.announce(w.ID)
	}
	return len(batch) == batchOfEvents, nil
}

// storeScores requests and stores the score after each event that ended a lesson.
func (o *Outbox) storeScores(ctx context.Context, batch []waiting) error {
	for _, w := range batch {
		if !w.Ends {
			continue
		}
		a, err := o.scorer.Risk(ctx, w.Event.Person)
		if errors.Is(err, riskclient.ErrUnknownPerson) {
			continue // a person who has left has no score
		}
		if err != nil {
			return err
		}
		if err := o.scored(ctx, w.ID, a.Score); err != nil {
			return err
		}
	}
	return nil
}

// Expect returns a channel that is closed when the event has been delivered. The caller calls the function when it no
// longer waits.
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
