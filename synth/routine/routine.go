package routine

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/synth/people"
)

// Month is all acts of the staff in the days before risk.Epoch, (Epoch − days, Epoch], by time and id. The standard
// month has 30 days. Add people.Contractors to staff for acts of unknown accounts.
func Month(staff []people.Person, days int) []Act {
	from := risk.Epoch.Add(-time.Duration(days) * 24 * time.Hour)
	return gather(staff, func(p people.Person) []Act {
		l := live(p)
		acts := append(slices.Clone(l.told), l.training()...)
		for d := -days - 1; d <= 1; d++ {
			acts = append(acts, l.day(d)...)
		}
		return slices.DeleteFunc(acts, func(a Act) bool { return !a.At.After(from) || a.At.After(risk.Epoch) })
	})
}

// Day is all acts of the staff on one day after history: acts of (Epoch + day·24 h, Epoch + (day+1)·24 h], by time
// and id; days begin at the Epoch's hour. Month and the days 0, 1, 2 … together have every act once.
func Day(staff []people.Person, day int) []Act {
	from := risk.Epoch.Add(time.Duration(day) * 24 * time.Hour)
	to := from.Add(24 * time.Hour)
	return gather(staff, func(p people.Person) []Act {
		l := live(p)
		acts := append(slices.Clone(l.told), l.training()...)
		for d := day - 1; d <= day+2; d++ {
			acts = append(acts, l.day(d)...)
		}
		return slices.DeleteFunc(acts, func(a Act) bool { return !a.At.After(from) || a.At.After(to) })
	})
}

// gather generates the people concurrently and sorts the acts, so that the result does not depend on GOMAXPROCS.
func gather(staff []people.Person, life func(people.Person) []Act) []Act {
	lives := make([][]Act, len(staff))
	workers := runtime.GOMAXPROCS(0) // read once, since the runtime may change it
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(staff); i += workers {
				lives[i] = life(staff[i])
			}
		})
	}
	wg.Wait()
	acts := slices.Concat(lives...)
	sortActs(acts)
	return acts
}

