package lms

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// riskView is a person's risk with everything that explains it.
type riskView struct {
	Person  risk.Standing
	Mine    bool   // whether the viewer is that person
	Away    string // why there is nothing to show, if so
	A       risk.Assessment
	Gauge   chart.Gauge
	Trend   *chart.TrendChart
	Sources []sourceRow
	Reasons []reasonRow
	Lower   []lowerRow
	First   *lowerRow // the module to begin with
	Pattern *patternRow
	Cap     int64 // millionths cut off because a score ends at 1; negative, or 0
	Due     due
	History []lessonRow
	Weighs  string // how what happened loses its weight, in the profile that made the score
	Base    string // of the addresses of the reasons' own pages
}

// sourceRow is one of the four groups: what it holds, how much of it is used, what it adds.
type sourceRow struct {
	Name, What, Class string
	Weight, Used      float64
	Part              int64 // millionths of the score, without pattern and cap
	Bar, Stack        chart.Share
}

type reasonRow struct {
	risk.Reason
	Source activity.Source
	Class  string
	Bar    chart.Share
	Lasts  string // until when it weighs in full, where it is a state
	Events []eventRow
	All    int    // events that add something; Events are the first of them
	Light  int    // events that count still, and add less than a millionth each
	Module string // that teaches it
}

type eventRow struct {
	ID, Detail string
	Words      string // what it was, where the row does not stand below what it was
	At         time.Time
	Part       int64
}

// textOfPage is how many bytes of ids and details of events a page holds: packed, it stays well below 100 KB whatever they say.
const textOfPage = 48 << 10

func textOf(rows []eventRow) int {
	n := 0
	for _, r := range rows {
		n += len(r.ID) + len(r.Detail)
	}
	return n
}

// fitting are the first of rows whose text fits into so many bytes, one at least.
func fitting(rows []eventRow, text int) []eventRow {
	for i := range rows {
		if text -= textOf(rows[i : i+1]); text < 0 && i > 0 {
			return rows[:i]
		}
	}
	return rows
}

// lasting says of each state until when it weighs in full.
var lasting = map[activity.Verb]string{
	activity.TrainingStale:         "It weighs in full until a training is passed.",
	activity.OverdueModule:         "It weighs in full until the module is passed.",
	activity.OverdueSecurityTicket: "It weighs in full until the ticket is closed.",
}

// weighs says how what happened loses its weight.
func weighs(p *risk.Profile) string {
	text := fmt.Sprintf(
		"What happened weighs in full for %s, and nothing after that.",
		words.Span(time.Duration(p.Window)),
	)
	if p.HalfLife > 0 {
		text = fmt.Sprintf("What happened weighs half as much %s later.", words.Span(time.Duration(p.HalfLife)))
	}
	return text + " What lasts, such as an overdue ticket, weighs in full until it ends."
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
	Events      []eventRow // what it is made of, in order of time
	All         int        // how many those are; Events are the first of them
	Stack       chart.Share
}

// due is when the next training is due.
type due struct {
	At        time.Time
	Words     string
	Late      bool
	State     string // planned, due, overdue or escalated
	To        string // to whom it is escalated
	Frequency risk.Frequency
	Level     risk.Level
}

// escalatedTo says in words to whom a training is escalated, of somebody with this manager. An escalation is what pages say of a
// training; nobody is sent anything.
func escalatedTo(e risk.Escalation, manager string) string {
	switch {
	case e == risk.ToManager && manager == "":
		return "nobody, since there is no manager"
	case e == risk.ToManager:
		return "the manager"
	case e == risk.ToSecurity && manager == "":
		return "the security team, since there is no manager"
	case e == risk.ToSecurity:
		return "the manager and the security team"
	}
	return ""
}

// dueOf is when the training of somebody with this manager is due; the manager is empty where there is none.
func dueOf(a risk.Assessment, manager string, loc *time.Location) due {
	d := due{At: a.Due.In(loc), Frequency: a.Frequency, Level: a.Level, To: escalatedTo(a.Escalation, manager)}
	d.State = dueState(a.Due.Sub(a.At), a.Escalation)
	switch left := a.Due.Sub(a.At); {
	case left < 0:
		d.Late, d.Words = true, words.Span(-left)+" overdue"
	case left < 24*time.Hour:
		d.Words = "within a day"
	default:
		d.Words = "in " + words.Span(left)
	}
	return d
}

