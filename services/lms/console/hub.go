package console

import (
	"slices"
	"sync"
	"time"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/postgres/audited"
)

// hub is what the instructor's page shows beyond the database.
type hub struct {
	mu         sync.Mutex
	changed    chan struct{} // closed and replaced at each change
	ended      bool
	asked      time.Time // when the conductor was last here
	viewers    int
	looked     time.Time // when a page was last shown
	feed       []exercise.FeedLine
	identities []exercise.Identity
	revoked    []exercise.Revoked
	strangers  []exercise.Stranger

	begun     time.Time // this process; the feed of before is in the database
	recalling sync.Mutex
	recalled  bool
}

const feedKept = exercise.FeedMost

func newHub() *hub { return &hub{changed: make(chan struct{}), begun: time.Now()} }

// wait is closed at the next change. Once the hub has ended, it is closed already.
func (h *hub) wait() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

func (h *hub) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

// update changes the hub and wakes all who wait.
func (h *hub) update(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	if !h.ended {
		close(h.changed)
		h.changed = make(chan struct{})
	}
}

// end lets nobody wait any more: the process drains.
func (h *hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.ended = true
		close(h.changed)
	}
}

func (h *hub) watched(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.viewers > 0 || now.Sub(h.looked) < 15*time.Second
}

// wrote tells the feed of rows that this service has just committed.
func (h *hub) wrote(rows []audited.Row) {
	var lines []exercise.FeedLine
	for _, r := range rows {
		if line, ok := lineOf(r, time.Now().UTC()); ok {
			lines = append(lines, line)
		}
	}
	h.update(func() { h.add(lines) })
}

func (h *hub) add(lines []exercise.FeedLine) {
	h.feed = append(h.feed, lines...)
	slices.SortStableFunc(h.feed, func(a, b exercise.FeedLine) int { return a.At.Compare(b.At) })
	if len(h.feed) > feedKept {
		h.feed = slices.Clone(h.feed[len(h.feed)-feedKept:])
	}
}
