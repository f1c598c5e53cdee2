package risk

import (
	"cmp"
	"slices"
	"time"
	"unsafe"

	"example.org/security-training/services/activity"
)

// Accumulator holds one person's events as far as one profile needs them, so that the cost of a new event does not
// depend on the length of the history: decaying events are summed, and only the window is kept event by event. It
// scores exactly as Profile.Score does from all events. It does not explain the score, and does not apply the hourly
// cap (see Capped). The caller keeps ids distinct.
type Accumulator struct {
	profile *Profile
	newest  time.Time
	sums    map[activity.Verb][]lessonGroup
	states  []activity.Event // that have not ended
	window  []activity.Event // by time and id; it also reaches back as far as patterns look
	pass    time.Time
	passed  map[string]time.Time
	closed  map[string]time.Time
	teaches map[activity.Verb]map[string]time.Time
}

// lessonGroup is the sum of those events of one verb after which the same modules were passed.
type lessonGroup struct {
	modules []string    // in order
	sum     decayingSum // before the effect of lessons
	newest  time.Time
}

// NewAccumulator returns an accumulator without events.
func NewAccumulator(p *Profile) *Accumulator {
	return &Accumulator{
		profile: p, sums: map[activity.Verb][]lessonGroup{}, passed: map[string]time.Time{}, closed: map[string]time.Time{},
		teaches: map[activity.Verb]map[string]time.Time{},
	}
}

// AccumulatorOf returns the accumulator of a person's events, in any order.
func AccumulatorOf(p *Profile, events []activity.Event) *Accumulator {
	l := NewAccumulator(p)
	for _, e := range passesFirst(events) {
		l.Add(*e)
	}
	return l
}

