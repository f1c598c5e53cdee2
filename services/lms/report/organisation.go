package report

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

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
	Beside comparison
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

// ShowOrganisation shows the organisation's score with its parts, groups, overdue trainings and reasons.
func (r *Reports) ShowOrganisation(req *site.Request) error {
	o, err := r.scorer.Organisation()
	if err != nil && !errors.As(err, &req.Stale) {
		return site.Canceled(req.Ctx(), err)
	}
	people, err := r.scorer.Staff()
	if err != nil && !errors.As(err, &req.Stale) {
		return site.Canceled(req.Ctx(), err)
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
	if m.Beside, err = r.compare(req, people, o.Profile); err != nil {
		return err
	}
	for _, s := range people[:min(10, len(people))] {
		m.Top = append(m.Top, rowOfStanding(s))
	}
	causes, err := r.scorer.Reasons()
	if err != nil && !errors.As(err, &req.Stale) {
		r.cfg.Log.Warn("show organisation's reasons", "error", err.Error())
	}
	most := int64(1)
	for _, c := range causes {
		most = max(most, c.Part)
	}
	for _, c := range causes[:min(10, len(causes))] {
		g := c.Verb.Source().Group()
		m.Causes = append(
			m.Causes,
			causeRow{
				Cause: c,
				Class: riskview.GroupClass[g],
				Bar:   chart.Bar(float64(c.Part)/float64(most), riskview.GroupClass[g]),
			},
		)
	}
	return r.site.Render(req, "organisation", "Organisation", "/organisation", m)
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

// rowsOfInterest is how many people a list on the organisation's page names.
const rowsOfInterest = 10

// lateRow is somebody whose training is overdue.
type lateRow struct {
	risk.Standing
	Due riskview.Due
}

// lateCounts is how many people's trainings are overdue, how many are escalated to a manager, how many would be and
// have none, and how many are to the security team.
type lateCounts struct{ All, Manager, Alone, Security int }

// lateOf are the people whose training is overdue: those first that are escalated the furthest, the latest first.
// Whoever the roster does not list is nobody's manager.
func lateOf(people []risk.Standing) ([]lateRow, lateCounts) {
	var n lateCounts
	var rows []lateRow
	listed := map[string]bool{}
	for _, p := range people {
		listed[p.ID] = true
	}
	for _, p := range people {
		if !listed[p.Manager] {
			p.Manager = ""
		}
		rank := p.Escalation.Rank()
		if rank < risk.ToPerson.Rank() {
			continue
		}
		n.All++
		switch {
		case rank < risk.ToManager.Rank():
		case p.Manager == "":
			n.Alone++
		default:
			n.Manager++
		}
		if rank >= risk.ToSecurity.Rank() {
			n.Security++
		}
		rows = append(rows, lateRow{p, riskview.DueOfStanding(p, time.UTC)})
	}
	slices.SortStableFunc(rows, func(a, b lateRow) int {
		if d := b.Escalation.Rank() - a.Escalation.Rank(); d != 0 {
			return d
		}
		return a.Standing.Due.Compare(b.Standing.Due)
	})
	return rows[:min(rowsOfInterest, len(rows))], n
}
