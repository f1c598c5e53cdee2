package risk

import (
	"cmp"
	"math/big"
	"slices"
	"time"

	"example.org/security-training/services/activity"
)

// Sources are a person's R_s, each in [0, 1]: how much of a source's risk is used up.
type Sources struct {
	Git      Score `json:"git"`
	IAM      Score `json:"iam"`
	SIEM     Score `json:"siem"`
	Training Score `json:"training"` // jira's overdue security work and the LMS
}

// Contribution is one line of the sum that makes a score. All lines of an assessment sum exactly to Score.Micro().
type Contribution struct {
	Line   Line          `json:"line"`
	Event  string        `json:"event,omitempty"` // its id, on lines of kind event
	Verb   activity.Verb `json:"verb,omitempty"`
	At     time.Time     `json:"at,omitzero"`
	Detail string        `json:"detail,omitempty"`
	Part   int64         `json:"part"` // whole millionths of the score; the cap's is negative
	// Events make the pattern, on lines of kind pattern; in order of time. Some of them may have no part of their own.
	Events []Evidence `json:"events,omitempty"`
}

// Evidence is one event that a pattern is made of.
type Evidence struct {
	Event  string        `json:"event"` // its id
	Verb   activity.Verb `json:"verb"`
	At     time.Time     `json:"at"`
	Detail string        `json:"detail,omitempty"`
}

// Line says what a Contribution stands for.
type Line string

// An event's own part; what a pattern's multiplier or floor adds to the events' sum; what is cut because a score ends at 1.
const (
	EventLine   Line = "event"
	PatternLine Line = "pattern"
	CapLine     Line = "cap"
)

// Reason is what all events of one verb contribute, in plain words.
type Reason struct {
	Verb   activity.Verb `json:"verb"`
	Count  int           `json:"count"`            // events that still weigh something
	Part   int64         `json:"part"`             // whole millionths of the score
	Words  string        `json:"words"`            // "committed a secret 3 times"
	Last   time.Time     `json:"last"`             // when it last happened
	Detail string        `json:"detail,omitempty"` // of the last event
}

// LowerAct is something that the person can do, and the score that doing it now would give.
type LowerAct struct {
	Act     string          `json:"act"` // "module": pass it; "ticket": close it
	ID      string          `json:"id"`
	Title   string          `json:"title"`
	Teaches []activity.Verb `json:"teaches,omitempty"`
	After   Score           `json:"after"`
}

// Kinds of LowerAct.
const (
	PassModule  = "module"
	CloseTicket = "ticket"
)

// Point is a score at a time.
type Point struct {
	At    time.Time `json:"at"`
	Score Score     `json:"score"`
}

// Assessment is a person's score with everything that explains it. It is what crosses the wire.
type Assessment struct {
	Person        string         `json:"person"`
	Role          Role           `json:"role"`
	At            time.Time      `json:"at"` // τ: events after it do not exist
	Profile       string         `json:"profile"`
	Version       int            `json:"version"`
	Position      int64          `json:"position"` // of the event log; filled in by the scorer
	Score         Score          `json:"score"`
	Level         Level          `json:"level"`
	Sources       Sources        `json:"sources"`
	Multiplier    Micro          `json:"multiplier"`        // C, 1 if no pattern holds
	Floor         Micro          `json:"floor,omitzero"`    // below which a pattern keeps the score from falling
	Pattern       string         `json:"pattern,omitempty"` // compromised, insider, burnout or a chain's name
	Reasons       []Reason       `json:"reasons"`           // the largest part first
	Contributions []Contribution `json:"contributions"`     // the largest part first, then pattern and cap
	Lower         []LowerAct     `json:"lower"`             // the lowest resulting score first
	Trend         []Point        `json:"trend"`             // filled in by the scorer, oldest first
	Frequency     Frequency      `json:"frequency"`
	Due           time.Time      `json:"due"` // of the next training: the last pass (else the first event, else At) + the frequency
	Escalation    Escalation     `json:"escalation,omitempty"`
	// Missing are sources that have been silent for too long: the score knows nothing of what happened there, and must not
	// be read as innocence. Filled in by the scorer.
	Missing []activity.Source `json:"missing,omitempty"`
}

