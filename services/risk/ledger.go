package risk

import (
	"cmp"
	"slices"
	"time"
	"unsafe"

	"example.org/security-training/services/activity"
)

// Ledger is one person's events as far as one profile needs them, kept so that a new event costs the same however long the
// history is: what decays is summed up, and only the window is remembered event by event. It scores exactly as
// Profile.Score does from all events. It does not explain, and knows nothing of floods (see Counted). Ids are the caller's to keep
// distinct.
type Ledger struct {
	profile *Profile
	newest  time.Time
	sums    map[activity.Verb][]lessoning
	states  []activity.Event // that have not ended
	window  []activity.Event // by time and id; and before it as far as patterns look back
	pass    time.Time
	passed  map[string]time.Time
	closed  map[string]time.Time
	teaches map[activity.Verb]map[string]time.Time
}

// lessoning is the events of one verb after which the same modules were passed.
type lessoning struct {
	modules []string // in order
	sum     tally    // as if no lesson had followed
	newest  time.Time
}

// NewLedger begins a ledger without events.
func NewLedger(p *Profile) *Ledger {
	return &Ledger{profile: p, sums: map[activity.Verb][]lessoning{}, passed: map[string]time.Time{}, closed: map[string]time.Time{}, teaches: map[activity.Verb]map[string]time.Time{}}
}

// LedgerOf is the ledger of a person's events, in any order.
func LedgerOf(p *Profile, events []activity.Event) *Ledger {
	l := NewLedger(p)
	for _, e := range passesFirst(events) {
		l.Add(*e)
	}
	return l
}

// passesFirst is events by time; of one moment the passes come first: they act on what was before it, and not on the
// rest of it.
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
		return cmp.Or(cmp.Compare(rank(a), rank(b)), byTime(a, b))
	})
	return sorted
}

// Scores is Profile.Score at each of the times, which ascend, of events that count (see Counted) and whose ids are
// distinct. It goes through the events once.
func (p *Profile) Scores(role Role, counted []activity.Event, times []time.Time) []Score {
	l, rest := NewLedger(p), passesFirst(counted)
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

// Bytes is about how much memory the ledger takes.
func (l *Ledger) Bytes() int {
	const event = int(unsafe.Sizeof(activity.Event{})) + 64 // with its id and verb
	n := 1 << 10
	for _, list := range l.sums {
		n += 256 * len(list)
	}
	return n + event*(cap(l.window)+len(l.states)) + 64*(len(l.passed)+len(l.closed))
}

// Add takes one more event, late ones too. It answers false, and takes nothing, when the event is a pass that acts on some of what has been summed up and not on all of it: then the ledger has
// to be made anew, by LedgerOf.
func (l *Ledger) Add(e activity.Event) bool {
	if e.Verb == activity.TrainingPassed && !l.teach(e) {
		return false
	}
	if e.At.After(l.newest) {
		l.newest = e.At
	}
	if e.Verb == activity.SecurityTicketClosed {
		after(l.closed, e.Ticket, e.At)
		l.states = slices.DeleteFunc(l.states, l.ended)
	}
	if alpha := l.profile.Severities[e.Verb]; alpha > 0 {
		switch {
		case (weighed{event: &e}).state():
			if !l.ended(e) {
				l.states = append(l.states, e)
			}
		case l.profile.HalfLife > 0:
			l.take(e, uint64(alpha))
		}
	}
	// Nothing is kept that scores do not need: a company's windows are in memory.
	e.Detail, e.Person, e.Accounts, e.Source = "", "", nil, e.Verb.Source()
	i, _ := slices.BinarySearchFunc(l.window, e, inTime)
	l.window = slices.Insert(l.window, i, e)
	begin := l.newest.Add(-time.Duration(l.profile.Window) - l.profile.Patterns.lookBack())
	old := 0
	for old < len(l.window) && l.window[old].At.Before(begin) {
		old++
	}
	clear(l.window[:old]) // what is before the window is let go; nothing is moved for that
	l.window = l.window[old:]
	return true
}

// take sums up an event that decays, with the lessons that followed it.
func (l *Ledger) take(e activity.Event, alpha uint64) {
	var modules []string
	for m, t := range l.teaches[e.Verb] {
		if t.After(e.At) {
			modules = append(modules, m)
		}
	}
	slices.Sort(modules)
	s := l.lessoning(e.Verb, modules)
	s.sum.grow(alpha, e.At, time.Duration(l.profile.HalfLife), 0)
	if e.At.After(s.newest) {
		s.newest = e.At
	}
}

func (l *Ledger) lessoning(v activity.Verb, modules []string) *lessoning {
	for i := range l.sums[v] {
		if slices.Equal(l.sums[v][i].modules, modules) {
			return &l.sums[v][i]
		}
	}
	l.sums[v] = append(l.sums[v], lessoning{modules: modules})
	return &l.sums[v][len(l.sums[v])-1]
}

// teach lets a pass act on what was summed up; false when some of that was not before it.
func (l *Ledger) teach(e activity.Event) bool {
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
			into := l.lessoning(v, modules)
			into.sum.merge(&s.sum)
			if s.newest.After(into.newest) {
				into.newest = s.newest
			}
		}
		if l.teaches[v] == nil {
			l.teaches[v] = map[string]time.Time{}
		}
		after(l.teaches[v], e.Module, e.At)
	}
	if e.At.After(l.pass) {
		l.pass = e.At
	}
	after(l.passed, e.Module, e.At)
	l.states = slices.DeleteFunc(l.states, l.ended)
	return true
}

// ended says whether a state has.
func (l *Ledger) ended(e activity.Event) bool {
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
func (l *Ledger) Score(role Role, at time.Time) Score {
	p := l.profile
	h := &history{at: at, events: make([]*activity.Event, len(l.window))}
	begin := at.Add(-time.Duration(p.Window))
	var t tallies
	for i := range l.window {
		e := &l.window[i]
		h.events[i] = e
		alpha := p.Severities[e.Verb]
		if p.HalfLife > 0 || alpha == 0 || !e.At.After(begin) || (weighed{event: e}).state() {
			continue
		}
		lessons := 0
		for _, passed := range l.teaches[e.Verb] {
			if passed.After(e.At) {
				lessons++
			}
		}
		t[e.Source.Group()].plain[min(lessons, 2)].add(uint64(alpha), one)
	}
	for _, e := range l.states {
		t[e.Source.Group()].plain[0].add(uint64(p.Severities[e.Verb]), one)
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
