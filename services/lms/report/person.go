package report

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/training"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
)

// personView is a person's page.
type personView struct {
	riskview.View
	History []training.LessonRow
}

// ShowHome shows learners their own risk, and leads an instructor to the organisation's.
func (r *Reports) ShowHome(req *site.Request) error {
	if req.Viewer.Instructor() {
		return req.Redirect("/organisation")
	}
	return r.showRisk(req, req.Viewer.Self, "/", "My risk")
}

// showRisk shows one person's risk to that person or an instructor. While the scorer is away it says so, and keeps the
// rest.
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
		req.Status = 503
		req.W.Header().Set("Retry-After", "5")
		model.Away = "The risk scorer does not answer at the moment, so your score cannot be shown. What you have learnt is safe."
	}
	if model.Mine = req.Viewer.Learner(); !model.Mine {
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

// ShowPerson shows anybody to an instructor, and everybody their own page.
func (r *Reports) ShowPerson(req *site.Request) error {
	id := req.R.PathValue("person")
	if !req.Viewer.Instructor() {
		if id == req.Viewer.Person {
			return req.Redirect("/")
		}
		r.site.RecordRefusal(req, req.Viewer.Person, "not_own")
		return site.NotOwn()
	}
	p, err := r.lookAt(req, id)
	if err != nil {
		return err
	}
	return r.showRisk(req, &p, "/people", p.Name)
}

// lookAt is somebody of the roster, for an instructor. That they looked is in the audit.
func (r *Reports) lookAt(req *site.Request, id string) (risk.Standing, error) {
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

// reasonView is all events of one reason, or of the pattern, as many at a time as fit on a page.
type reasonView struct {
	Person       risk.Standing
	Mine         bool
	Title, Words string
	Part         int64
	Events       []riskview.EventRow
	From, To     int // of how many
	All, Light   int
	Home         string // the page that it belongs to
	First, Later string // addresses of other pages, if there are any
}

// patternReason stands for the pattern where a verb stands for a reason.
const patternReason = "pattern"

// ShowOwnReason shows the viewer all events of one of their reasons.
func (r *Reports) ShowOwnReason(req *site.Request) error {
	if req.Viewer.Self == nil {
		return site.Unavailable(req.Stale)
	}
	return r.showReason(req, *req.Viewer.Self, "/")
}

// ShowPersonsReason shows an instructor all events of somebody's reason.
func (r *Reports) ShowPersonsReason(req *site.Request) error {
	p, err := r.lookAt(req, req.R.PathValue("person"))
	if err != nil {
		return err
	}
	return r.showReason(req, p, "/people/"+p.ID)
}

func (r *Reports) showReason(req *site.Request, p risk.Standing, home string) error {
	from, err := strconv.Atoi(cmp.Or(req.R.URL.Query().Get("from"), "0"))
	if err != nil || from < 0 {
		return httpjson.Errorf(http.StatusBadRequest, "bad_number", "There is no such page of the list.")
	}
	a, err := r.scorer.Risk(req.Ctx(), p.ID)
	if errors.Is(err, riskclient.ErrUnknownPerson) {
		return site.NotFound()
	}
	if err != nil {
		return site.Unavailable(err)
	}
	why := riskview.Explain(p, a)
	m := reasonView{Person: p, Mine: req.Viewer.Learner(), Home: home}
	name := req.R.PathValue("reason")
	if i := slices.IndexFunc(why.Reasons, func(r riskview.ReasonRow) bool { return string(r.Verb) == name }); i >= 0 {
		r := why.Reasons[i]
		m.Title, m.Part, m.Events, m.Light = words.Sentence(risk.Words(r.Verb, r.Count)), r.Part, r.Events, r.Light
		m.Words = cmp.Or(r.Lasts, why.Weighs)
	} else if name == patternReason && why.Pattern != nil {
		m.Title, m.Words, m.Part, m.Events = "Pattern: "+why.Pattern.Name+", "+why.Pattern.How, why.Pattern.Words, why.Pattern.Part, why.Pattern.Events
	} else {
		return site.NotFound() // also what was a reason a moment ago
	}
	m.All = len(m.Events)
	from = min(from, max(0, m.All-1))
	m.Events = riskview.Fitting(m.Events[from:], riskview.TextOfPage)
	m.From, m.To = from+1, from+len(m.Events)
	if from > 0 {
		m.First = req.R.URL.Path
	}
	if m.To < m.All {
		m.Later = req.R.URL.Path + "?" + url.Values{"from": {strconv.Itoa(m.To)}}.Encode()
	}
	at := "/"
	if !m.Mine {
		at = "/people"
	}
	return r.site.Render(req, "reason", m.Title, at, m)
}
