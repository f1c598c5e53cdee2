package lms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/phishing"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

const (
	mostAttempts = 3  // at one lesson's quiz
	mostLessons  = 20 // asked for by one person within an hour
	passPercent  = 75 // of the answers must be right

	writeWithin = 75 * time.Second        // a lesson, with whatever the gateway tries
	showWithin  = 1500 * time.Millisecond // how long a page waits for a lesson before it shows progress
	scoreWithin = 2 * time.Second         // how long the result waits for the new score
)

// enough says whether so many right answers pass.
func enough(correct, questions int) bool { return 100*correct >= passPercent*questions }

type trainingView struct {
	Away      string
	Due       riskview.Due
	Escalated string // what that means, if it is
	Known     bool   // whether Due is
	First     *riskview.LowerRow
	Score     risk.Score
	Level     risk.Level
	Catalogue []moduleRow
	History   []lessonRow
}

type moduleRow struct {
	risk.Module
	About []string // what it teaches, in words
	Yours int      // how many of the person's reasons it is about
	Open  string   // id of the open lesson
	Last  *lessonRow
	After *risk.Score // what passing it would give
	Drop  int64
}

type lessonRow struct {
	ID, Module, State string
	Origin            string
	Asked             time.Time
	Tries             int
	Completion        *completion
	Drop              int64
	Ended             time.Time
	Percent           float64
}

func rowOf(t taught, loc *time.Location) lessonRow {
	r := lessonRow{ID: t.ID.String(), Module: t.Module, State: t.State, Asked: t.Asked.In(loc), Tries: len(t.Attempts), Completion: t.Completion}
	if t.Lesson != nil {
		r.Origin = originWords(*t.Lesson)
	}
	if c := t.Completion; c != nil {
		r.Ended, r.Percent = c.At.In(loc), c.Share
		if c.Before != nil && c.After != nil {
			r.Drop = c.After.Micro() - c.Before.Micro()
		}
	}
	return r
}

func historyOf(all []taught, loc *time.Location) []lessonRow {
	rows := make([]lessonRow, 0, len(all))
	for _, t := range all {
		rows = append(rows, rowOf(t, loc))
	}
	return rows
}

// linkOpen notes at an act which of the lessons is the open one about it, if there is one.
func linkOpen(l *riskview.LowerRow, lessons []lessonRow) {
	if l == nil {
		return
	}
	for _, h := range lessons {
		if h.Module == l.ID && (h.State == stateReady || h.State == stateWriting) {
			l.Open = h.ID
		}
	}
}

// originWords says who wrote a lesson.
func originWords(l lesson.Lesson) string {
	switch l.Origin {
	case lesson.Gemini:
		return "Written for you by " + l.Model
	case lesson.Stub:
		return "Written by the lab's stand-in for " + l.Model
	}
	return "Built-in lesson"
}

var fallbackWords = map[lesson.Fallback]string{
	lesson.ModelQuota:       "the model's quota is used up",
	lesson.ModelSafety:      "the model declined to write it",
	lesson.ModelMaxTokens:   "the model's answer was cut off",
	lesson.ModelMalformed:   "the model's answer was not a lesson",
	lesson.ModelTimeout:     "the model took too long",
	lesson.ModelUnavailable: "the model cannot be reached",
	lesson.ModelRedirect:    "the model's address pointed elsewhere",
	lesson.ModelRefused:     "the model refused the request",
}

func (l *LMS) showTraining(v *site.Request) error {
	loc := words.Location(v.Viewer.Zone())
	lessons, err := l.store.lessons(v.Ctx(), v.Viewer.Person, 100)
	if err != nil {
		return err
	}
	m := trainingView{History: historyOf(lessons, loc)}
	var explained riskview.View
	a, err := l.scorer.Risk(v.Ctx(), v.Viewer.Person)
	if err == nil && v.Viewer.Self != nil {
		explained = riskview.Explain(*v.Viewer.Self, a)
		m.Due, m.Known, m.First, m.Score, m.Level = explained.Due, true, explained.First, a.Score, a.Level
		if m.Due.State == riskview.DueEscalated {
			m.Escalated = v.Viewer.Escalated(a.Escalation)
		}
	} else {
		m.Away = "The risk scorer does not answer at the moment, so no new lesson can be chosen for you. Open lessons and what you have learnt are here."
		v.Status = http.StatusServiceUnavailable
		v.W.Header().Set("Retry-After", "5")
	}
	linkOpen(m.First, m.History)
	for _, module := range risk.Modules {
		row := moduleRow{Module: module}
		for _, t := range module.Teaches {
			row.About = append(row.About, risk.Words(t, 1))
			if slices.ContainsFunc(a.Reasons, func(r risk.Reason) bool { return r.Verb == t }) {
				row.Yours++
			}
		}
		for i := range m.History {
			h := &m.History[i]
			if h.Module != module.ID {
				continue
			}
			if h.State == stateReady || h.State == stateWriting {
				row.Open = h.ID
			} else if row.Last == nil && h.Completion != nil {
				row.Last = h
			}
		}
		for _, x := range explained.Lower {
			if x.Act == risk.PassModule && x.ID == module.ID {
				row.After, row.Drop = &x.After, x.Drop
			}
		}
		m.Catalogue = append(m.Catalogue, row)
	}
	slices.SortStableFunc(m.Catalogue, func(a, b moduleRow) int {
		switch {
		case a.Drop < b.Drop:
			return -1
		case a.Drop > b.Drop:
			return 1
		}
		return 0
	})
	return l.site.Render(v, "training", "My training", "/training", m)
}