// weighed is an event that carries risk, with its N.
type weighed struct {
	event   *activity.Event
	group   activity.Group
	alpha   uint64 // whole millionths
	n       uint64 // N before lessons, 2^−63; 0 when outside the window, or when its state has ended
	decays  bool
	lessons int // different modules that teach its verb and were passed after it
}

// term is N after lessons: half after one module, a quarter after two or more.
func (w weighed) term() uint64 { return w.n >> min(w.lessons, 2) }

func (w weighed) state() bool {
	switch w.event.Verb {
	case activity.TrainingStale, activity.OverdueModule, activity.OverdueSecurityTicket:
		return true
	}
	return false
}

// history is what a person's events up to τ come to.
type history struct {
	at      time.Time
	events  []*activity.Event // distinct, up to τ
	weighed []weighed
	pass    time.Time            // the last pass of anything
	passed  map[string]time.Time // the last pass of each module
	closed  map[string]time.Time // the last closing of each ticket
	teaches map[activity.Verb]map[string]time.Time
}

// after keeps the later time in m[key].
func after[K comparable](m map[K]time.Time, key K, t time.Time) {
	if last, ok := m[key]; !ok || t.After(last) {
		m[key] = t
	}
}

func (p *Profile) read(events []activity.Event, at time.Time) *history {
	h := &history{at: at, passed: map[string]time.Time{}, closed: map[string]time.Time{}, teaches: map[activity.Verb]map[string]time.Time{}}
	h.events = distinct(events, at)
	for _, e := range h.events {
		switch e.Verb {
		case activity.TrainingPassed:
			if e.At.After(h.pass) {
				h.pass = e.At
			}
			after(h.passed, e.Module, e.At)
			for _, v := range e.Teaches {
				if h.teaches[v] == nil {
					h.teaches[v] = map[string]time.Time{}
				}
				after(h.teaches[v], e.Module, e.At)
			}
		case activity.SecurityTicketClosed:
			after(h.closed, e.Ticket, e.At)
		}
	}
	h.weighed = make([]weighed, 0, len(h.events))
	begin := at.Add(-time.Duration(p.Window))
	for _, e := range h.events {
		alpha := p.Severities[e.Verb]
		if alpha == 0 {
			continue
		}
		w := weighed{event: e, group: e.Source.Group(), alpha: uint64(alpha), n: one}
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
				w.n, w.decays = halve(at.Sub(e.At), time.Duration(p.HalfLife)), true
			} else if !e.At.After(begin) {
				w.n = 0
			}
			for _, t := range h.teaches[e.Verb] {
				if t.After(e.At) {
					w.lessons++
				}
			}
		}
		h.weighed = append(h.weighed, w)
	}
	return h
}

// distinct is the events up to τ, each id once, whatever the order. Of different events under one id, which no store
// would hold, the first by time and verb is taken.
func distinct(events []activity.Event, at time.Time) []*activity.Event {
	seen := make(map[string]int, len(events))
	list := make([]*activity.Event, 0, len(events))
	for i := range events {
		e := &events[i]
		if e.At.After(at) {
			continue
		}
		if j, ok := seen[e.ID]; ok {
			if cmp.Or(e.At.Compare(list[j].At), cmp.Compare(e.Verb, list[j].Verb), cmp.Compare(e.Module+e.Ticket, list[j].Module+list[j].Ticket)) < 0 {
				list[j] = e
			}
			continue
		}
		seen[e.ID] = len(list)
		list = append(list, e)
	}
	return list
}

// tallies are what each group's Σ α · N is made of.
type tallies [activity.Groups]tally

func (p *Profile) add(t *tallies, w weighed) {
	switch {
	case w.n == 0 && !w.decays:
	case w.decays:
		t[w.group].grow(w.alpha, w.event.At, time.Duration(p.HalfLife), w.lessons)
	default:
		t[w.group].plain[min(w.lessons, 2)].add(w.alpha, w.n)
	}
}

// sums are Σ α · N of each group, in 10^−6 · 2^−65.
type sums [activity.Groups]*big.Int