// dueOfStanding is dueOf from the list of people.
func dueOfStanding(s risk.Standing, loc *time.Location) due {
	return dueOf(risk.Assessment{At: s.At, Due: s.Due, Frequency: s.Frequency, Level: s.Level, Escalation: s.Escalation}, s.Manager, loc)
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
	row := &patternRow{Name: c.Detail, How: fmt.Sprintf("× %.1f", a.Multiplier.Float()), Part: c.Part, All: len(c.Events)}
	parts := map[string]int64{}
	for _, e := range a.Contributions {
		parts[e.Event] = e.Part
	}
	for _, e := range c.Events {
		row.Events = append(
			row.Events,
			eventRow{
				ID:     e.Event,
				Words:  words.Sentence(risk.Words(e.Verb, 1)),
				Detail: e.Detail,
				At:     e.At,
				Part:   parts[e.Event],
			},
		)
	}
	if a.Floor > 0 {
		row.How = fmt.Sprintf("at least %.2f", a.Floor.Float())
		if c.Part == 0 {
			row.How += ", which the events alone come to"
		}
	}
	if p, err := risk.ProfileByName(a.Profile); err == nil {
		row.Words = p.PatternWords(c.Detail)
	}
	return row
}

// explain makes a view of an assessment, with the events of every reason.
func explain(p risk.Standing, a risk.Assessment) riskView {
	loc := words.Location(p.Zone)
	profile := chart.ProfileOf(a.Profile)
	levels := chart.BoundsOf(profile.Levels)
	weights, known := profile.Weights[a.Role]
	if !known {
		weights = profile.Otherwise
	}
	v := riskView{
		Person: p,
		A:      a,
		Gauge:  chart.DrawGauge(a.Score, a.Level, levels),
		Trend:  chart.DrawTrend(a.Trend, levels, loc),
		Due:    dueOf(a, p.Manager, loc),
		Weighs: weighs(profile),
	}

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
		row := sourceRow{
			Name:   words.GroupNames[i],
			What:   groupWhat[i],
			Class:  groupClass[i],
			Weight: share4[i].Float(),
			Used:   used[i].Float(),
			Part:   parts[i],
			Bar:    chart.Bar(used[i].Float(), groupClass[i]),
		}
		row.Stack = chart.Share{
			X:     fmt.Sprintf("%.1f", 1000*at),
			W:     fmt.Sprintf("%.1f", max(0, 1000*width-2)),
			Class: groupClass[i],
		}
		at += width
		v.Sources = append(v.Sources, row)
	}
	if pattern != nil {
		pattern.Stack = chart.Share{
			X:     fmt.Sprintf("%.1f", 1000*at),
			W:     fmt.Sprintf("%.1f", max(0, 1000*min(1-at, float64(pattern.Part)/1e6))),
			Class: "pattern",
		}
		v.Pattern = pattern
	}
	var most int64 = 1
	for _, r := range a.Reasons {
		most = max(most, r.Part)
	}
	for _, r := range a.Reasons {
		g := groupOf(r.Verb.Source())
		row := reasonRow{
			Reason: r,
			Source: r.Verb.Source(),
			Class:  groupClass[g],
			Bar:    chart.Bar(float64(r.Part)/float64(most), groupClass[g]),
		}
		row.Events, row.Lasts = events[r.Verb], lasting[r.Verb]
		row.All, row.Light = len(row.Events), max(0, r.Count-len(row.Events))
		if m := risk.ModulesFor(r.Verb); len(m) > 0 {
			row.Module = m[0].Title
		}
		v.Reasons = append(v.Reasons, row)
	}
	for _, x := range a.Lower {
		row := lowerRow{LowerAct: x, Drop: x.After.Micro() - a.Score.Micro(), Level: levels.Level(x.After)}
		row.Change = row.Level != a.Level
		v.Lower = append(v.Lower, row)
	}
	if i := slices.IndexFunc(v.Lower, lowerRow.Starts); i >= 0 {
		v.First = &v.Lower[i]
	} else if len(a.Reasons) > 0 {
		// So much has come together that no single lesson lowers the score; the first of several is worth it all the same.
		id := recommended(a)
		act := risk.LowerAct{Act: risk.PassModule, ID: id, Title: words.ModuleTitle(id), After: a.Score}
		v.First = &lowerRow{LowerAct: act, Level: a.Level}
	}
	return v
}