// doStart begins a lesson of a module, or of what would lower the score most, or finds the open one.
func (l *LMS) doStart(v *site.Request) error {
	person := v.Viewer.Person
	module := v.R.PostForm.Get("module")
	if _, known := risk.ModuleByID(module); module != "" && !known {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "unknown_module", "There is no such module in the catalogue.")
	}
	if v.Viewer.Self == nil {
		return site.Unavailable(v.Stale)
	}
	a, err := l.scorer.Risk(v.Ctx(), person)
	if err != nil {
		return site.Unavailable(err)
	}
	if module == "" {
		module = riskview.Recommended(a)
	}
	id, err := l.store.openLesson(v.Ctx(), person, module)
	if errors.Is(err, store.ErrNotFound) {
		id, err = l.newLesson(v, a, module)
	}
	if err != nil {
		return err
	}
	l.await(v.Ctx(), l.writeLesson(id), showWithin)
	return v.Redirect("/training/" + id.String())
}

func (l *LMS) newLesson(v *site.Request, a risk.Assessment, module string) (uuid.UUID, error) {
	person := v.Viewer.Person
	n, err := l.store.lessonsSince(v.Ctx(), person, time.Hour)
	if err != nil {
		return uuid.Nil, err
	}
	if n >= mostLessons {
		return uuid.Nil, httpjson.Errorf(http.StatusTooManyRequests, "too_many_lessons", "You have begun %d lessons within an hour. Finish one of them, or come back later.", n).After(10 * time.Minute)
	}
	subject, err := l.store.subject(v.Ctx(), person)
	if err != nil {
		return uuid.Nil, err
	}
	people, err := l.scorer.People()
	if err != nil && people == nil {
		return uuid.Nil, site.Unavailable(err)
	}
	req := ask(subject, a, module, people)
	if err := req.Validate(); err != nil {
		return uuid.Nil, fmt.Errorf("ask for lesson: %w", err)
	}
	return l.store.begin(v.Ctx(), person, req, a.At)
}

// mostReasons is how many reasons a lesson is about.
const mostReasons = 6

// ask makes the request for a lesson of a module: the reasons that it is about, under a pseudonym and without any name of
// the roster.
func ask(subject string, a risk.Assessment, module string, people []risk.Standing) lesson.Request {
	req := lesson.Request{Subject: subject, Role: string(a.Role), Level: a.Level, Module: module, Language: "en"}
	m, _ := risk.ModuleByID(module)
	for _, r := range a.Reasons {
		if len(req.Reasons) == mostReasons || !slices.Contains(m.Teaches, r.Verb) && !phishing.OfDrill(module, r) {
			continue
		}
		req.Reasons = append(req.Reasons, lesson.Reason{Verb: r.Verb, Count: min(r.Count, 1_000_000), Detail: anonymous(r.Detail, people)})
	}
	return req
}

// anonymous is a detail without names, addresses or accounts of anybody in the roster, in at most 500 bytes.
func anonymous(detail string, people []risk.Standing) string {
	detail = strings.ToValidUTF8(detail, "")
	low := strings.ToLower(detail)
	if len(low) != len(detail) {
		return "" // a script whose letters change their length: better nothing than an offset that is wrong
	}
	hide := func(name string) {
		name = strings.ToLower(name)
		if len(name) < 3 {
			return
		}
		for {
			i := strings.Index(low, name)
			if i < 0 {
				return
			}
			const mark = "[person]"
			detail = detail[:i] + mark + detail[i+len(name):]
			low = low[:i] + strings.Repeat("\x00", len(mark)) + low[i+len(name):]
		}
	}
	for _, p := range people {
		hide(p.Email)
		for _, account := range p.Accounts {
			_, name, _ := strings.Cut(account, ":")
			hide(name)
		}
		hide(p.Name)
		hide(p.ID)
		for _, word := range strings.Fields(p.Name) {
			if len(word) >= 4 && strings.Contains(low, strings.ToLower(word)) {
				hide(word)
			}
		}
	}
	for len(detail) > 500 {
		detail = strings.ToValidUTF8(detail[:500], "")
	}
	return detail
}