func (p *Profile) sum(t *tallies, at time.Time) sums {
	var s sums
	for g := range t {
		s[g] = t[g].total(at, time.Duration(p.HalfLife))
	}
	return s
}

func (p *Profile) sums(h *history) sums {
	var t tallies
	for _, w := range h.weighed {
		p.add(&t, w)
	}
	return p.sum(&t, h.at)
}

// afterPass is the sums if the module were passed at τ.
func (p *Profile) afterPass(h *history, module string, teaches []activity.Verb) sums {
	var t tallies
	for _, w := range h.weighed {
		if w.event.At.Before(h.at) {
			switch {
			case w.event.Verb == activity.TrainingStale, w.event.Verb == activity.OverdueModule && w.event.Module == module:
				continue
			case !w.state() && slices.Contains(teaches, w.event.Verb) && !h.teaches[w.event.Verb][module].After(w.event.At):
				w.lessons++
			}
		}
		p.add(&t, w)
	}
	return p.sum(&t, h.at)
}

// afterClosing is the sums if the ticket were closed at τ.
func (p *Profile) afterClosing(h *history, ticket string) sums {
	var t tallies
	for _, w := range h.weighed {
		if w.event.Verb == activity.OverdueSecurityTicket && w.event.Ticket == ticket && w.event.At.Before(h.at) {
			continue
		}
		p.add(&t, w)
	}
	return p.sum(&t, h.at)
}

// Fixed-point constants: full is a source's risk of 1, whole is 1 in millionths.
var (
	full  = new(big.Int).Lsh(big.NewInt(1e6), 65)
	whole = big.NewInt(1e6)
)

// ratio is num/den as a Score, half up; it may be above One.
func ratio(num, den *big.Int) Score {
	n := new(big.Int).Mul(num, big.NewInt(2*int64(One)))
	n.Add(n, den)
	n.Quo(n, new(big.Int).Lsh(den, 1))
	return Score(n.Int64())
}

// parts are the exact steps from sums to a score.
type parts struct {
	sums    [activity.Groups]*big.Int // Σ_s
	factor  [activity.Groups]*big.Int // w_s · min(Σ_s, full)
	total   *big.Int                  // Σ factor: B in 10^−12 · 2^−65
	plain   Score                     // B
	risen   Score                     // max(C · B, floor + slope · B), may be above One
	score   Score                     // min(1, risen)
	sources Sources
}

func (p *Profile) combine(role Role, s sums, f finding) parts {
	weights := p.weights(role)
	r := parts{total: new(big.Int)}
	var source [activity.Groups]Score
	for g := range activity.Groups {
		r.sums[g] = s[g]
		capped := r.sums[g]
		if capped.Cmp(full) > 0 {
			capped = full
		}
		source[g] = ratio(capped, full)
		r.factor[g] = new(big.Int).Mul(big.NewInt(int64(weights.of(g))), capped)
		r.total.Add(r.total, r.factor[g])
	}
	r.sources = Sources{
		Git:      source[activity.Code],
		IAM:      source[activity.Access],
		SIEM:     source[activity.Alerts],
		Training: source[activity.Learning],
	}
	den := new(big.Int).Mul(full, whole)
	r.plain = ratio(r.total, den)
	risen := new(big.Int).Mul(r.total, big.NewInt(int64(f.multiplier)))
	if f.floor > 0 {
		floor := new(big.Int).Mul(den, big.NewInt(int64(f.floor)))
		floor.Add(floor, new(big.Int).Mul(r.total, big.NewInt(int64(p.Patterns.Slope))))
		if floor.Cmp(risen) > 0 {
			risen = floor
		}
	}
	r.risen = ratio(risen, den.Mul(den, whole))
	r.score = min(One, r.risen)
	return r
}

// finding is what the patterns say of a person.
type finding struct {
	multiplier Micro  // the largest that holds, else 1
	floor      Micro  // the highest that holds, else 0
	name       string // of the pattern with that floor or, where none has one, with that multiplier; "" if none holds
	events     []*activity.Event
}

