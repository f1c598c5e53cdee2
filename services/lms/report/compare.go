package report

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strings"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/risk"
)

// comparison compares scores by the profile in force with those by another profile, for the same events.
type comparison struct {
	Choices []site.Choice // the other profiles
	Profile string        // the one compared with; empty: none
	Version int
	Missing bool // the risk scorer did not answer
	Differ  int  // people whose level differs
	Higher  int  // those among them with the higher level by the other profile
	Rows    []comparisonRow
}

type comparisonRow struct {
	risk.Standing
	Other chart.Share
	Own   chart.Share
	Gap   int64 // the other profile's score less the own, in millionths
}

// compare compares with the profile that ?shadow= names, else with the risk scorer's shadow profile, if it has one.
// Rows are the largest differences, the largest first. own is the profile in force. 400 for an unknown profile.
func (r *Reports) compare(req *site.Request, people []risk.Standing, own string) (comparison, error) {
	name := req.R.URL.Query().Get("shadow")
	var m comparison
	if name != "" {
		if _, err := risk.ProfileByName(name); err != nil {
			return m, httpjson.Errorf(http.StatusBadRequest, "unknown_profile", "There is no such profile.")
		}
		var err error
		if people, err = r.scorer.PeopleWith(name); err != nil && !errors.As(err, &req.Stale) {
			r.cfg.Log.Warn("compare profiles", "error", err.Error())
			m.Missing = true
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
		m.Rows = append(m.Rows, comparisonRow{
			Standing: p, Own: chart.Bar(p.Score.Float(), strings.ToLower(string(p.Level))),
			Other: chart.Bar(p.Shadow.Score.Float(), strings.ToLower(string(p.Shadow.Level))),
			Gap:   p.Shadow.Score.Micro() - p.Score.Micro(),
		})
	}
	slices.SortStableFunc(m.Rows, func(a, b comparisonRow) int {
		return cmp.Compare(max(b.Gap, -b.Gap), max(a.Gap, -a.Gap))
	})
	m.Rows = m.Rows[:min(rowsOfInterest, len(m.Rows))]
	for _, p := range risk.Profiles() {
		if p.Name != own {
			m.Choices = append(m.Choices, site.Choice{Value: p.Name, Name: p.Name, Chosen: p.Name == m.Profile})
		}
	}
	return m, nil
}