// writeLesson has the gateway write a lesson that is not written yet; the channel is closed when that has ended. Asking
// twice writes once.
func (l *LMS) writeLesson(id uuid.UUID) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.writing[id]; ok {
		return c
	}
	c := make(chan struct{})
	l.writing[id] = c
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), writeWithin) // the learner may look elsewhere meanwhile
		defer cancel()
		if err := l.generate(ctx, id); err != nil {
			l.cfg.Log.Error("write lesson", "lesson", id.String(), "error", err.Error())
		}
		l.mu.Lock()
		delete(l.writing, id)
		l.mu.Unlock()
		close(c)
	}()
	return c
}

func (l *LMS) generate(ctx context.Context, id uuid.UUID) error {
	t, err := l.store.lesson(ctx, id)
	if err != nil || t.State != stateWriting {
		return err
	}
	written, err := l.askGateway(ctx, t.Request)
	var answered *httpjson.Error
	switch {
	case err == nil:
	case errors.As(err, &answered) && answered.Status == http.StatusTooManyRequests:
		wait := max(answered.RetryAfter, time.Second)
		return l.store.refuse(ctx, id, l.cfg.Now().Add(wait), answered.Code)
	default:
		l.cfg.Log.Warn("the gateway did not write the lesson; the built-in one is used", "lesson", id.String(), "error", err.Error())
		written = lesson.BuiltIn(t.Module)
		written.Fallback = lesson.ModelUnavailable
	}
	// The gateway may have taken all the time there was; keeping the lesson gets its own.
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), riskclient.AskWithin)
	defer cancel()
	return l.store.written(keep, id, written)
}

func (l *LMS) askGateway(ctx context.Context, req lesson.Request) (lesson.Lesson, error) {
	var written lesson.Lesson
	body, err := json.Marshal(req)
	if err != nil {
		return written, fmt.Errorf("encode lesson request: %w", err)
	}
	resp, err := l.cfg.Gateway(ctx, http.MethodPost, "/v1/generate", "application/json", body)
	if err != nil {
		return written, err
	}
	if err := httpjson.ReadAnswer(resp, 1<<20, &written); err != nil {
		return written, err
	}
	if written.Module != req.Module {
		return written, fmt.Errorf("read lesson: it is of module %q, not %q", written.Module, req.Module)
	}
	// The gateway has checked it; what is shown to people is checked where it is shown.
	if err := written.Validate(); err != nil {
		return written, errors.New("read lesson: not a valid lesson")
	}
	return written, nil
}

