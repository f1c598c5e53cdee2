package risk

import (
	"cmp"
	"time"

	"example.org/security-training/services/activity"
)

// weightedEvent is an event that carries risk, with its N.
type weightedEvent struct {
	event   *activity.Event
	group   activity.Group
	alpha   uint64 // whole millionths
	n       uint64 // N before lessons, in 2^−63; 0 outside the window or when its state has ended
	decays  bool
	lessons int // different modules that teach its verb and were passed after it
}

// term is N after lessons: a half after one module, a quarter after two or more.
func (w weightedEvent) term() uint64 { return w.n >> min(w.lessons, 2) }

// state says whether the event begins a state, which counts until it ends and does not decay.
func (w weightedEvent) state() bool {
	switch w.event.Verb {
	case activity.TrainingStale, activity.OverdueModule, activity.OverdueSecurityTicket:
		return true
	}
	return false
}

// history is a person's events up to τ, prepared for scoring.
type history struct {
	at       time.Time
	events   []*activity.Event // distinct, up to τ
	weighted []weightedEvent
	pass     time.Time            // the last pass of anything
	passed   map[string]time.Time // the last pass of each module
	closed   map[string]time.Time // the last closing of each ticket
	teaches  map[activity.Verb]map[string]time.Time
}

// keepLater sets m[key] to t if t is later.
func keepLater[K comparable](m map[K]time.Time, key K, t time.Time) {
	if last, ok := m[key]; !ok || t.After(last) {
		m[key] = t
	}
}

func (p *Profile) read(events []activity.Event, at time.Time) *history {
	h := &history{
		at: at, events: distinct(events, at),
		passed: map[string]time.Time{}, closed: map[string]time.Time{}, teaches: map[activity.Verb]map[string]time.Time{},
	}
	for _, e := range h.events {
		h.note(e)
	}
	h.weighted = make([]weightedEvent, 0, len(h.events))
	begin := at.Add(-time.Duration(p.Window))
	for _, e := range h.events {
		if alpha := p.Severities[e.Verb]; alpha > 0 {
			h.weighted = append(h.weighted, p.weigh(h, e, alpha, begin))
		}
	}
	return h
}

// note records passes and closings, which act on other events.
func (h *history) note(e *activity.Event) {
	switch e.Verb {
	case activity.TrainingPassed:
		if e.At.After(h.pass) {
			h.pass = e.At
		}
		keepLater(h.passed, e.Module, e.At)
		for _, v := range e.Teaches {
			if h.teaches[v] == nil {
				h.teaches[v] = map[string]time.Time{}
			}
			keepLater(h.teaches[v], e.Module, e.At)
		}
	case activity.SecurityTicketClosed:
		keepLater(h.closed, e.Ticket, e.At)
	}
}

// weigh computes the weight of one event; begin is the start of the window.
func (p *Profile) weigh(h *history, e *activity.Event, alpha Micro, begin time.Time) weightedEvent {
	w := weightedEvent{event: e, group: e.Source.Group(), alpha: uint64(alpha), n: one}
	switch e.Verb {
	case activity.TrainingStale:
		if h.pass.After(e.At) {
			w.n = 0
		}
	case activity.OverdueModule:
		if h.passed[e.Module].After(e.At) {
			w.n = 0
		}
	case activity.OverdueSecurityTicket:
		if h.closed[e.Ticket].After(e.At) {
			w.n = 0
		}
	default:
		if p.HalfLife > 0 {
			w.n, w.decays = halve(h.at.Sub(e.At), time.Duration(p.HalfLife)), true
		} else if !e.At.After(begin) {
			w.n = 0
		}
		for _, t := range h.teaches[e.Verb] {
			if t.After(e.At) {
				w.lessons++
			}
		}
	}
	return w
}

// distinct is the events up to τ, one for each id; their order does not matter. Of different events with the same id,
// which no store holds, the first by time and verb is taken.
func distinct(events []activity.Event, at time.Time) []*activity.Event {
	seen := make(map[string]int, len(events))
	list := make([]*activity.Event, 0, len(events))
	for i := range events {
		e := &events[i]
		if e.At.After(at) {
			continue
		}
		if j, ok := seen[e.ID]; ok {
			first := list[j]
			if cmp.Or(e.At.Compare(first.At), cmp.Compare(e.Verb, first.Verb),
				cmp.Compare(e.Module+e.Ticket, first.Module+first.Ticket)) < 0 {
				list[j] = e
			}
			continue
		}
		seen[e.ID] = len(list)
		list = append(list, e)
	}
	return list
}