// pattern looks for every pattern of the profile in the window.
func (p *Profile) pattern(h *history) finding {
	begin := h.at.Add(-time.Duration(p.Window))
	var commits, weekend, siem []*activity.Event
	var iam, pushes, tickets, nights, exports, window []*activity.Event
	for _, e := range h.events {
		if !e.At.After(begin) {
			continue
		}
		if len(p.Patterns.Chains) > 0 {
			window = append(window, e)
		}
		switch e.Source {
		case activity.IAM:
			if p.Patterns.Compromised.IAMCounts == "all" || p.Severities[e.Verb] > 0 {
				iam = append(iam, e)
			}
		case activity.SIEM:
			siem = append(siem, e)
		}
		switch e.Verb {
		case activity.Commit:
			commits = append(commits, e)
			if d := e.At.Weekday(); d == time.Saturday || d == time.Sunday {
				weekend = append(weekend, e)
			}
		case activity.ForcePush:
			pushes = append(pushes, e)
		case activity.OverdueSecurityTicket:
			tickets = append(tickets, e)
		case activity.OffHoursAccess:
			nights = append(nights, e)
		case activity.DataExport:
			if e.Bytes >= p.Patterns.Insider.ExportBytes {
				exports = append(exports, e)
			}
		}
	}
	best := finding{multiplier: 1e6}
	hold := func(name string, m, floor Micro, events ...[]*activity.Event) {
		if floor > best.floor || best.floor == 0 && m > best.multiplier {
			best.name, best.events = name, slices.Concat(events...)
		}
		best.multiplier, best.floor = max(best.multiplier, m), max(best.floor, floor)
	}
	if c := p.Patterns.Compromised; len(commits) == 0 && len(iam) > c.IAMOver && len(siem) > c.SIEMOver {
		hold("compromised", c.Multiplier, c.Floor, iam, siem)
	}
	unapproved := slices.DeleteFunc(exports, func(e *activity.Event) bool { return h.approved(e, time.Duration(p.Patterns.Insider.Approval)) })
	if i := p.Patterns.Insider; len(nights) > 0 && len(unapproved) > 0 {
		hold("insider", i.Multiplier, i.Floor, nights, unapproved)
	}
	if b := p.Patterns.Burnout; len(pushes) > b.ForcePushesOver && len(tickets) > b.OverdueTicketsOver && len(weekend) > 0 {
		hold("burnout", b.Multiplier, b.Floor, pushes, tickets, weekend)
	}
	if len(p.Patterns.Chains) > 0 {
		inOrder(window)
	}
	for _, c := range p.Patterns.Chains {
		if c.Floor > best.floor {
			if found := c.find(window, h.events); found != nil {
				hold(c.Name, 1e6, c.Floor, found)
			}
		}
	}
	return best
}

// approved says whether an export of the resource was approved in [export − span, export), in the window or not.
func (h *history) approved(export *activity.Event, span time.Duration) bool {
	begin := export.At.Add(-span)
	return slices.ContainsFunc(h.events, func(e *activity.Event) bool {
		return e.Verb == activity.ExportApproved && e.Resource == export.Resource && !e.At.Before(begin) && e.At.Before(export.At)
	})
}

// Score is a person's score at τ from the person's events, in any order, duplicates allowed.
func (p *Profile) Score(role Role, events []activity.Event, at time.Time) Score {
	h := p.read(events, at)
	return p.combine(role, p.sums(h), p.pattern(h)).score
}

// Trend is the score at each of the times.
func (p *Profile) Trend(role Role, events []activity.Event, times []time.Time) []Point {
	points := make([]Point, len(times))
	for i, t := range times {
		points[i] = Point{At: t, Score: p.Score(role, events, t)}
	}
	return points
}

