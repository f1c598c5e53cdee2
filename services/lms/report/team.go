package report

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// urgency orders the rows of a team's page, the highest first.
var urgency = map[string]int{
	riskview.DueEscalated: 3,
	riskview.DueOverdue:   2,
	riskview.DueSoon:      1,
	riskview.DuePlanned:   0,
}

// teamFacts is what a leader's page needs beyond the roster. It takes a request for each report's assessment, so it is
// cached.
type teamFacts struct {
	modules map[string]string // recommended module by person; none for a person without reasons
	trend   []risk.Point
	repeats []repeatRow
}

// teamFacts returns the facts of the viewer's team. With a *Stale error they are old ones.
func (r *Reports) teamFacts(v *site.Viewer) (teamFacts, error) {
	r.mu.Lock()
	kept := r.teams[v.Person]
	if kept == nil {
		kept = &riskclient.Cache[teamFacts]{
			Fresh:  r.scorer.Causes.Fresh,
			Usable: r.scorer.Causes.Usable,
			AtMost: r.scorer.Causes.AtMost,
			Last:   r.scorer.Causes.Last,
		}
		r.teams[v.Person] = kept
	}
	r.mu.Unlock()
	reports := v.Reports
	return kept.Get(r.cfg.Now, func(ctx context.Context) (teamFacts, error) {
		all, err := r.scorer.Risks(ctx, reports)
		if err != nil {
			return teamFacts{}, err
		}
		passes, err := r.store.passes(ctx, reports)
		if err != nil {
			return teamFacts{}, err
		}
		f := teamFacts{modules: map[string]string{}, trend: trendOf(all), repeats: repeatsOf(all, passes)}
		for _, a := range all {
			if len(a.Reasons) > 0 {
				f.modules[a.Person] = riskview.Recommended(a)
			}
		}
		return f, nil
	})
}

// trendOf is the mean score of a team over time. It leaves out assessments whose trend has fewer or more days than the
// first one's.
func trendOf(all []risk.Assessment) []risk.Point {
	var mean []risk.Point
	var sums []int64
	n := int64(0)
	for _, a := range all {
		if len(a.Trend) == 0 {
			continue
		}
		if mean == nil {
			mean, sums = slices.Clone(a.Trend), make([]int64, len(a.Trend))
		}
		if len(a.Trend) != len(mean) {
			continue // a day ended between the two requests
		}
		n++
		for i, p := range a.Trend {
			sums[i] += int64(p.Score)
		}
	}
	for i := range mean {
		mean[i].Score = risk.Score(sums[i] / n)
	}
	return mean
}

// teamRoleRow compares the people of one role in a team with the same role in the organisation.
type teamRoleRow struct {
	Role         risk.Role
	People       int
	Mean         *risk.Score // nil: fewer people than site.SmallestGroup
	Level        risk.Level
	Bar          chart.Share
	Organisation *risk.Score // mean in the organisation; nil: fewer people than that, or unknown
}

// rolesOf are the roles in a team, the most frequent first. A mean of fewer than site.SmallestGroup people is left out.
func rolesOf(reports []risk.Standing, o *risk.Organisation, levels chart.Bounds) []teamRoleRow {
	members := map[risk.Role][]risk.Standing{}
	for _, p := range reports {
		members[p.Role] = append(members[p.Role], p)
	}
	var rows []teamRoleRow
	for role, list := range members {
		row := teamRoleRow{Role: role, People: len(list)}
		if len(list) >= site.SmallestGroup {
			mean := risk.Mean(list)
			row.Mean, row.Level = &mean, levels.Level(mean)
			row.Bar = chart.Bar(mean.Float(), strings.ToLower(string(row.Level)))
		}
		if o != nil {
			for _, r := range o.Roles {
				if r.Role == role && r.People >= site.SmallestGroup {
					row.Organisation = &r.Mean
				}
			}
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b teamRoleRow) int { return cmp.Or(b.People-a.People, cmp.Compare(a.Role, b.Role)) })
	return rows
}

// repeatRow counts, for one module, acts that people repeated after they had passed it. It names no person.
type repeatRow struct {
	Module string
	People int
	Times  int
	Bar    chart.Share
}

// repeatsOf counts repetitions by module, for people with these passed trainings.
func repeatsOf(all []risk.Assessment, passes map[string][]activity.Event) []repeatRow {
	byModule := map[string]*repeatRow{}
	for _, a := range all {
		times := map[string]int{}
		for _, c := range a.Contributions {
			if c.Line != risk.EventLine {
				continue
			}
			// An act is a repetition of one module only: the last that was passed before it and teaches against it.
			var taught *activity.Event
			for i, p := range passes[a.Person] {
				if slices.Contains(p.Teaches, c.Verb) && p.At.Before(c.At) && (taught == nil || p.At.After(taught.At)) {
					taught = &passes[a.Person][i]
				}
			}
			if taught != nil {
				times[taught.Module]++
			}
		}
		for module, n := range times {
			if byModule[module] == nil {
				byModule[module] = &repeatRow{Module: words.ModuleTitle(module)}
			}
			byModule[module].People++
			byModule[module].Times += n
		}
	}
	var rows []repeatRow
	for _, r := range byModule {
		r.Bar = chart.Bar(float64(r.People)/float64(len(all)), "high")
		rows = append(rows, *r)
	}
	slices.SortFunc(rows, func(a, b repeatRow) int {
		return cmp.Or(b.People-a.People, b.Times-a.Times, cmp.Compare(a.Module, b.Module))
	})
	return rows
}

