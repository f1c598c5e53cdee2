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
	O          risk.Organisation
	Gauge      chart.Gauge
	Trend      *chart.TrendChart
	Levels     chart.Distribution
	Parts      []rulePart
	Roles      []groupRow
	Teams      []groupRow
	Top        []standingRow
	Late       []overdueRow // in the order of overdueOf
	Counts     overdueCounts
	Comparison comparison
	Causes     []causeRow
	Asked      int // number of people whose reasons make up the causes
}

// rulePart is one of the three parts of the organisation's score. Part is in millionths.
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

// ShowOrganisation shows the organisation's score with its parts, groups, overdue trainings and causes.
func (r *Reports) ShowOrganisation(req *site.Request) error {
	o, err := r.scorer.Organisation()
	if err != nil && !errors.As(err, &req.Stale) {
		return site.Canceled(req.Ctx(), err)
	}
	people, err := r.scorer.Staff()
	if err != nil && !errors.As(err, &req.Stale) {
		return site.Canceled(req.Ctx(), err)
	}
	m := organisationViewOf(o)
	m.Asked = min(riskclient.MostAsked, len(people))
	m.Late, m.Counts = overdueOf(people)
	if m.Comparison, err = r.compare(req, people, o.Profile); err != nil {
		return err
	}
	for _, s := range people[:min(rowsOfInterest, len(people))] {
		m.Top = append(m.Top, rowOfStanding(s))
	}
	causes, err := r.scorer.Reasons()
	if err != nil && !errors.As(err, &req.Stale) {
		r.cfg.Log.Warn("show organisation's reasons", "error", err.Error())
	}
	m.Causes = causeRowsOf(causes)
	return r.site.Render(req, "organisation", "Organisation", "/organisation", m)
}

// organisationViewOf is what the figures of an organisation say, without its people.
func organisationViewOf(o risk.Organisation) organisationView {
	p := chart.ProfileOf(o.Profile)
	levels, personal := chart.BoundsOf(p.Company.Levels), chart.BoundsOf(p.Levels)
	m := organisationView{
		O:      o,
		Gauge:  chart.DrawGauge(o.Score, o.Level, levels),
		Trend:  chart.DrawTrend(o.Trend, levels, time.UTC),
		Levels: chart.DrawDistribution(o.Levels),
		Parts:  rulePartsOf(o, p),
	}
	for _, g := range o.Roles {
		m.Roles = append(m.Roles,
			rowOfGroup("role", string(g.Role), words.RoleName(g.Role), g.People, g.Mean, g.High, personal))
	}
	for _, g := range o.Teams {
		m.Teams = append(m.Teams, rowOfGroup("team", g.Team, words.Sentence(g.Team), g.People, g.Mean, g.High, personal))
	}
	return m
}

// rulePartsOf splits an organisation's score by the rule of its profile.
func rulePartsOf(o risk.Organisation, p *risk.Profile) []rulePart {
	high := 0.0
	if o.People > 0 {
		high = float64(o.Levels.High+o.Levels.Critical) / float64(o.People)
	}
	parts := []rulePart{
		{Name: "Mean of all people", Value: o.Mean.Float(), Weight: p.Company.Mean.Float()},
		{Name: "Highest person", Value: o.Max.Float(), Weight: p.Company.Max.Float()},
		{Name: "Share at high or above", Value: high, Weight: p.Company.Share.Float()},
	}
	for i := range parts {
		parts[i].Part = int64(1e6*parts[i].Value*parts[i].Weight + 0.5)
	}
	return parts
}

// causeRowsOf are the first causes. The largest has the full bar.
func causeRowsOf(causes []riskclient.Cause) []causeRow {
	most := int64(1)
	for _, c := range causes {
		most = max(most, c.Part)
	}
	var rows []causeRow
	for _, c := range causes[:min(rowsOfInterest, len(causes))] {
		class := riskview.GroupClass[c.Verb.Source().Group()]
		rows = append(rows, causeRow{Cause: c, Class: class, Bar: chart.Bar(float64(c.Part)/float64(most), class)})
	}
	return rows
}

func rowOfStanding(s risk.Standing) standingRow {
	return standingRow{
		Standing: s,
		Bar:      chart.Bar(s.Score.Float(), strings.ToLower(string(s.Level))),
		Due:      riskview.DueOfStanding(s, time.UTC),
	}
}

// rowOfGroup is a role or a team. Its name links to the list of its people, filtered by parameter and id.
func rowOfGroup(parameter, id, name string, people int, mean risk.Score, high int, levels chart.Bounds) groupRow {
	level := levels.Level(mean)
	return groupRow{
		Name: name, People: people, Mean: mean, Level: level, High: high,
		Bar:   chart.Bar(mean.Float(), strings.ToLower(string(level))),
		Query: "/people?" + url.Values{parameter: {id}}.Encode(),
	}
}

// rowsOfInterest is how many rows a list on the organisation's page has.
const rowsOfInterest = 10

// overdueRow is a person whose training is overdue.
type overdueRow struct {
	risk.Standing
	Due riskview.Due
}

// overdueCounts counts overdue trainings: all; those escalated to a manager; those that would be, but there is no
// manager; and those escalated to the security team.
type overdueCounts struct{ All, Manager, Alone, Security int }

// overdueOf lists the people whose training is overdue, the highest escalation first, and among equal ones the longest
// overdue first. A manager whom the roster does not list counts as none.
func overdueOf(people []risk.Standing) ([]overdueRow, overdueCounts) {
	var n overdueCounts
	var rows []overdueRow
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
		rows = append(rows, overdueRow{p, riskview.DueOfStanding(p, time.UTC)})
	}
	slices.SortStableFunc(rows, func(a, b overdueRow) int {
		if d := b.Escalation.Rank() - a.Escalation.Rank(); d != 0 {
			return d
		}
		return a.Standing.Due.Compare(b.Standing.Due)
	})
	return rows[:min(rowsOfInterest, len(rows))], n
}
