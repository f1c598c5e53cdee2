package lms

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

type teamView struct {
	Hidden  bool // too few people to be shown
	People  int
	Mean    risk.Score
	Level   risk.Level
	Levels  chart.Distribution
	Rows    []teamRow
	Needs   []needRow
	Company *risk.Organisation
	Late    int
	Soon    int // due within a week
	Beyond  int // escalated
	Trend   *chart.TrendChart
	Roles   []teamRoleRow
	Repeats []repeatRow
	Away    string
	Fewest  int
}

// teamRow is who needs what by when. It names no act: what somebody did is between that person and the instructor.
type teamRow struct {
	Person risk.Standing
	Bar    chart.Share
	Module string
	Due    riskview.Due
}

type needRow struct {
	Module string
	People int
	Bar    chart.Share
}

func (l *LMS) showTeam(v *site.Request) error {
	reports := v.Viewer.Reports
	m, profile := teamView{People: len(reports), Fewest: site.SmallestGroup}, ""
	if o, err := l.scorer.Organisation(); err == nil || errors.As(err, &v.Stale) {
		m.Company, profile = &o, o.Profile
	}
	if len(reports) < site.SmallestGroup {
		m.Hidden = true
		return l.site.Render(v, "team", "My team", "/team", m)
	}
	m.Mean, m.Levels = risk.Mean(reports), chart.DrawDistribution(chart.CountLevels(reports))
	levels := chart.BoundsOf(chart.ProfileOf(profile).Levels)
	m.Level, m.Roles = levels.Level(m.Mean), rolesOf(reports, m.Company, levels)
	facts, err := l.teamFacts(v.Viewer)
	if err != nil && !errors.As(err, &v.Stale) {
		l.cfg.Log.Warn("show team", "error", err.Error())
		m.Away = "The risk scorer does not answer at the moment, so what each person needs cannot be shown."
		v.Status = http.StatusServiceUnavailable
		v.W.Header().Set("Retry-After", "5")
	}
	m.Trend, m.Repeats = chart.DrawTrend(facts.trend, levels, words.Location(v.Viewer.Zone())), facts.repeats
	needs := map[string]int{}
	for _, p := range reports {
		row := teamRow{
			Person: p,
			Bar:    chart.Bar(p.Score.Float(), strings.ToLower(string(p.Level))),
			Due:    riskview.DueOfStanding(p, words.Location(v.Viewer.Zone())),
		}
		row.Due.To = toYou[p.Escalation]
		switch row.Due.State {
		case riskview.DueEscalated:
			m.Late++
			m.Beyond++
		case riskview.DueOverdue:
			m.Late++
		case riskview.DueSoon:
			m.Soon++
		}
		if row.Module = facts.modules[p.ID]; row.Module != "" {
			needs[row.Module]++
		}
		m.Rows = append(m.Rows, row)
	}
	for id, n := range needs {
		m.Needs = append(
			m.Needs,
			needRow{Module: words.ModuleTitle(id), People: n, Bar: chart.Bar(float64(n)/float64(len(reports)), "accent")},
		)
	}
	slices.SortStableFunc(m.Rows, func(a, b teamRow) int { return urgency[b.Due.State] - urgency[a.Due.State] })
	slices.SortFunc(m.Needs, func(a, b needRow) int { return cmp.Or(b.People-a.People, cmp.Compare(a.Module, b.Module)) })
	return l.site.Render(v, "team", "My team", "/team", m)
}

type organisationView struct {
	O      risk.Organisation
	Gauge  chart.Gauge
	Trend  *chart.TrendChart
	Levels chart.Distribution
	Parts  []rulePart
	Roles  []groupRow
	Teams  []groupRow
	Top    []standingRow
	Late   []lateRow // the latest first
	Told   lateCounts
	Beside besideView
	Causes []causeRow
	Asked  int // over how many people the causes are
}

// rulePart is one of the three parts of the organisation's score.
type rulePart struct {
	Name, Formula string
	Value         float64
	Weight        float64
	Part          int64
}

type groupRow struct {
	Name   string
	People int
	Mean   risk.Score
	Level  risk.Level
	High   int
	Bar    chart.Share
	Query  string
}

type standingRow struct {
	risk.Standing
	Bar chart.Share
	Due riskview.Due
}

