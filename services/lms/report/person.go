package report

import (
	"cmp"
	"errors"
	"net/url"
	"slices"
	"strconv"

	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/training"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
)

// personView is the model of a person's page.
type personView struct {
	riskview.View
	History []training.LessonRow
}

// ShowHome shows a learner their own risk, and redirects an instructor to the organisation's page.
func (r *Reports) ShowHome(req *site.Request) error {
	if req.Viewer.Instructor() {
		return req.Redirect("/organisation")
	}
	return r.showRisk(req, req.Viewer.Self, "/", "My risk")
}

// showRisk shows a person's risk to that person or an instructor. p is nil while the roster is unknown. While the risk
// scorer cannot be reached, the page has the training only.
func (r *Reports) showRisk(req *site.Request, p *risk.Standing, at, title string) error {
	lessons, err := r.training.Store.Lessons(req.Ctx(), personOf(req, p), 50)
	if err != nil {
		return err
	}
	model := personView{}
	if p == nil {
		err = req.Stale
	} else {
		model.Person = *p
		var a risk.Assessment
		if a, err = r.scorer.Risk(req.Ctx(), p.ID); err == nil {
			model.View = riskview.Explain(*p, a)
			model.Shorten()
		}
	}
	switch {
	case errors.Is(err, riskclient.ErrUnknownPerson):
		return r.site.DenyAsNotFound(req, "no_such_person")
	case err != nil:
		r.cfg.Log.Warn("show risk", "error", err.Error())
		req.MarkUnavailable()
		model.Missing = site.ScorerUnavailable + ", so your score cannot be shown. What you have learnt is safe."
	}
	if model.Own = req.Viewer.Learner(); !model.Own {
		model.Base = "/people/" + model.Person.ID
	}
	model.History = training.HistoryOf(lessons, words.Location(model.Person.Zone))
	training.LinkOpen(model.First, model.History)
	return r.site.Render(req, "risk", title, at, model)
}

func personOf(req *site.Request, p *risk.Standing) string {
	if p != nil {
		return p.ID
	}
	return req.Viewer.Person
}

// ShowPerson shows any person to an instructor, and redirects a learner to their own page. 403 for another person's.
func (r *Reports) ShowPerson(req *site.Request) error {
	id := req.R.PathValue("person")
	if !req.Viewer.Instructor() {
		if id == req.Viewer.Person {
			return req.Redirect("/")
		}
		r.site.RecordRefusal(req, req.Viewer.Person, "not_own")
		return site.NotOwn()
	}
	p, err := r.lookUp(req, id)
	if err != nil {
		return err
	}
	return r.showRisk(req, &p, "/people", p.Name)
}

// lookUp returns a person of the roster and writes an audit row that the instructor viewed this person.
func (r *Reports) lookUp(req *site.Request, id string) (risk.Standing, error) {
	people, err := r.scorer.People()
	if err != nil && !errors.As(err, &req.Stale) {
		return risk.Standing{}, site.Unavailable(err)
	}
	i := slices.IndexFunc(people, func(s risk.Standing) bool { return s.ID == id })
	if i < 0 {
		return risk.Standing{}, site.NotFound()
	}
	return people[i], r.store.Record(req.Ctx(), audited.Note("view", id, "", struct {
		By site.Principal `json:"by"`
	}{req.Viewer.Principal}))
}

// reasonView is the model of the page with the events of one reason, or of the pattern.
type reasonView struct {
	Person       risk.Standing
	Own          bool // the viewer is this person
	Title, Words string
	Part         int64
	Events       []riskview.EventRow
	From, To     int    // of All, from 1
	All, Light   int    // as in riskview.ReasonRow
	Home         string // path of the person's page
	First, Later string // paths of other pages of the list, if any
}

// patternReason is the name of the pattern in a path, where a reason has its verb.
const patternReason = "pattern"

// ShowOwnReason shows the viewer all events of one of their reasons.
func (r *Reports) ShowOwnReason(req *site.Request) error {
	if req.Viewer.Self == nil {
		return site.Unavailable(req.Stale)
	}
	return r.showReason(req, *req.Viewer.Self, "/")
}

// ShowPersonsReason shows an instructor all events of a person's reason.
func (r *Reports) ShowPersonsReason(req *site.Request) error {
	p, err := r.lookUp(req, req.R.PathValue("person"))
	if err != nil {
		return err
	}
	return r.showReason(req, p, "/people/"+p.ID)
}

// showReason shows the events of one reason, as many as fit on a page from ?from= on. 404 for a verb that is no reason.
func (r *Reports) showReason(req *site.Request, p risk.Standing, home string) error {
	from, err := offsetOf(req)
	if err != nil {
		return err
	}
	a, err := r.scorer.Risk(req.Ctx(), p.ID)
	if errors.Is(err, riskclient.ErrUnknownPerson) {
		return site.NotFound()
	}
	if err != nil {
		return site.Unavailable(err)
	}
	m, ok := reasonViewOf(riskview.Explain(p, a), req.R.PathValue("reason"))
	if !ok {
		return site.NotFound() // or it was a reason until a moment ago
	}
	m.Own, m.Home = req.Viewer.Learner(), home
	m.page(from, req.R.URL.Path)
	at := "/"
	if !m.Own {
		at = "/people"
	}
	return r.site.Render(req, "reason", m.Title, at, m)
}

// reasonViewOf is the reason of a verb, or the pattern; false if the view has neither.
func reasonViewOf(why riskview.View, name string) (reasonView, bool) {
	m := reasonView{Person: why.Person}
	isNamed := func(r riskview.ReasonRow) bool { return string(r.Verb) == name }
	if i := slices.IndexFunc(why.Reasons, isNamed); i >= 0 {
		r := why.Reasons[i]
		m.Title, m.Part, m.Events, m.Light = words.Sentence(risk.Words(r.Verb, r.Count)), r.Part, r.Events, r.Light
		m.Words = cmp.Or(r.Lasts, why.Weighs)
		return m, true
	}
	if p := why.Pattern; p != nil && name == patternReason {
		m.Title, m.Words, m.Part, m.Events = "Pattern: "+p.Name+", "+p.How, p.Words, p.Part, p.Events
		return m, true
	}
	return m, false
}

// page keeps the events that fit on the page that begins at from, and links to the others by path.
func (m *reasonView) page(from int, path string) {
	m.All = len(m.Events)
	from = min(from, max(0, m.All-1))
	m.Events = riskview.Fitting(m.Events[from:], riskview.TextOfPage)
	m.From, m.To = from+1, from+len(m.Events)
	if from > 0 {
		m.First = path
	}
	if m.To < m.All {
		m.Later = path + "?" + url.Values{"from": {strconv.Itoa(m.To)}}.Encode()
	}
}
