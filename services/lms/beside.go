package lms

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/risk"
)

// rowsOfInterest is how many people a list on the organisation's page names.
const rowsOfInterest = 10

// lateRow is somebody whose training is overdue.
type lateRow struct {
	risk.Standing
	Due riskview.Due
}

// lateCounts is how many people's trainings are overdue, how many are escalated to a manager, how many would be and have none, and
// how many are to the security team.
type lateCounts struct{ All, Manager, Alone, Security int }

// lateOf are the people whose training is overdue: those first that are escalated the furthest, the latest first. Whoever the roster
// does not list is nobody's manager.
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

// besideView is what another profile says of the same events.
type besideView struct {
	Choices []site.Choice // of profiles
	Profile string        // none: nobody asked
	Version int
	Away    bool
	Differ  int // people whose level differs
	Higher  int // of those, whose is higher there
	Rows    []besideRow
}

type besideRow struct {
	risk.Standing
	Other chart.Share
	Own   chart.Share
	Gap   int64 // whole millionths, the other profile's score minus the own
}

// beside compares with the profile that ?shadow= names, else with the one that the scorer has beside anyway: who would be
// scored how, the biggest differences first. own is the scorer's own profile.
func (l *LMS) beside(v *site.Request, people []risk.Standing, own string) (besideView, error) {
	name := v.R.URL.Query().Get("shadow")
	var m besideView
	if name != "" {
		if _, err := risk.ProfileByName(name); err != nil {
			return m, httpjson.Errorf(http.StatusBadRequest, "unknown_profile", "There is no such profile.")
		}
		var err error
		if people, err = l.scorer.PeopleWith(name); err != nil && !errors.As(err, &v.Stale) {
			l.cfg.Log.Warn("compare profiles", "error", err.Error())
			m.Away = true
		}
	}
	for _, p := range people {
		if p.Shadow == nil {
			continue
		}
		m.Profile, m.Version = p.Shadow.Profile, p.Shadow.Version
		if a, b := p.Level.Rank(), p.Shadow.Level.Rank(); a != b {
			m.Differ++
			if b > a {
				m.Higher++
			}
		}
		m.Rows = append(m.Rows, besideRow{
			Standing: p, Own: chart.Bar(p.Score.Float(), strings.ToLower(string(p.Level))),
			Other: chart.Bar(p.Shadow.Score.Float(), strings.ToLower(string(p.Shadow.Level))),
			Gap:   p.Shadow.Score.Micro() - p.Score.Micro(),
		})
	}
	slices.SortStableFunc(m.Rows, func(a, b besideRow) int { return int(min(1, max(-1, max(b.Gap, -b.Gap)-max(a.Gap, -a.Gap)))) })
	m.Rows = m.Rows[:min(rowsOfInterest, len(m.Rows))]
	for _, p := range risk.Profiles() {
		if p.Name != own {
			m.Choices = append(m.Choices, site.Choice{Value: p.Name, Name: p.Name, Chosen: p.Name == m.Profile})
		}
	}
	return m, nil
}
