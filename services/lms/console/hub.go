package console

import (
	"slices"
	"sync"
	"time"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/postgres/audited"
)

// hub is the state of the console that is not in the database.
type hub struct {
	mu         sync.Mutex
	changed    chan struct{} // closed and replaced at each change; closed for good once ended
	ended      bool
	asked      time.Time // last request of the conductor for orders
	viewers    int       // number of open streams
	looked     time.Time // last page view
	feed       []exercise.FeedLine
	identities []exercise.Identity
	revoked    []exercise.Revoked
	strangers  []exercise.Stranger

	begun     time.Time  // start of this process
	restoring sync.Mutex // held while the feed of before begun is read
	restored  bool
}

const feedKept = exercise.FeedMost

func newHub() *hub { return &hub{changed: make(chan struct{}), begun: time.Now()} }

// wait returns a channel that is closed at the next change. Once the hub has ended, it is closed already.
func (h *hub) wait() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// over reports whether the hub has ended.
func (h *hub) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

// update runs change with the lock held, and wakes all waiting callers.
func (h *hub) update(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	if !h.ended {
		close(h.changed)
		h.changed = make(chan struct{})
	}
}

// end wakes all waiting callers for good.
func (h *hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.ended = true
		close(h.changed)
	}
}

// watched reports whether there is a viewer, or was one in the last seconds.
func (h *hub) watched(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.viewers > 0 || now.Sub(h.looked) < 15*time.Second
}

// wrote adds audit rows that have just been committed to the feed.
func (h *hub) wrote(rows []audited.Row) {
	var lines []exercise.FeedLine
	for _, r := range rows {
		if line, ok := lineOf(r, time.Now().UTC()); ok {
			lines = append(lines, line)
		}
	}
	h.update(func() { h.add(lines) })
}

// add adds lines in order of time and keeps the latest. The caller holds mu.
func (h *hub) add(lines []exercise.FeedLine) {
	h.feed = append(h.feed, lines...)
	slices.SortStableFunc(h.feed, func(a, b exercise.FeedLine) int { return a.At.Compare(b.At) })
	if len(h.feed) > feedKept {
		h.feed = slices.Clone(h.feed[len(h.feed)-feedKept:])
	}
}
