package report

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

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

// ShowPeople lists people, the highest score first, as the search and the filters say.
func (r *Reports) ShowPeople(req *site.Request) error {
	people, err := r.scorer.Staff()
	if err != nil && !errors.As(err, &req.Stale) {
		return site.Canceled(req.Ctx(), err)
	}
	q := req.R.URL.Query()
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
		if (m.Role == "" || string(p.Role) == m.Role) && (m.Team == "" || p.Team == m.Team) &&
			(m.Level == "" || string(p.Level) == m.Level) &&
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
	return r.site.Render(req, "people", "People", "/people", m)
}

// inTraining says whether a training is as pressing as that; what is escalated is overdue as well.
func inTraining(p risk.Standing, state string) bool {
	is := riskview.DueOfStanding(p, time.UTC).State
	return is == state || is == riskview.DueEscalated && state == riskview.DueOverdue
}
