package report

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

var urgency = map[string]int{
	riskview.DueEscalated: 3,
	riskview.DueOverdue:   2,
	riskview.DueSoon:      1,
	riskview.DuePlanned:   0,
}

// toYou says to their leader to whom a training is escalated.
var toYou = map[risk.Escalation]string{risk.ToManager: "you", risk.ToSecurity: "you and the security team"}

// teamFacts is what a leader's page says of the team beyond the roster. Each report's assessment is asked for to know it, so it is
// remembered: a look at the page costs the scorer nothing by itself, however many they are.
type teamFacts struct {
	modules map[string]string // by person: what would help most; nothing for whom nothing weighs on
	trend   []risk.Point
	repeats []repeatRow
}

// teamFacts are those of the viewer's team, with *stale old ones.
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

// trendOf is the mean score of a team over time: of all whose trend has the same days as the first one's.
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
			continue // asked in the moment when a day ended
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

// teamRoleRow compares the people of one role with the same role in the company.
type teamRoleRow struct {
	Role    risk.Role
	People  int
	Mean    *risk.Score // nil: too few to be shown
	Level   risk.Level
	Bar     chart.Share
	Company *risk.Score // nil: too few, or not known
}

// rolesOf are the roles in a team; a mean of fewer than smallestGroup people is nobody's to see.
func rolesOf(reports []risk.Standing, company *risk.Organisation, levels chart.Bounds) []teamRoleRow {
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
		if company != nil {
			for _, r := range company.Roles {
				if r.Role == role && r.People >= site.SmallestGroup {
					row.Company = &r.Mean
				}
			}
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b teamRoleRow) int { return cmp.Or(b.People-a.People, cmp.Compare(a.Role, b.Role)) })
	return rows
}

// repeatRow is something that was done again after it had been taught. It counts people and names none.
type repeatRow struct {
	Module string
	People int
	Times  int
	Bar    chart.Share
}

// repeatsOf counts, for each module, who did again what it teaches after having passed it.
func repeatsOf(all []risk.Assessment, passes map[string][]activity.Event) []repeatRow {
	byModule := map[string]*repeatRow{}
	for _, a := range all {
		times := map[string]int{}
		for _, c := range a.Contributions {
			if c.Line != risk.EventLine {
				continue
			}
			// The last pass before the act that taught against it: one act is one repetition, of one lesson.
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

// passes are the events of people who passed something, by person, those of before this system included.
func (s *recordStore) passes(ctx context.Context, people []risk.Standing) (map[string][]activity.Event, error) {
	ids := make([]string, len(people))
	for i, p := range people {
		ids[i] = p.ID
	}
	rows, err := s.Pool.Query(
		ctx,
		`SELECT event FROM training.outbox WHERE event->>'verb' = 'training.passed' AND event->>'person' = ANY ($1)`,
		ids,
	)
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

// ShowTeam shows a leader the team: its mean, trend and needs, and no one's acts.
func (r *Reports) ShowTeam(req *site.Request) error {
	reports := req.Viewer.Reports
	m, profile := teamView{People: len(reports), Fewest: site.SmallestGroup}, ""
	if o, err := r.scorer.Organisation(); err == nil || errors.As(err, &req.Stale) {
		m.Company, profile = &o, o.Profile
	}
	if len(reports) < site.SmallestGroup {
		m.Hidden = true
		return r.site.Render(req, "team", "My team", "/team", m)
	}
	m.Mean, m.Levels = risk.Mean(reports), chart.DrawDistribution(chart.CountLevels(reports))
	levels := chart.BoundsOf(chart.ProfileOf(profile).Levels)
	m.Level, m.Roles = levels.Level(m.Mean), rolesOf(reports, m.Company, levels)
	facts, err := r.teamFacts(req.Viewer)
	if err != nil && !errors.As(err, &req.Stale) {
		r.cfg.Log.Warn("show team", "error", err.Error())
		m.Away = "The risk scorer does not answer at the moment, so what each person needs cannot be shown."
		req.Status = http.StatusServiceUnavailable
		req.W.Header().Set("Retry-After", "5")
	}
	m.Trend, m.Repeats = chart.DrawTrend(facts.trend, levels, words.Location(req.Viewer.Zone())), facts.repeats
	needs := map[string]int{}
	for _, p := range reports {
		row := teamRow{
			Person: p,
			Bar:    chart.Bar(p.Score.Float(), strings.ToLower(string(p.Level))),
			Due:    riskview.DueOfStanding(p, words.Location(req.Viewer.Zone())),
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
	return r.site.Render(req, "team", "My team", "/team", m)
}