// shorten leaves of each reason, and of the pattern, as many events as fit on one page. The rest is on a page of its own.
func (v *riskView) shorten() {
	lists := []*[]eventRow{}
	for i := range v.Reasons {
		lists = append(lists, &v.Reasons[i].Events)
	}
	if v.Pattern != nil {
		lists = append(lists, &v.Pattern.Events)
	}
	text := 0
	for _, list := range lists {
		text += textOf(*list)
	}
	if text <= textOfPage {
		return
	}
	for _, list := range lists {
		*list = fitting(*list, textOfPage/len(lists))
	}
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
		if a, err = l.scorer.Risk(v.ctx(), p.ID); err == nil {
			model = explain(*p, a)
			model.shorten()
		}
	}
	switch {
	case errors.Is(err, riskclient.ErrUnknownPerson):
		return l.gone(v, "no_such_person")
	case err != nil:
		l.cfg.Log.Warn("show risk", "error", err.Error())
		v.status = 503
		v.w.Header().Set("Retry-After", "5")
		model.Away = "The risk scorer does not answer at the moment, so your score cannot be shown. What you have learnt is safe."
	}
	if model.Mine = v.viewer.Learner(); !model.Mine {
		model.Base = "/people/" + model.Person.ID
	}
	model.History = historyOf(lessons, words.Location(model.Person.Zone))
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
	p, err := l.lookAt(v, id)
	if err != nil {
		return err
	}
	return l.showRisk(v, &p, "/people", p.Name)
}

// lookAt is somebody of the roster, for an instructor. That they looked is in the audit.
func (l *LMS) lookAt(v *visit, id string) (risk.Standing, error) {
	people, err := l.scorer.People()
	if err != nil && !errors.As(err, &v.stale) {
		return risk.Standing{}, away(err)
	}
	i := slices.IndexFunc(people, func(s risk.Standing) bool { return s.ID == id })
	if i < 0 {
		return risk.Standing{}, notFound()
	}
	return people[i], l.store.Record(v.ctx(), store.Note("view", id, "", struct {
		By principal `json:"by"`
	}{v.viewer.principal}))
}

// reasonView is all events of one reason, or of the pattern, as many at a time as fit on a page.
type reasonView struct {
	Person       risk.Standing
	Mine         bool
	Title, Words string
	Part         int64
	Events       []eventRow
	From, To     int // of how many
	All, Light   int
	Home         string // the page that it belongs to
	First, Later string // addresses of other pages, if there are any
}

// patternReason stands for the pattern where a verb stands for a reason.
const patternReason = "pattern"

// showOwnReason shows the viewer all events of one of their reasons.
func (l *LMS) showOwnReason(v *visit) error {
	if v.viewer.Self == nil {
		return away(v.stale)
	}
	return l.showReason(v, *v.viewer.Self, "/")
}

// showPersonsReason shows an instructor all events of somebody's reason.
func (l *LMS) showPersonsReason(v *visit) error {
	p, err := l.lookAt(v, v.r.PathValue("person"))
	if err != nil {
		return err
	}
	return l.showReason(v, p, "/people/"+p.ID)
}

func (l *LMS) showReason(v *visit, p risk.Standing, home string) error {
	from, err := strconv.Atoi(cmp.Or(v.r.URL.Query().Get("from"), "0"))
	if err != nil || from < 0 {
		return httpjson.Errorf(http.StatusBadRequest, "bad_number", "There is no such page of the list.")
	}
	a, err := l.scorer.Risk(v.ctx(), p.ID)
	if errors.Is(err, riskclient.ErrUnknownPerson) {
		return notFound()
	}
	if err != nil {
		return away(err)
	}
	why := explain(p, a)
	m := reasonView{Person: p, Mine: v.viewer.Learner(), Home: home}
	name := v.r.PathValue("reason")
	if i := slices.IndexFunc(why.Reasons, func(r reasonRow) bool { return string(r.Verb) == name }); i >= 0 {
		r := why.Reasons[i]
		m.Title, m.Part, m.Events, m.Light = words.Sentence(risk.Words(r.Verb, r.Count)), r.Part, r.Events, r.Light
		m.Words = cmp.Or(r.Lasts, why.Weighs)
	} else if name == patternReason && why.Pattern != nil {
		m.Title, m.Words, m.Part, m.Events = "Pattern: "+why.Pattern.Name+", "+why.Pattern.How, why.Pattern.Words, why.Pattern.Part, why.Pattern.Events
	} else {
		return notFound() // also what was a reason a moment ago
	}
	m.All = len(m.Events)
	from = min(from, max(0, m.All-1))
	m.Events = fitting(m.Events[from:], textOfPage)
	m.From, m.To = from+1, from+len(m.Events)
	if from > 0 {
		m.First = v.r.URL.Path
	}
	if m.To < m.All {
		m.Later = v.r.URL.Path + "?" + url.Values{"from": {strconv.Itoa(m.To)}}.Encode()
	}
	at := "/"
	if !m.Mine {
		at = "/people"
	}
	return l.render(v, "reason", m.Title, at, m)
}
