package report

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/risk"
)

// comparison is what another profile says of the same events.
type comparison struct {
	Choices []site.Choice // of profiles
	Profile string        // none: nobody asked
	Version int
	Away    bool
	Differ  int // people whose level differs
	Higher  int // of those, whose is higher there
	Rows    []comparisonRow
}

type comparisonRow struct {
	risk.Standing
	Other chart.Share
	Own   chart.Share
	Gap   int64 // whole millionths, the other profile's score minus the own
}

// compare compares with the profile that ?shadow= names, else with the one that the scorer has beside anyway: who would
// be scored how, the biggest differences first. own is the scorer's own profile.
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
		m.Rows = append(m.Rows, comparisonRow{
			Standing: p, Own: chart.Bar(p.Score.Float(), strings.ToLower(string(p.Level))),
			Other: chart.Bar(p.Shadow.Score.Float(), strings.ToLower(string(p.Shadow.Level))),
			Gap:   p.Shadow.Score.Micro() - p.Score.Micro(),
		})
	}
	slices.SortStableFunc(
		m.Rows,
		func(a, b comparisonRow) int { return int(min(1, max(-1, max(b.Gap, -b.Gap)-max(a.Gap, -a.Gap)))) },
	)
	m.Rows = m.Rows[:min(rowsOfInterest, len(m.Rows))]
	for _, p := range risk.Profiles() {
		if p.Name != own {
			m.Choices = append(m.Choices, site.Choice{Value: p.Name, Name: p.Name, Chosen: p.Name == m.Profile})
		}
	}
	return m, nil
}