type causeRow struct {
	riskclient.Cause
	Class string
	Bar   chart.Share
}

func (l *LMS) showOrganisation(v *site.Request) error {
	o, err := l.scorer.Organisation()
	if err != nil && !errors.As(err, &v.Stale) {
		return site.Canceled(v.Ctx(), err)
	}
	people, err := l.scorer.Staff()
	if err != nil && !errors.As(err, &v.Stale) {
		return site.Canceled(v.Ctx(), err)
	}
	m := organisationView{O: o, Levels: chart.DrawDistribution(o.Levels), Asked: min(riskclient.MostAsked, len(people))}
	p := chart.ProfileOf(o.Profile)
	levels, personal := chart.BoundsOf(p.Company.Levels), chart.BoundsOf(p.Levels)
	high := 0.0
	if o.People > 0 {
		high = float64(o.Levels.High+o.Levels.Critical) / float64(o.People)
	}
	m.Parts = []rulePart{
		{Name: "Mean of all people", Value: o.Mean.Float(), Weight: p.Company.Mean.Float()},
		{Name: "Highest person", Value: o.Max.Float(), Weight: p.Company.Max.Float()},
		{Name: "Share at high or above", Value: high, Weight: p.Company.Share.Float()},
	}
	for i := range m.Parts {
		m.Parts[i].Part = int64(1e6*m.Parts[i].Value*m.Parts[i].Weight + 0.5)
	}
	m.Gauge, m.Trend = chart.DrawGauge(o.Score, o.Level, levels), chart.DrawTrend(o.Trend, levels, time.UTC)
	for _, r := range o.Roles {
		m.Roles = append(
			m.Roles,
			rowOfGroup("role", string(r.Role), words.RoleName(r.Role), r.People, r.Mean, r.High, personal),
		)
	}
	for _, t := range o.Teams {
		m.Teams = append(m.Teams, rowOfGroup("team", t.Team, words.Sentence(t.Team), t.People, t.Mean, t.High, personal))
	}
	m.Late, m.Told = lateOf(people)
	if m.Beside, err = l.beside(v, people, o.Profile); err != nil {
		return err
	}
	for _, s := range people[:min(10, len(people))] {
		m.Top = append(m.Top, rowOfStanding(s))
	}
	causes, err := l.scorer.Reasons()
	if err != nil && !errors.As(err, &v.Stale) {
		l.cfg.Log.Warn("show organisation's reasons", "error", err.Error())
	}
	most := int64(1)
	for _, c := range causes {
		most = max(most, c.Part)
	}
	for _, c := range causes[:min(10, len(causes))] {
		g := riskview.GroupOf(c.Verb.Source())
		m.Causes = append(
			m.Causes,
			causeRow{
				Cause: c,
				Class: riskview.GroupClass[g],
				Bar:   chart.Bar(float64(c.Part)/float64(most), riskview.GroupClass[g]),
			},
		)
	}
	return l.site.Render(v, "organisation", "Organisation", "/organisation", m)
}

func rowOfStanding(s risk.Standing) standingRow {
	return standingRow{
		Standing: s,
		Bar:      chart.Bar(s.Score.Float(), strings.ToLower(string(s.Level))),
		Due:      riskview.DueOfStanding(s, time.UTC),
	}
}

// rowOfGroup is a role or a team as the scorer sums it up; its name leads to its people.
func rowOfGroup(parameter, id, name string, people int, mean risk.Score, high int, levels chart.Bounds) groupRow {
	level := levels.Level(mean)
	return groupRow{
		Name: name, People: people, Mean: mean, Level: level, High: high,
		Bar: chart.Bar(
			mean.Float(),
			strings.ToLower(string(level)),
		), Query: "/people?" + url.Values{parameter: {id}}.Encode(),
	}
}

const peopleShown = 50

type peopleView struct {
	Query, Role, Team, Level string
	Roles                    []site.Choice
	Teams                    []site.Choice
	Levels                   []site.Choice
	Training                 []site.Choice
	Rows                     []standingRow
	Found, From, To          int
	Earlier, Later           string // addresses of the other pages, if there are any
}