// Due is when the next training of a person at this level is, and who is told at τ that it has not been done: by the
// level's frequency, after the last pass, else after the first event, else after τ; but counted from the day on which
// the level was reached, if that is later, since nobody is late for what was not asked of them. Events are the
// person's, in any order, duplicates allowed. Known are the person's scores at the last midnights (UTC) up to τ, oldest
// first, if the caller has them: they are not computed again.
func (p *Profile) Due(
	role Role,
	events []activity.Event,
	level Level,
	at time.Time,
	known ...Point,
) (time.Time, Escalation) {
	var pass time.Time
	first := at
	for i := range events {
		switch e := &events[i]; {
		case e.At.After(at):
		case e.Verb == activity.TrainingPassed && e.At.After(pass):
			pass = e.At
		case e.At.Before(first):
			first = e.At
		}
	}
	if pass.IsZero() {
		pass = first
	}
	f := level.Frequency()
	due := p.reached(role, events, level, pass, at, known).Add(time.Duration(f.Days()) * 24 * time.Hour)
	return due, f.Escalate(due, at)
}

// reached is the end of the day, by UTC, on which a person came to the level that they have at τ, as far back as begin.
// Known is as for Due.
func (p *Profile) reached(
	role Role,
	events []activity.Event,
	level Level,
	begin, at time.Time,
	known []Point,
) time.Time {
	const day = 24 * time.Hour
	if level == Low {
		return begin
	}
	first := begin.UTC().Truncate(day).Add(day)
	end := at
	for _, point := range slices.Backward(known) {
		if point.At.Before(first) {
			return begin
		}
		if p.Level(point.Score).Rank() < level.Rank() {
			return point.At.Add(day)
		}
		end = point.At.Add(-day)
	}
	var midnights []time.Time
	for midnight := first; !midnight.After(end); midnight = midnight.Add(day) {
		midnights = append(midnights, midnight)
	}
	if len(midnights) == 0 {
		return begin
	}
	seen := distinct(events, end)
	past := make([]activity.Event, len(seen))
	for i, e := range seen {
		past[i] = *e
	}
	for i, score := range slices.Backward(p.Scores(role, past, midnights)) {
		if p.Level(score).Rank() < level.Rank() {
			return midnights[i].Add(day)
		}
	}
	return begin
}

// Assess scores a person and explains the score. Events are the person's, in any order; Position and Trend stay empty.
func (p *Profile) Assess(person string, role Role, events []activity.Event, at time.Time) Assessment {
	h := p.read(events, at)
	f := p.pattern(h)
	r := p.combine(role, p.sums(h), f)
	a := Assessment{
		Person: person, Role: role, At: at, Profile: p.Name, Version: p.Version,
		Score: r.score, Level: p.Level(r.score), Sources: r.sources, Multiplier: f.multiplier, Floor: f.floor, Pattern: f.name,
		Contributions: h.split(r, f), Lower: p.lower(h, role, f, r.score), Trend: []Point{},
	}
	a.Reasons = reasons(a.Contributions, h)
	a.Frequency = a.Level.Frequency()
	a.Due, a.Escalation = p.Due(role, events, a.Level, at)
	return a
}

