package lms

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

// riskView is a person's risk with everything that explains it.
type riskView struct {
	Person  risk.Standing
	Mine    bool   // whether the viewer is that person
	Away    string // why there is nothing to show, if so
	A       risk.Assessment
	Gauge   gauge
	Trend   *trendChart
	Sources []sourceRow
	Reasons []reasonRow
	Lower   []lowerRow
	First   *lowerRow // the module to begin with
	Pattern *patternRow
	Cap     int64 // millionths cut off because a score ends at 1; negative, or 0
	Due     due
	History []lessonRow
}

// sourceRow is one of the four groups: what it holds, how much of it is used, what it adds.
type sourceRow struct {
	Name, What, Class string
	Weight, Used      float64
	Part              int64 // millionths of the score, without pattern and cap
	Bar, Stack        share
}

type reasonRow struct {
	risk.Reason
	Source activity.Source
	Class  string
	Bar    share
	Events []eventRow
	More   int
	Module string // that teaches it
}

type eventRow struct {
	ID, Detail string
	At         time.Time
	Part       int64
}

type lowerRow struct {
	risk.LowerAct
	Drop   int64 // millionths
	Level  risk.Level
	Change bool   // of the level
	Open   string // id of the open lesson about it
}

// open notes which of the lessons is the open one about the act, if there is one.
func (l *lowerRow) open(lessons []lessonRow) {
	if l == nil {
		return
	}
	for _, h := range lessons {
		if h.Module == l.ID && (h.State == stateReady || h.State == stateWriting) {
			l.Open = h.ID
		}
	}
}

// Starts says whether the act is a module, which can be begun here.
func (l lowerRow) Starts() bool { return l.Act == risk.PassModule && l.known() }

func (l lowerRow) known() bool { _, ok := risk.ModuleByID(l.ID); return ok }

type patternRow struct {
	Name, Words string
	How         string // what it does to the score
	Part        int64
	Events      []string // ids of what it is made of
	Stack       share
}

// due is when the next training is due.
type due struct {
	At        time.Time
	Words     string
	Late      bool
	State     string // planned, due, overdue or escalated
	To        string // who is told when it is escalated
	Frequency risk.Frequency
	Level     risk.Level
}

// toldTo says in words who hears of a training that has not been done.
var toldTo = map[risk.Escalation]string{risk.ToManager: "the manager", risk.ToSecurity: "the manager and the security team"}

func dueOf(a risk.Assessment, loc *time.Location) due {
	d := due{At: a.Due.In(loc), Frequency: a.Frequency, Level: a.Level, To: toldTo[a.Escalation]}
	d.State = dueState(a.Due.Sub(a.At), a.Escalation)
	switch left := a.Due.Sub(a.At); {
	case left < 0:
		d.Late, d.Words = true, span(-left)+" overdue"
	case left < 24*time.Hour:
		d.Words = "within a day"
	default:
		d.Words = "in " + span(left)
	}
	return d
}

// dueOfStanding is dueOf from the list of people.
func dueOfStanding(s risk.Standing, loc *time.Location) due {
	return dueOf(risk.Assessment{At: s.At, Due: s.Due, Frequency: s.Frequency, Level: s.Level, Escalation: s.Escalation}, loc)
}

var groupWhat = [...]string{"commits, reviews, dependencies", "sign-ins, rights, keys", "malware, phishing, policy", "training and security tickets"}

// groupClass are the CSS classes of the four groups.
var groupClass = [...]string{"code", "access", "alerts", "learning"}

func groupOf(s activity.Source) int {
	switch s {
	case activity.Git:
		return 0
	case activity.IAM:
		return 1
	case activity.SIEM:
		return 2
	}
	return 3
}

// patternOf says in plain words what a pattern did to a score, and by which events.
func patternOf(a risk.Assessment, c risk.Contribution) *patternRow {
	row := &patternRow{Name: c.Detail, How: fmt.Sprintf("× %.1f", a.Multiplier.Float()), Part: c.Part, Events: c.Events}
	if a.Floor > 0 {
		row.How = fmt.Sprintf("at least %.2f", a.Floor.Float())
	}
	if p, err := risk.ProfileByName(a.Profile); err == nil {
		row.Words = p.PatternWords(c.Detail)
	}
	return row
}

const eventsShown = 6