// passesFirst is events by time. Of events at the same time, passes come first: a pass acts on events before it and not
// on those at its own time.
func passesFirst(events []activity.Event) []*activity.Event {
	sorted := make([]*activity.Event, len(events))
	for i := range events {
		sorted[i] = &events[i]
	}
	rank := func(e *activity.Event) int {
		if e.Verb == activity.TrainingPassed {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(sorted, func(a, b *activity.Event) int {
		if d := a.At.Compare(b.At); d != 0 {
			return d
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), compareByTime(a, b))
	})
	return sorted
}

// Scores is Profile.Score at each of the times, which must ascend. The events must be capped (see Capped) and have
// distinct ids. It reads the events once.
func (p *Profile) Scores(role Role, capped []activity.Event, times []time.Time) []Score {
	l, rest := NewAccumulator(p), passesFirst(capped)
	scores := make([]Score, len(times))
	for i, at := range times {
		for len(rest) > 0 && !rest[0].At.After(at) {
			l.Add(*rest[0])
			rest = rest[1:]
		}
		scores[i] = l.Score(role, at)
	}
	return scores
}

// Bytes estimates how much memory the accumulator takes.
func (l *Accumulator) Bytes() int {
	const event = int(unsafe.Sizeof(activity.Event{})) + 64 // with its id and verb
	n := 1 << 10
	for _, list := range l.sums {
		n += 256 * len(list)
	}
	return n + event*(cap(l.window)+len(l.states)) + 64*(len(l.passed)+len(l.closed))
}

// Add adds one more event, which may be late. It returns false, and adds nothing, when the event is a pass that acts on
// only a part of what has been summed: then the accumulator has to be rebuilt by AccumulatorOf.
func (l *Accumulator) Add(e activity.Event) bool {
	if e.Verb == activity.TrainingPassed && !l.teach(e) {
		return false
	}
	if e.At.After(l.newest) {
		l.newest = e.At
	}
	if e.Verb == activity.SecurityTicketClosed {
		keepLater(l.closed, e.Ticket, e.At)
		l.states = slices.DeleteFunc(l.states, l.ended)
	}
	if alpha := l.profile.Severities[e.Verb]; alpha > 0 {
		switch {
		case (weightedEvent{event: &e}).state():
			if !l.ended(e) {
				l.states = append(l.states, e)
			}
		case l.profile.HalfLife > 0:
			l.take(e, uint64(alpha))
		}
	}
	// Fields that scores do not need are dropped: the windows of a whole organisation are held in memory.
	e.Detail, e.Person, e.Accounts, e.Source = "", "", nil, e.Verb.Source()
	i, _ := slices.BinarySearchFunc(l.window, e, byTimeValue)
	l.window = slices.Insert(l.window, i, e)
	begin := l.newest.Add(-time.Duration(l.profile.Window) - l.profile.Patterns.lookBack())
	old := 0
	for old < len(l.window) && l.window[old].At.Before(begin) {
		old++
	}
	clear(l.window[:old]) // releases what is before the window without moving the rest
	l.window = l.window[old:]
	return true
}

// take adds a decaying event to the sum of the events with the same later lessons.
func (l *Accumulator) take(e activity.Event, alpha uint64) {
	var modules []string
	for m, t := range l.teaches[e.Verb] {
		if t.After(e.At) {
			modules = append(modules, m)
		}
	}
	slices.Sort(modules)
	s := l.lessonGroup(e.Verb, modules)
	s.sum.addDecaying(alpha, e.At, time.Duration(l.profile.HalfLife), 0)
	if e.At.After(s.newest) {
		s.newest = e.At
	}
}

func (l *Accumulator) lessonGroup(v activity.Verb, modules []string) *lessonGroup {
	for i := range l.sums[v] {
		if slices.Equal(l.sums[v][i].modules, modules) {
			return &l.sums[v][i]
		}
	}
	l.sums[v] = append(l.sums[v], lessonGroup{modules: modules})
	return &l.sums[v][len(l.sums[v])-1]
}

// teach applies a pass to what was summed; it returns false when some of that was not before the pass.
func (l *Accumulator) teach(e activity.Event) bool {
	for _, v := range e.Teaches {
		for _, s := range l.sums[v] {
			if !slices.Contains(s.modules, e.Module) && !s.newest.Before(e.At) {
				return false
			}
		}
	}
	for _, v := range e.Teaches {
		list := l.sums[v]
		l.sums[v] = nil
		for _, s := range list {
			modules := s.modules
			if !slices.Contains(modules, e.Module) {
				modules = append(slices.Clone(modules), e.Module)
				slices.Sort(modules)
			}
			into := l.lessonGroup(v, modules)
			into.sum.merge(&s.sum)
			if s.newest.After(into.newest) {
				into.newest = s.newest
			}
		}
		if l.teaches[v] == nil {
			l.teaches[v] = map[string]time.Time{}
		}
		keepLater(l.teaches[v], e.Module, e.At)
	}
	if e.At.After(l.pass) {
		l.pass = e.At
	}
	keepLater(l.passed, e.Module, e.At)
	l.states = slices.DeleteFunc(l.states, l.ended)
	return true
}

// ended says whether a state has ended.
func (l *Accumulator) ended(e activity.Event) bool {
	switch e.Verb {
	case activity.TrainingStale:
		return l.pass.After(e.At)
	case activity.OverdueModule:
		return l.passed[e.Module].After(e.At)
	case activity.OverdueSecurityTicket:
		return l.closed[e.Ticket].After(e.At)
	}
	return false
}

// Score is the score at τ, which must not be before the newest event.
func (l *Accumulator) Score(role Role, at time.Time) Score {
	p := l.profile
	h := &history{at: at, events: make([]*activity.Event, len(l.window))}
	begin := at.Add(-time.Duration(p.Window))
	var t decayingSums
	for i := range l.window {
		e := &l.window[i]
		h.events[i] = e
		alpha := p.Severities[e.Verb]
		if p.HalfLife > 0 || alpha == 0 || !e.At.After(begin) || (weightedEvent{event: e}).state() {
			continue
		}
		lessons := 0
		for _, passed := range l.teaches[e.Verb] {
			if passed.After(e.At) {
				lessons++
			}
		}
		t[e.Source.Group()].plain[min(lessons, 2)].addProduct(uint64(alpha), one)
	}
	for _, e := range l.states {
		t[e.Source.Group()].plain[0].addProduct(uint64(p.Severities[e.Verb]), one)
	}
	for v, list := range l.sums {
		into := &t[v.Source().Group()]
		for _, s := range list {
			for _, a := range s.sum.ages {
				into.age(a.number).grown[min(len(s.modules), 2)].plus(a.grown[0])
			}
		}
	}
	return p.combine(role, p.sum(&t, at), p.pattern(h)).score
}