// sortActs sorts by time and id.
func sortActs(acts []Act) {
	slices.SortFunc(acts, func(a, b Act) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
}

// liver generates one person's acts. Days are counted from the Epoch's date, in the person's time zone.
type liver struct {
	p         people.Person
	zone      *time.Location
	midnight  time.Time // of day 0, local
	joined    time.Time
	left      time.Time
	told      []Act // the storyline
	slipRates [3]float64
	number    int
}

func live(p people.Person) *liver {
	zone := p.Location()
	y, m, d := risk.Epoch.In(zone).Date()
	l := &liver{p: p, zone: zone, midnight: time.Date(y, m, d, 0, 0, 0, 0, zone)}
	l.joined, _ = time.Parse(time.DateOnly, p.Joined) // always valid
	l.left = l.midnight.AddDate(100, 0, 0)
	if p.Left != "" {
		l.left, _ = time.Parse(time.DateOnly, p.Left)
	}
	l.told = l.story()
	l.slipRates = l.rates()
	return l
}

// clock is a time of a day, hours after local midnight.
func (l *liver) clock(day int, after time.Duration) time.Time {
	y, m, d := l.midnight.AddDate(0, 0, day).Date()
	return time.Date(y, m, d, 0, 0, int(after/time.Second), 0, l.zone)
}

// act creates an act. Its id is made of purpose and number, which are unique for a person.
func (l *liver) act(verb activity.Verb, at time.Time, purpose string, number ...int) Act {
	h := sha256.Sum256(fmt.Appendf(nil, "%d/%s/%s/%s/%d", l.p.Seed, l.p.ID, verb, purpose, number))
	return Act{ID: fmt.Sprintf("%x", h[:12]), At: at, Person: l.p.ID, Source: verb.Source(), Verb: verb}
}

// company holidays, in addition to weekends.
var holidays = map[string]bool{"10-03": true, "11-01": true, "12-24": true, "12-25": true, "12-26": true, "12-31": true,
	"01-01": true, "01-06": true, "05-01": true}

// workload is the work of a day in relation to an ordinary day: for most people nothing on a weekend, three times as
// much in the third week of each 30 days, before the deadline, and 0.8 in the fourth.
func (l *liver) workload(day int) float64 {
	at := l.clock(day, 12*time.Hour)
	if at.Before(l.joined) || !at.Before(l.left) || day >= l.p.Habits.Away[0] && day <= l.p.Habits.Away[1] {
		return 0
	}
	f := 1.0
	if d := at.Weekday(); d == time.Saturday || d == time.Sunday || holidays[at.Format("01-02")] {
		f = l.p.Habits.Weekends
	}
	return f * deadline(day)
}

func deadline(day int) float64 {
	switch phase := ((day+30)%30 + 30) % 30; {
	case phase >= 14 && phase < 21:
		return 3
	case phase >= 21 && phase < 28:
		return .8
	}
	return 1
}

// slipping is the amount of slips on a day: in proportion to the workload, and changing slowly as habits drift.
func (l *liver) slipping(day int) float64 {
	return l.workload(day) * math.Max(.2, 1+l.p.Habits.Drift*float64(day+15)/30)
}

// fade is the remaining effect of a slip after some days: half of it after a week. people.Slips describe the effect
// that remains at the end of the standard month.
func fade(days float64) float64 { return math.Exp2(-math.Max(0, days) / 7) }

// rates is the severity of slips for each unit of slipping, for git, iam and siem, without that of the storyline.
func (l *liver) rates() [3]float64 {
	felt := 0.0
	for d := -30; d < 0; d++ {
		felt += l.slipping(d) * fade(-float64(d)-.1)
	}
	var told [3]float64
	for _, a := range l.told {
		if i := slices.Index(slipSources, a.Source); i >= 0 {
			told[i] += severity[a.Verb] * fade(risk.Epoch.Sub(a.At).Hours()/24)
		}
	}
	s := l.p.Habits.Slips
	var r [3]float64
	for i, want := range []float64{s.Git, s.IAM, s.SIEM} {
		if felt > .1 {
			r[i] = math.Max(0, want-told[i]) / felt
		}
	}
	return r
}

var slipSources = []activity.Source{activity.Git, activity.IAM, activity.SIEM}

// severity is the severity of a slip in the published table.
var severity = func() map[activity.Verb]float64 {
	m := map[activity.Verb]float64{}
	for v, a := range risk.MustProfile("classic-v1").Severities {
		m[v] = a.Float()
	}
	return m
}()

// slip is a kind of careless act, with its frequency.
type slip struct {
	verb   activity.Verb
	common float64
}

var slips = [3][]slip{
	{{activity.SecretCommitted, 1}, {activity.VulnerableDependency, 2}, {activity.ForcePush, 1.5},
		{activity.UnreviewedCommit, 4}, {activity.LargeFile, 2}},
	{{activity.PrivilegeEscalation, 1}, {activity.ServiceAccountKey, 1.5}, {activity.OffHoursAccess, 3},
		{activity.CrossAccountAccess, 2}, {activity.UnusedPermission, 3}},
	{{activity.MalwareDetected, .5}, {activity.DataExfiltration, .7}, {activity.PhishingClick, 2},
		{activity.FailedAuthentication, 4}, {activity.PolicyViolation, 4}},
}

// slipsOn is a person's slips of one source on a day. Within a block of 30 days, they are spread by the work done, so a
// careless person slips steadily, and more before a deadline.
func (l *liver) slipsOn(day, source int) []Act {
	rate := l.slipRates[source]
	if rate == 0 {
		return nil
	}
	block := int(math.Floor(float64(day+30) / 30))
	name := string(slipSources[source])
	r := l.p.Stream(name+" slips", block)
	kinds := slices.Clone(slips[source])
	taste := l.p.Stream(name+" taste", 0)
	total := 0.0
	for i := range kinds {
		kinds[i].common *= .4 + 1.2*taste.Float64()
		total += kinds[i].common
	}
	before := 0.0
	for d := block*30 - 30; d < day; d++ {
		before += l.slipping(d) * rate
	}
	now := before + l.slipping(day)*rate
	var acts []Act
	used := 0.0
	for k := 0; ; k++ {
		u, kind := r.Float64(), pick(kinds, r.Float64()*total)
		hour := r.Float64()
		when := used + u*severity[kind]
		used += severity[kind]
		if used-severity[kind] >= now {
			return acts
		}
		if when < before || when >= now {
			continue
		}
		acts = append(acts, l.dress(l.act(kind, l.hour(kind, day, hour), "slip", block, k), l.p.Stream(name+" looks",
			block*10_000+k)))
	}
}

func pick(kinds []slip, x float64) activity.Verb {
	for _, k := range kinds {
		if x -= k.common; x < 0 {
			return k.verb
		}
	}
	return kinds[len(kinds)-1].verb
}

// hour is the time of an act on a day: in working hours, or late in the evening for off-hours access.
func (l *liver) hour(verb activity.Verb, day int, u float64) time.Time {
	h := l.p.Habits
	if verb == activity.OffHoursAccess {
		return l.clock(day, 21*time.Hour+time.Duration(u*2.5*float64(time.Hour)))
	}
	return l.clock(day, h.Start+time.Duration(u*float64(h.Length)))
}

// day generates a day of a person's work with its slips.
func (l *liver) day(day int) []Act {
	var acts []Act
	for s := range slips {
		acts = append(acts, l.slipsOn(day, s)...)
	}
	f := l.workload(day)
	if f == 0 {
		return acts
	}
	h := l.p.Habits
	for _, kind := range []struct {
		verb activity.Verb
		rate float64
	}{
		{activity.Commit, h.Commits}, {activity.ReviewSubmitted, h.Reviews}, {activity.SignIn, h.SignIns},
		{activity.TicketUpdated, h.Tickets}, {activity.DataExport, h.Exports}, {activity.PhishingReported, .02},
	} {
		if kind.rate == 0 {
			continue
		}
		r := l.p.Stream(string(kind.verb), day)
		n := int(kind.rate*f + r.Float64())
		for k := range n {
			at := l.hour(kind.verb, day, r.Float64())
			if kind.verb == activity.SignIn && k == 0 {
				at = l.hour(kind.verb, day, .02*r.Float64())
			}
			acts = append(acts, l.dress(l.act(kind.verb, at, "day", day, k), r))
		}
	}
	return acts
}

// Began is the beginning of a person's storyline, the first deed after its preparations; zero without a storyline.
func Began(p people.Person) time.Time {
	if _, ok := people.Tales[p.Story]; !ok {
		return time.Time{}
	}
	return live(p).start(p.Stream("story", 0))
}

// start is a time in the first half of a working day.
func (l *liver) start(r *rand.Rand) time.Time {
	began := people.Tales[l.p.Story].Began
	day := -int(began[0] + (began[1]-began[0])*r.Float64())
	for !l.working(day) {
		day--
	}
	return l.clock(day, l.p.Habits.Start+time.Duration(r.Float64()*float64(l.p.Habits.Length)/2))
}

func (l *liver) working(day int) bool {
	at := l.clock(day, 12*time.Hour)
	d := at.Weekday()
	return d != time.Saturday && d != time.Sunday && !holidays[at.Format("01-02")]
}

// blind is the share of a storyline's deeds that no system reports.
const blind = .04

// story generates the deeds of a person's storyline.
func (l *liver) story() []Act {
	tale, ok := people.Tales[l.p.Story]
	if !ok {
		return nil
	}
	deeds := tale.Deeds
	if l.p.Near == people.NearMiss {
		deeds = tale.Near
	}
	r := l.p.Stream("story", 0)
	began := l.start(r)
	pace := .7 + .7*r.Float64()
	var acts []Act
	for i, d := range deeds {
		n := d.Count + r.IntN(d.More+1)
		if r.Float64() < d.Chance || d.Chance == 0 {
			for k := range n {
				unseen := r.Float64() < blind && d.Verb.Source() != activity.Jira
				after := time.Duration((d.After + float64(k)*d.Every) * pace * float64(time.Hour))
				a := l.dress(l.act(d.Verb, l.moment(d.Verb, began, after), "story", i, k), r)
				if d.Bytes > 0 {
					a.Bytes = d.Bytes + int64(r.IntN(1<<29))
				}
				switch d.Verb {
				case activity.DataExport, activity.ExportApproved:
					a.Resource = "s3://customer-exports"
					a.Detail = "export of " + a.Resource
				}
				if !unseen {
					acts = append(acts, a)
				}
			}
		}
	}
	return acts
}

// moment is the time of a deed: off-hours access happens in the night after its due time, deeds after days happen in
// working hours, and others at their due time.
func (l *liver) moment(verb activity.Verb, began time.Time, after time.Duration) time.Time {
	at := began.Add(after).In(l.zone)
	day := int(math.Round(time.Date(at.Year(), at.Month(), at.Day(), 12, 0, 0, 0,
		time.UTC).Sub(time.Date(l.midnight.Year(), l.midnight.Month(), l.midnight.Day(), 12, 0, 0, 0,
		time.UTC)).Hours() / 24))
	u := float64(at.Hour()*3600+at.Minute()*60+at.Second()) / 86400
	switch {
	case verb == activity.OffHoursAccess && at.Hour() >= 7 && at.Hour() < 20:
		return l.hour(verb, min(day, -1), u)
	case verb == activity.OffHoursAccess || after >= 0 && after < 12*time.Hour:
		return at.Truncate(time.Second)
	}
	for !l.working(day) && after > 0 {
		day++
	}
	for day = min(day, -1); !l.working(day); day-- {
	}
	return l.hour(verb, day, u)
}

// training generates what was not done: notices of the learning system, and overdue security tickets. Careful people
// passed a module early in the month, and closed an overdue ticket.
func (l *liver) training() []Act {
	r := l.p.Stream("training", 0)
	left := l.p.Habits.Slips.Training
	if left == 0 {
		return nil
	}
	var acts []Act
	n := 0
	add := func(verb activity.Verb, day int, hour float64) *Act {
		n++
		a := l.act(verb, l.hour(verb, day, hour), "training", n)
		acts = append(acts, a)
		return &acts[len(acts)-1]
	}
	for _, a := range l.told {
		if a.Verb == activity.OverdueSecurityTicket {
			left -= severity[a.Verb]
		}
	}
	stale := left >= .3 && r.Float64() < .6
	if stale {
		add(activity.TrainingStale, -4-r.IntN(22), r.Float64()).Detail = "no training for more than 180 days"
		left -= severity[activity.TrainingStale]
	}
	modules := r.Perm(len(risk.Modules))
	for k := 0; left >= .2 && k < 3; k++ {
		m := risk.Modules[modules[k]]
		a := add(activity.OverdueModule, -3-r.IntN(24), r.Float64())
		a.Module, a.Detail = m.ID, "module overdue: "+m.Title
		left -= severity[activity.OverdueModule]
	}
	for k := 0; left >= .05 && k < 4; k++ {
		a := add(activity.OverdueSecurityTicket, -2-r.IntN(20), r.Float64())
		a.Ticket = l.ticket(100 + k)
		a.Detail = a.Ticket + " is past its date"
		left -= severity[activity.OverdueSecurityTicket]
	}
	if !stale && r.Float64() < .6 { // passed before the first slip of the month
		m := risk.Modules[modules[len(modules)-1]]
		a := add(activity.TrainingPassed, -29, .1)
		score := .8 + .2*math.Round(r.Float64()*10)/10
		a.Module, a.Teaches, a.Score, a.Detail = m.ID, m.Teaches, &score, "passed: "+m.Title
	}
	if r.Float64() < .3 {
		a := add(activity.OverdueSecurityTicket, -22-r.IntN(5), r.Float64())
		a.Ticket = l.ticket(200)
		a.Detail = a.Ticket + " is past its date"
		b := add(activity.SecurityTicketClosed, -12-r.IntN(6), r.Float64())
		b.Ticket = l.ticket(200)
		b.Detail = b.Ticket + " is done"
	}
	return acts
}

// ticket is the key of a security ticket of the person.
func (l *liver) ticket(k int) string { return fmt.Sprintf("SEC-%d", 1000+l.p.Index*300+k) }