// await waits for c, at most for d.
func (l *LMS) await(ctx context.Context, c <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ownLesson reads the lesson that the path names, for whoever may see it: the learner, or an instructor who reads.
func (l *LMS) ownLesson(v *site.Request) (taught, error) {
	id, err := uuid.Parse(v.R.PathValue("lesson"))
	if err != nil {
		return taught{}, site.NotFound()
	}
	t, err := l.store.lesson(v.Ctx(), id)
	if errors.Is(err, store.ErrNotFound) {
		return t, site.NotFound()
	}
	if err != nil {
		return t, err
	}
	if !v.Viewer.Instructor() && t.Person != v.Viewer.Person {
		return taught{}, l.site.DenyAsNotFound(v, "not_own")
	}
	return t, nil
}

type lessonView struct {
	ID      string
	Module  risk.Module
	Lesson  lesson.Lesson // without the quiz
	Origin  string
	Why     string // why it is a built-in one
	State   string
	Reasons []lesson.Reason
	Left    int
	Of      string // whose it is, for an instructor
	Minutes int
	Note    progressNote // while it is being written
}

func (l *LMS) showLesson(v *site.Request) error {
	t, err := l.ownLesson(v)
	if err != nil {
		return err
	}
	if t.State == stateWriting {
		l.await(v.Ctx(), l.writeLesson(t.ID), showWithin)
		if t, err = l.ownLesson(v); err != nil {
			return err
		}
	}
	m, _ := risk.ModuleByID(t.Module)
	model := lessonView{ID: t.ID.String(), Module: m, State: t.State, Reasons: t.Request.Reasons, Left: mostAttempts - len(t.Attempts)}
	if v.Viewer.Instructor() {
		model.Of = t.Person
	}
	switch t.State {
	case stateWriting:
		model.Note = noteAt(t.Made, l.cfg.Now())
		return l.site.Render(v, "writing", "Your lesson is being written", "/training", model)
	case stateRefused:
		wait := time.Duration(0)
		if t.Again != nil {
			wait = max(time.Second, t.Again.Sub(l.cfg.Now()))
		}
		return httpjson.Errorf(http.StatusTooManyRequests, "over_quota", "So many lessons were written lately that the quota is used up. Begin again in a little while.").After(wait)
	}
	model.Lesson = *t.Lesson
	model.Lesson.Quiz = nil
	model.Origin = originWords(*t.Lesson)
	model.Why = fallbackWords[t.Lesson.Fallback]
	model.Minutes = minutesOf(*t.Lesson)
	return l.site.Render(v, "lesson", t.Lesson.Title, "/training", model)
}

// minutesOf is how long a lesson takes to read and answer, at 200 words a minute and half a minute a question.
func minutesOf(l lesson.Lesson) int {
	words := len(strings.Fields(l.Summary))
	for _, p := range l.Practices {
		words += len(strings.Fields(p.Why)) + len(strings.Fields(p.How))
	}
	return max(2, words/200+len(l.Quiz)/2+1)
}

type quizView struct {
	ID        string
	Title     string
	Attempt   int
	Need      int
	Questions []quizRow
	Missing   []int // numbers of questions without an answer, from 1
}

// quizRow is a question without its key.
type quizRow struct {
	Number   int
	Question string
	Options  []optionRow
	Missing  bool
}

type optionRow struct {
	Number int
	Text   string
	Chosen bool
}

func quizOf(t taught, chosen []int) quizView {
	q := quizView{ID: t.ID.String(), Title: t.Lesson.Title, Attempt: len(t.Attempts) + 1}
	n := len(t.Lesson.Quiz)
	q.Need = (passPercent*n + 99) / 100
	for i, x := range t.Lesson.Quiz {
		row := quizRow{Number: i + 1, Question: x.Question}
		for j, o := range x.Options {
			row.Options = append(row.Options, optionRow{Number: j, Text: o, Chosen: chosen != nil && chosen[i] == j})
		}
		if chosen != nil && chosen[i] < 0 {
			row.Missing = true
			q.Missing = append(q.Missing, i+1)
		}
		q.Questions = append(q.Questions, row)
	}
	return q
}

// openQuiz is a lesson whose quiz is open, or where to go instead.
func (l *LMS) openQuiz(v *site.Request) (t taught, elsewhere string, err error) {
	t, err = l.ownLesson(v)
	switch {
	case err != nil:
		return t, "", err
	case t.State == stateWriting, t.State == stateRefused:
		return t, "/training/" + t.ID.String(), nil
	case t.State != stateReady:
		return t, "/training/" + t.ID.String() + "/result", nil
	}
	return t, "", nil
}

func (l *LMS) showQuiz(v *site.Request) error {
	t, elsewhere, err := l.openQuiz(v)
	if err != nil {
		return err
	}
	if elsewhere != "" {
		return v.Redirect(elsewhere)
	}
	return l.site.Render(v, "quiz", "Quiz", "/training", quizOf(t, nil))
}

// doQuiz grades an attempt. The same attempt sent twice counts once.
func (l *LMS) doQuiz(v *site.Request) error {
	t, elsewhere, err := l.openQuiz(v)
	if err != nil {
		return err
	}
	if elsewhere != "" {
		return v.Redirect(elsewhere)
	}
	number, err := strconv.Atoi(v.R.PostForm.Get("attempt"))
	if err != nil || number < 1 || number > mostAttempts {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_attempt", "The form does not say which attempt it is. Open the quiz again.")
	}
	answers, missing := make([]int, len(t.Lesson.Quiz)), false
	for i, q := range t.Lesson.Quiz {
		text := v.R.PostForm.Get("q" + strconv.Itoa(i+1))
		if text == "" {
			answers[i], missing = -1, true
			continue
		}
		if answers[i], err = strconv.Atoi(text); err != nil || answers[i] < 0 || answers[i] >= len(q.Options) {
			return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_answer", "Question %d has no such answer. Open the quiz again.", i+1)
		}
	}
	if missing && number > len(t.Attempts) {
		v.Status = http.StatusUnprocessableEntity
		return l.site.Render(v, "quiz", "Quiz", "/training", quizOf(t, answers))
	}
	at, err := l.scorer.NowIn(v.Ctx(), v.Viewer.Zone())
	if err != nil {
		return site.Unavailable(err)
	}
	var before *risk.Score
	if a, err := l.scorer.Risk(v.Ctx(), v.Viewer.Person); err == nil {
		before = &a.Score
	}
	g, err := l.store.grade(v.Ctx(), t.ID, v.Viewer.Person, number, answers, before, at)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return site.NotFound()
	case errors.Is(err, errAttempted), errors.Is(err, errFinished):
	case err != nil:
		return err
	case g.Event != "":
		l.outbox.Kick()
	}
	return v.Redirect("/training/" + t.ID.String() + "/result")
}