func (l *LMS) showPeople(v *site.Request) error {
	people, err := l.scorer.Staff()
	if err != nil && !errors.As(err, &v.Stale) {
		return site.Canceled(v.Ctx(), err)
	}
	q := v.R.URL.Query()
	m := peopleView{Query: strings.TrimSpace(q.Get("q")), Role: q.Get("role"), Team: q.Get("team"), Level: q.Get("level")}
	from, err := strconv.Atoi(cmp.Or(q.Get("from"), "0"))
	if err != nil || from < 0 {
		return httpjson.Errorf(http.StatusBadRequest, "bad_number", "There is no such page of the list.")
	}
	find, training := strings.ToLower(m.Query), q.Get("training")
	var found []risk.Standing
	roles, teams := map[string]string{}, map[string]string{}
	for _, p := range people {
		roles[string(p.Role)], teams[p.Team] = words.RoleName(p.Role), words.Sentence(p.Team)
		if (m.Role == "" || string(p.Role) == m.Role) && (m.Team == "" || p.Team == m.Team) && (m.Level == "" || string(p.Level) == m.Level) &&
			(training == "" || inTraining(p, training)) &&
			(find == "" || strings.Contains(strings.ToLower(p.Name), find) || strings.Contains(p.ID, find) || strings.Contains(strings.ToLower(p.Email), find)) {
			found = append(found, p)
		}
	}
	m.Roles, m.Teams = site.Choices(roles, m.Role), site.Choices(teams, m.Team)
	for _, level := range slices.Backward(risk.Levels) {
		m.Levels = append(
			m.Levels,
			site.Choice{Value: string(level), Name: words.LevelName(level), Chosen: string(level) == m.Level},
		)
	}
	m.Training = []site.Choice{
		{Value: riskview.DueOverdue, Name: "Overdue", Chosen: training == riskview.DueOverdue},
		{Value: riskview.DueEscalated, Name: "Escalated", Chosen: training == riskview.DueEscalated},
	}
	m.Found = len(found)
	from = min(from, max(0, m.Found-1)) / peopleShown * peopleShown
	to := min(from+peopleShown, m.Found)
	m.From, m.To = from+1, to
	for _, p := range found[from:to] {
		m.Rows = append(m.Rows, rowOfStanding(p))
	}
	page := func(at int) string {
		q.Set("from", strconv.Itoa(at))
		return "/people?" + q.Encode()
	}
	if from > 0 {
		m.Earlier = page(from - peopleShown)
	}
	if to < m.Found {
		m.Later = page(to)
	}
	return l.site.Render(v, "people", "People", "/people", m)
}

// inTraining says whether a training is as pressing as that; what is escalated is overdue as well.
func inTraining(p risk.Standing, state string) bool {
	is := riskview.DueOfStanding(p, time.UTC).State
	return is == state || is == riskview.DueEscalated && state == riskview.DueOverdue
}

type exercisesView struct{ Rows []exerciseRow }

type exerciseRow struct {
	exercise.Exercise
	Done   int // steps with an outcome
	Failed int
	Bar    chart.Share
	Steps  []stepRow
	Live   bool
}

type stepRow struct {
	exercise.Step
	Mark string // ok, failed, pending or said
}

// markOf classes an outcome's words.
func markOf(outcome string) string {
	switch strings.ToLower(strings.TrimSpace(outcome)) {
	case "":
		return "pending"
	case "ok", "met", "passed", "done", "delivered", "true", "✓":
		return "ok"
	case "failed", "missed", "error", "false", "✗":
		return "failed"
	}
	return "said"
}

func (l *LMS) showExercises(v *site.Request) error {
	all, err := l.store.exercises(v.Ctx())
	if err != nil {
		return err
	}
	var m exercisesView
	for _, e := range all {
		row := exerciseRow{Exercise: e, Live: e.State.On()}
		for _, s := range e.Steps {
			step := stepRow{Step: s, Mark: markOf(s.Outcome)}
			if step.Mark != "pending" {
				row.Done++
			}
			if step.Mark == "failed" {
				row.Failed++
			}
			row.Steps = append(row.Steps, step)
		}
		row.Bar = chart.Bar(float64(row.Done)/float64(max(1, len(e.Steps))), "accent")
		m.Rows = append(m.Rows, row)
	}
	return l.site.Render(v, "exercises", "Exercises", "/exercises", m)
}