// split divides a score among its events in proportion to x_e = w_s · R_s · α_e N_e / Σ_s, in whole millionths; what
// rounding leaves goes to the largest fractions, ties by event id. A pattern's and the cap's part are lines of their
// own; the pattern's part is 0 where the events alone come to more than its floor.
func (h *history) split(r parts, f finding) []Contribution {
	type share struct {
		w        weighed
		part     int64
		fraction uint64
	}
	events := r.plain.Micro()
	shares := make([]share, 0, len(h.weighed))
	left := events
	var den, num [activity.Groups]*big.Int // part = num_s · t_e / den_s
	for g := range activity.Groups {
		den[g] = new(big.Int).Mul(r.sums[g], r.total)
		num[g] = new(big.Int).Mul(r.factor[g], big.NewInt(events))
	}
	var t, q, m big.Int
	for _, w := range h.weighed {
		n := w.term()
		if n == 0 || den[w.group].Sign() == 0 {
			continue
		}
		var own sum
		own.add(w.alpha, w.n)
		t.Lsh(own.big(), 2)
		t.Rsh(&t, uint(min(w.lessons, 2)))
		t.Mul(&t, num[w.group])
		q.QuoRem(&t, den[w.group], &m)
		m.Lsh(&m, 64).Quo(&m, den[w.group])
		shares = append(shares, share{w, q.Int64(), m.Uint64()})
		left -= q.Int64()
	}
	slices.SortFunc(shares, func(a, b share) int {
		return cmp.Or(cmp.Compare(b.fraction, a.fraction), cmp.Compare(a.w.event.ID, b.w.event.ID))
	})
	for i := range shares {
		if int64(i) < left {
			shares[i].part++
		}
	}
	lines := make([]Contribution, 0, len(shares)+2)
	for _, s := range shares {
		if s.part == 0 {
			continue
		}
		e := s.w.event
		lines = append(lines, Contribution{Line: EventLine, Event: e.ID, Verb: e.Verb, At: e.At, Detail: e.Detail, Part: s.part})
	}
	slices.SortFunc(lines, func(a, b Contribution) int {
		return cmp.Or(cmp.Compare(b.Part, a.Part), cmp.Compare(a.Event, b.Event))
	})
	if f.name != "" { // with part 0, too: what happened is told even when the events alone come to more
		made := make([]Evidence, 0, len(f.events))
		for _, e := range inOrder(f.events) {
			made = append(made, Evidence{Event: e.ID, Verb: e.Verb, At: e.At, Detail: e.Detail})
		}
		lines = append(lines, Contribution{Line: PatternLine, Detail: f.name, Part: r.risen.Micro() - events, Events: made})
	}
	if part := r.score.Micro() - r.risen.Micro(); part != 0 {
		lines = append(lines, Contribution{Line: CapLine, Detail: "a score ends at 1", Part: part})
	}
	return lines
}

// reasons groups the events' lines by verb.
func reasons(lines []Contribution, h *history) []Reason {
	byVerb := map[activity.Verb]*Reason{}
	for _, w := range h.weighed {
		if w.term() == 0 {
			continue
		}
		r := byVerb[w.event.Verb]
		if r == nil {
			r = &Reason{Verb: w.event.Verb}
			byVerb[w.event.Verb] = r
		}
		r.Count++
		if newer := w.event.At.Compare(r.Last); newer > 0 || newer == 0 && w.event.Detail < r.Detail {
			r.Last, r.Detail = w.event.At, w.event.Detail
		}
	}
	for _, l := range lines {
		if r := byVerb[l.Verb]; r != nil {
			r.Part += l.Part
		}
	}
	list := make([]Reason, 0, len(byVerb))
	for _, r := range byVerb {
		r.Words = Words(r.Verb, r.Count)
		if r.Part > 0 {
			list = append(list, *r)
		}
	}
	slices.SortFunc(list, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Part, a.Part), cmp.Compare(a.Verb, b.Verb))
	})
	return list
}

// lower lists what the person can do now: modules to pass and tickets to close, each with the score it would give.
// Lessons and closings never act on patterns, so what was found stays.
func (p *Profile) lower(h *history, role Role, f finding, now Score) []LowerAct {
	list := []LowerAct{}
	add := func(a LowerAct, s sums) {
		if a.After = p.combine(role, s, f).score; a.After < now {
			list = append(list, a)
		}
	}
	candidates := slices.Clone(Modules)
	tickets := map[string]bool{}
	for _, w := range h.weighed {
		e := w.event
		switch {
		case w.n == 0:
		case e.Verb == activity.OverdueModule:
			if !slices.ContainsFunc(candidates, func(m Module) bool { return m.ID == e.Module }) {
				candidates = append(candidates, Module{ID: e.Module, Title: e.Module})
			}
		case e.Verb == activity.OverdueSecurityTicket && !tickets[e.Ticket]:
			tickets[e.Ticket] = true
			add(LowerAct{Act: CloseTicket, ID: e.Ticket, Title: "Close " + e.Ticket}, p.afterClosing(h, e.Ticket))
		}
	}
	for _, m := range candidates {
		add(LowerAct{Act: PassModule, ID: m.ID, Title: m.Title, Teaches: m.Teaches}, p.afterPass(h, m.ID, m.Teaches))
	}
	slices.SortFunc(list, func(a, b LowerAct) int {
		return cmp.Or(cmp.Compare(a.After, b.After), cmp.Compare(a.Act, b.Act), cmp.Compare(a.ID, b.ID))
	})
	return list
}