type resultView struct {
	ID         string
	Module     risk.Module
	Title      string
	Attempt    attempt
	Percent    float64
	Need       int
	Left       int
	Open       bool // another attempt is possible
	Passed     bool
	Rows       []answerRow
	Event      string
	Before     *risk.Score
	After      *risk.Score
	Drop       int64
	BeforeBar  chart.Share
	AfterBar   chart.Share
	LevelThen  risk.Level
	LevelNow   risk.Level
	Waiting    bool // for the scorer
	Unscored   bool // the scorer has heard of it, and has no score of the person
	Teaches    []string
	Instructor bool
}

type answerRow struct {
	Number   int
	Question string
	Given    string
	Right    string // shown once the lesson is finished
	Why      string
	Correct  bool
}

func (l *LMS) showResult(v *site.Request) error {
	t, err := l.ownLesson(v)
	if err != nil {
		return err
	}
	if len(t.Attempts) == 0 {
		return v.Redirect("/training/" + t.ID.String())
	}
	owed := false
	if c := t.Completion; c != nil && c.After == nil {
		if t, owed, err = l.awaitScore(v, c.Event); err != nil {
			return err
		}
	}
	m := resultOf(t, v.Viewer)
	m.Waiting, m.Unscored = m.Waiting && owed, m.Waiting && !owed
	return l.site.Render(v, "result", "Result", "/training", m)
}

// awaitScore waits a moment for the score after the lesson that the path names, and says whether the scorer has yet to hear of it.
func (l *LMS) awaitScore(v *site.Request, event string) (t taught, owed bool, err error) {
	done, leave := l.outbox.Expect(event)
	defer leave()
	left, err := l.outbox.Undelivered(v.Ctx(), []string{event})
	if err == nil && left > 0 {
		l.outbox.Kick()
		l.await(v.Ctx(), done, scoreWithin)
		left, err = l.outbox.Undelivered(v.Ctx(), []string{event})
	}
	if err != nil {
		return t, false, err
	}
	t, err = l.ownLesson(v) // after it: a score is kept before its event counts as delivered
	return t, left > 0, err
}

func resultOf(t taught, who *site.Viewer) resultView {
	m, _ := risk.ModuleByID(t.Module)
	last := t.Attempts[len(t.Attempts)-1]
	r := resultView{
		ID: t.ID.String(), Module: m, Title: t.Lesson.Title, Attempt: last, Left: mostAttempts - len(t.Attempts), Open: t.State == stateReady && who.Learner(),
		Percent: float64(last.Correct) / float64(last.Questions), Need: (passPercent*last.Questions + 99) / 100, Passed: last.Passed, Instructor: who.Instructor(),
	}
	for i, q := range t.Lesson.Quiz {
		row := answerRow{Number: i + 1, Question: q.Question, Correct: last.Answers[i] == q.Answer, Given: q.Options[last.Answers[i]]}
		// While another attempt is open, what was wrong is named and the right answer is not.
		if t.State != stateReady {
			row.Right, row.Why = q.Options[q.Answer], q.Why
		} else if row.Correct {
			row.Why = q.Why
		}
		r.Rows = append(r.Rows, row)
	}
	for _, verb := range m.Teaches {
		r.Teaches = append(r.Teaches, risk.Words(verb, 1))
	}
	c := t.Completion
	if c == nil {
		return r
	}
	levels := chart.BoundsOf(chart.ProfileOf(risk.Default).Levels)
	r.Event, r.Before, r.After, r.Waiting = c.Event, c.Before, c.After, c.After == nil
	if c.Before != nil {
		r.BeforeBar, r.LevelThen = chart.Bar(c.Before.Float(), "before"), levels.Level(*c.Before)
	}
	if c.After != nil {
		r.AfterBar, r.LevelNow = chart.Bar(c.After.Float(), "after"), levels.Level(*c.After)
	}
	if c.Before != nil && c.After != nil {
		r.Drop = c.After.Micro() - c.Before.Micro()
	}
	return r
}
