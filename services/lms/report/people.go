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

const peopleShown = 50 // on a page

type peopleView struct {
	Query, Role, Team, Level string
	Roles                    []site.Choice
	Teams                    []site.Choice
	Levels                   []site.Choice
	Training                 []site.Choice
	Rows                     []standingRow
	Found, From, To          int
	Earlier, Later           string // paths of the pages before and after, if any
}

// ShowPeople lists people by search and filters, the highest score first. 400 for a page that is not a number.
func (r *Reports) ShowPeople(req *site.Request) error {
	people, err := r.scorer.Staff()
	if err != nil && !errors.As(err, &req.Stale) {
		return site.Canceled(req.Ctx(), err)
	}
	q := req.R.URL.Query()
	from, err := offsetOf(req)
	if err != nil {
		return err
	}
	filter := peopleFilter{
		find: strings.TrimSpace(q.Get("q")), role: q.Get("role"), team: q.Get("team"), level: q.Get("level"),
		training: q.Get("training"),
	}
	m := filter.view(people)
	found := slices.DeleteFunc(slices.Clone(people), func(p risk.Standing) bool { return !filter.matches(p) })
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

// offsetOf reads ?from=, the index of the first row of a page.
func offsetOf(req *site.Request) (int, error) {
	from, err := strconv.Atoi(cmp.Or(req.R.URL.Query().Get("from"), "0"))
	if err != nil || from < 0 {
		return 0, httpjson.Errorf(http.StatusBadRequest, "bad_number", "The list has no such page.")
	}
	return from, nil
}

// peopleFilter is what a person must match to be listed. Empty fields match everyone.
type peopleFilter struct{ find, role, team, level, training string }

func (f peopleFilter) matches(p risk.Standing) bool {
	find := strings.ToLower(f.find)
	return (f.role == "" || string(p.Role) == f.role) && (f.team == "" || p.Team == f.team) &&
		(f.level == "" || string(p.Level) == f.level) && (f.training == "" || inTraining(p, f.training)) &&
		(find == "" || strings.Contains(strings.ToLower(p.Name), find) || strings.Contains(p.ID, find) ||
			strings.Contains(strings.ToLower(p.Email), find))
}

// view is the form with the filter, without rows.
func (f peopleFilter) view(people []risk.Standing) peopleView {
	m := peopleView{Query: f.find, Role: f.role, Team: f.team, Level: f.level}
	roles, teams := map[string]string{}, map[string]string{}
	for _, p := range people {
		roles[string(p.Role)], teams[p.Team] = words.RoleName(p.Role), words.Sentence(p.Team)
	}
	m.Roles, m.Teams = site.Choices(roles, f.role), site.Choices(teams, f.team)
	for _, level := range slices.Backward(risk.Levels) {
		m.Levels = append(m.Levels,
			site.Choice{Value: string(level), Name: words.LevelName(level), Chosen: string(level) == f.level})
	}
	m.Training = []site.Choice{
		{Value: riskview.DueOverdue, Name: "Overdue", Chosen: f.training == riskview.DueOverdue},
		{Value: riskview.DueEscalated, Name: "Escalated", Chosen: f.training == riskview.DueEscalated},
	}
	return m
}

// inTraining reports whether a person's training is in a state. An escalated training is overdue, too.
func inTraining(p risk.Standing, state string) bool {
	is := riskview.DueOfStanding(p, time.UTC).State
	return is == state || is == riskview.DueEscalated && state == riskview.DueOverdue
}