// passes are the events of passed trainings by person, imported ones included.
func (s *recordStore) passes(ctx context.Context, people []risk.Standing) (map[string][]activity.Event, error) {
	ids := make([]string, len(people))
	for i, p := range people {
		ids[i] = p.ID
	}
	rows, err := s.Pool.Query(ctx, `SELECT event FROM training.outbox
		WHERE event->>'verb' = 'training.passed' AND event->>'person' = ANY ($1)`, ids)
	if err != nil {
		return nil, fmt.Errorf("read passes: %w", err)
	}
	byPerson := map[string][]activity.Event{}
	var b []byte
	_, err = pgx.ForEachRow(rows, []any{&b}, func() error {
		var e activity.Event
		if err := json.Unmarshal(b, &e); err != nil {
			return err
		}
		byPerson[e.Person] = append(byPerson[e.Person], e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read passes: %w", err)
	}
	return byPerson, nil
}

type teamView struct {
	Hidden       bool // fewer people than Fewest
	People       int
	Mean         risk.Score
	Level        risk.Level
	Levels       chart.Distribution
	Rows         []teamRow
	Needs        []needRow
	Organisation *risk.Organisation
	Late         int // overdue
	Soon         int // due within a week
	Escalated    int
	Trend        *chart.TrendChart
	Roles        []teamRoleRow
	Repeats      []repeatRow
	Missing      string // why parts cannot be shown; empty: all are shown
	Fewest       int
}

// teamRow is a person with the recommended module and its due date. It names no act: acts are shown only to the person
// and to instructors.
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

// ShowTeam shows a leader the team: its mean, trend and needs, but no acts of individuals.
func (r *Reports) ShowTeam(req *site.Request) error {
	reports := req.Viewer.Reports
	m, profile := teamView{People: len(reports), Fewest: site.SmallestGroup}, ""
	if o, err := r.scorer.Organisation(); err == nil || errors.As(err, &req.Stale) {
		m.Organisation, profile = &o, o.Profile
	}
	if len(reports) < site.SmallestGroup {
		m.Hidden = true
		return r.site.Render(req, "team", "My team", "/team", m)
	}
	facts, err := r.teamFacts(req.Viewer)
	if err != nil && !errors.As(err, &req.Stale) {
		r.cfg.Log.Warn("show team", "error", err.Error())
		m.Missing = site.ScorerUnavailable + ", so what each person needs cannot be shown."
		req.MarkUnavailable()
	}
	loc := words.Location(req.Viewer.Zone())
	levels := chart.BoundsOf(chart.ProfileOf(profile).Levels)
	m.Mean, m.Levels = risk.Mean(reports), chart.DrawDistribution(chart.CountLevels(reports))
	m.Level, m.Roles = levels.Level(m.Mean), rolesOf(reports, m.Organisation, levels)
	m.Trend, m.Repeats = chart.DrawTrend(facts.trend, levels, loc), facts.repeats
	m.addRows(reports, facts.modules, loc)
	m.Needs = needsOf(reports, facts.modules)
	return r.site.Render(req, "team", "My team", "/team", m)
}

// addRows adds a row for each report, the most urgent first, and counts the states of their trainings.
func (m *teamView) addRows(reports []risk.Standing, modules map[string]string, loc *time.Location) {
	for _, p := range reports {
		row := teamRow{
			Person: p,
			Bar:    chart.Bar(p.Score.Float(), strings.ToLower(string(p.Level))),
			Module: modules[p.ID],
			Due:    riskview.DueOfStanding(p, loc),
		}
		row.Due.To = words.EscalatedToLeader(p.Escalation)
		switch row.Due.State {
		case riskview.DueEscalated:
			m.Late++
			m.Escalated++
		case riskview.DueOverdue:
			m.Late++
		case riskview.DueSoon:
			m.Soon++
		}
		m.Rows = append(m.Rows, row)
	}
	slices.SortStableFunc(m.Rows, func(a, b teamRow) int { return urgency[b.Due.State] - urgency[a.Due.State] })
}

// needsOf counts for each module how many of the reports need it, the most first.
func needsOf(reports []risk.Standing, modules map[string]string) []needRow {
	needs := map[string]int{}
	for _, p := range reports {
		if id := modules[p.ID]; id != "" {
			needs[id]++
		}
	}
	var rows []needRow
	for id, n := range needs {
		bar := chart.Bar(float64(n)/float64(len(reports)), "accent")
		rows = append(rows, needRow{Module: words.ModuleTitle(id), People: n, Bar: bar})
	}
	slices.SortFunc(rows, func(a, b needRow) int {
		return cmp.Or(b.People-a.People, cmp.Compare(a.Module, b.Module))
	})
	return rows
}