// explain makes a view of an assessment.
func explain(p risk.Standing, a risk.Assessment) riskView {
	loc := location(p.Zone)
	profile := profileOf(a.Profile)
	levels := boundsOf(profile.Levels)
	weights, known := profile.Weights[a.Role]
	if !known {
		weights = profile.Otherwise
	}
	v := riskView{Person: p, A: a, Gauge: drawGauge(a.Score, a.Level, levels), Trend: drawTrend(a.Trend, levels, loc), Due: dueOf(a, loc)}

	used := [...]risk.Score{a.Sources.Git, a.Sources.IAM, a.Sources.SIEM, a.Sources.Training}
	share4 := [...]risk.Micro{weights.Git, weights.IAM, weights.SIEM, weights.Training}
	var parts [4]int64
	events := map[activity.Verb][]eventRow{}
	var pattern *patternRow
	for _, c := range a.Contributions {
		switch c.Line {
		case risk.EventLine:
			parts[groupOf(c.Verb.Source())] += c.Part
			events[c.Verb] = append(events[c.Verb], eventRow{ID: c.Event, Detail: c.Detail, At: c.At, Part: c.Part})
		case risk.PatternLine:
			pattern = patternOf(a, c)
		case risk.CapLine:
			v.Cap = c.Part
		}
	}
	at := 0.0
	for i := range parts {
		width := float64(parts[i]) / 1e6
		row := sourceRow{Name: groupNames[i], What: groupWhat[i], Class: groupClass[i], Weight: share4[i].Float(), Used: used[i].Float(), Part: parts[i], Bar: bar(used[i].Float(), groupClass[i])}
		row.Stack = share{X: fmt.Sprintf("%.1f", 1000*at), W: fmt.Sprintf("%.1f", max(0, 1000*width-2)), Class: groupClass[i]}
		at += width
		v.Sources = append(v.Sources, row)
	}
	if pattern != nil {
		pattern.Stack = share{X: fmt.Sprintf("%.1f", 1000*at), W: fmt.Sprintf("%.1f", max(0, 1000*min(1-at, float64(pattern.Part)/1e6))), Class: "pattern"}
		v.Pattern = pattern
	}
	var most int64 = 1
	for _, r := range a.Reasons {
		most = max(most, r.Part)
	}
	for _, r := range a.Reasons {
		g := groupOf(r.Verb.Source())
		row := reasonRow{Reason: r, Source: r.Verb.Source(), Class: groupClass[g], Bar: bar(float64(r.Part)/float64(most), groupClass[g])}
		row.Events = events[r.Verb]
		if len(row.Events) > eventsShown {
			row.More = len(row.Events) - eventsShown
			row.Events = row.Events[:eventsShown]
		}
		if m := risk.ModulesFor(r.Verb); len(m) > 0 {
			row.Module = m[0].Title
		}
		v.Reasons = append(v.Reasons, row)
	}
	for _, x := range a.Lower {
		row := lowerRow{LowerAct: x, Drop: x.After.Micro() - a.Score.Micro(), Level: levels.level(x.After)}
		row.Change = row.Level != a.Level
		v.Lower = append(v.Lower, row)
	}
	if i := slices.IndexFunc(v.Lower, lowerRow.Starts); i >= 0 {
		v.First = &v.Lower[i]
	} else if len(a.Reasons) > 0 {
		// So much has come together that no single lesson lowers the score; the first of several is worth it all the same.
		id := recommended(a)
		v.First = &lowerRow{LowerAct: risk.LowerAct{Act: risk.PassModule, ID: id, Title: moduleTitle(id), After: a.Score}, Level: a.Level}
	}
	return v
}

func (l *LMS) showHome(v *visit) error {
	if v.viewer.Instructor() {
		return v.to("/organisation")
	}
	return l.showRisk(v, v.viewer.Self, "/", "My risk")
}

// showRisk shows one person's risk to that person or an instructor. While the scorer is away it says so, and keeps the rest.
func (l *LMS) showRisk(v *visit, p *risk.Standing, at, title string) error {
	lessons, err := l.store.lessons(v.ctx(), personOf(v, p), 50)
	if err != nil {
		return err
	}
	model := riskView{}
	if p == nil {
		err = v.stale
	} else {
		model.Person = *p
		var a risk.Assessment
		if a, err = l.scorer.risk(v.ctx(), p.ID); err == nil {
			model = explain(*p, a)
		}
	}
	switch {
	case errors.Is(err, errUnknownPerson):
		return l.gone(v, "no_such_person")
	case err != nil:
		l.cfg.Log.Warn("show risk", "error", err.Error())
		v.status = 503
		v.w.Header().Set("Retry-After", "5")
		model.Away = "The risk scorer does not answer at the moment, so your score cannot be shown. What you have learnt is safe."
	}
	model.Mine = v.viewer.Learner()
	model.History = historyOf(lessons, location(model.Person.Zone))
	model.First.open(model.History)
	return l.render(v, "risk", title, at, model)
}

func personOf(v *visit, p *risk.Standing) string {
	if p != nil {
		return p.ID
	}
	return v.viewer.Person
}

// showPerson shows anybody to an instructor, and everybody their own page.
func (l *LMS) showPerson(v *visit) error {
	id := v.r.PathValue("person")
	if !v.viewer.Instructor() {
		if id == v.viewer.Person {
			return v.to("/")
		}
		l.refused(v, v.viewer.Person, "not_own")
		return notAllowed()
	}
	people, err := l.scorer.people()
	if err != nil && !errors.As(err, &v.stale) {
		return away(err)
	}
	i := slices.IndexFunc(people, func(s risk.Standing) bool { return s.ID == id })
	if i < 0 {
		return notFound()
	}
	if err := l.store.record(v.ctx(), note("view", id, "", struct {
		By string `json:"by"`
	}{roleInstructor})); err != nil {
		return err
	}
	return l.showRisk(v, &people[i], "/people", people[i].Name)
}
