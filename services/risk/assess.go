package risk

import (
	"cmp"
	"math/big"
	"slices"
	"time"

	"example.org/security-training/services/activity"
)

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

// Due is when the next training of a person at this level is due, and who is told at τ that it has not been done.
//
// The level's frequency is counted from the last pass, else from the first event, else from τ; or from the day on
// which the person reached the level, if that is later. Events are the person's, in any order, duplicates allowed.
// known are the person's scores at the last UTC midnights up to τ, oldest first, if the caller has them: they are not
// computed again.
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

// reached is the end of the UTC day on which a person reached the level that they have at τ; it is not before begin.
// known is as for Due.
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

// Assess scores a person and explains the score. Events are the person's, in any order, duplicates allowed. Position,
// Trend and Missing are the caller's to set.
func (p *Profile) Assess(person string, role Role, events []activity.Event, at time.Time) Assessment {
	h := p.read(events, at)
	f := p.pattern(h)
	r := p.combine(role, p.sums(h), f)
	a := Assessment{
		Person: person, Role: role, At: at, Profile: p.Name, Version: p.Version,
		Score: r.score, Level: p.Level(r.score), Sources: r.sources,
		Multiplier: f.multiplier, Floor: f.floor, Pattern: f.name,
		Contributions: h.split(r, f), Lower: p.lower(h, role, f, r.score), Trend: []Point{},
	}
	a.Reasons = reasons(a.Contributions, h)
	a.Frequency = a.Level.Frequency()
	a.Due, a.Escalation = p.Due(role, events, a.Level, at)
	return a
}

// split divides a score among its lines, the events' first. The pattern's and the cap's parts have lines of their own;
// the pattern's part is 0 where the events alone come to more than its floor.
func (h *history) split(r parts, f finding) []Contribution {
	events := r.plain.Micro()
	lines := h.shares(r, events)
	if f.name != "" { // also with part 0: the pattern is shown even when the events alone come to more
		evidence := make([]Evidence, 0, len(f.events))
		for _, e := range sortByTime(f.events) {
			evidence = append(evidence, Evidence{Event: e.ID, Verb: e.Verb, At: e.At, Detail: e.Detail})
		}
		lines = append(lines, Contribution{
			Line: PatternLine, Detail: f.name, Part: r.raised.Micro() - events, Events: evidence,
		})
	}
	if part := r.score.Micro() - r.raised.Micro(); part != 0 {
		lines = append(lines, Contribution{Line: CapLine, Detail: "a score ends at 1", Part: part})
	}
	return lines
}

// shares divides total, in whole millionths, among the events in proportion to x_e = w_s · R_s · α_e N_e / Σ_s, the
// largest first, without those of part 0. The remainder of the rounding goes to the largest fractions, ties by event
// id.
func (h *history) shares(r parts, total int64) []Contribution {
	type share struct {
		w        weightedEvent
		part     int64
		fraction uint64
	}
	shares := make([]share, 0, len(h.weighted)+2)
	left := total
	var den, num [activity.Groups]*big.Int // part = num_s · t_e / den_s
	for g := range activity.Groups {
		den[g] = new(big.Int).Mul(r.sums[g], r.total)
		num[g] = new(big.Int).Mul(r.factor[g], big.NewInt(total))
	}
	var t, q, m big.Int
	for _, w := range h.weighted {
		n := w.term()
		if n == 0 || den[w.group].Sign() == 0 {
			continue
		}
		var own uint128
		own.addProduct(w.alpha, w.n)
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
	lines := make([]Contribution, 0, len(shares)+2)
	for i, s := range shares {
		if int64(i) < left {
			s.part++
		}
		if s.part == 0 {
			continue
		}
		e := s.w.event
		lines = append(lines, Contribution{
			Line: EventLine, Event: e.ID, Verb: e.Verb, At: e.At, Detail: e.Detail, Part: s.part,
		})
	}
	slices.SortFunc(lines, func(a, b Contribution) int {
		return cmp.Or(cmp.Compare(b.Part, a.Part), cmp.Compare(a.Event, b.Event))
	})
	return lines
}

// reasons groups the events' lines by verb.
func reasons(lines []Contribution, h *history) []Reason {
	byVerb := map[activity.Verb]*Reason{}
	for _, w := range h.weighted {
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

// lower lists what the person can do now, modules to pass and tickets to close, each with the score after it. Passes
// and closings do not act on patterns, so the finding stays.
func (p *Profile) lower(h *history, role Role, f finding, now Score) []LowerAct {
	list := []LowerAct{}
	add := func(a LowerAct, s sums) {
		if a.After = p.combine(role, s, f).score; a.After < now {
			list = append(list, a)
		}
	}
	candidates := slices.Clone(Modules)
	tickets := map[string]bool{}
	for _, w := range h.weighted {
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
