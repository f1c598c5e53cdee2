// Package training is the lessons: a catalogue, lessons that the gateway writes about what a person did, quizzes and
// their grades, certificates that anybody can verify, records from elsewhere, and what is exported of all of it.
package training

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/llmgateway/gatewayapi"
	"example.org/security-training/services/lms/outbox"
	"example.org/security-training/services/lms/phishing"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/risk"
)

// Config is what Training needs.
type Config struct {
	Gateway riskclient.Call  // writes lessons
	Home    string           // IRI under which exported statements name modules and accounts
	Now     func() time.Time // the wall clock
	Log     *slog.Logger
}

// Training serves lessons and what comes of them. Its methods are safe for concurrent use.
type Training struct {
	Store  *Store
	cfg    Config
	scorer *riskclient.Client
	site   *site.Site
	outbox *outbox.Outbox
	drills *phishing.Drills

	mu      sync.Mutex
	writing map[uuid.UUID]chan struct{} // lessons that the gateway is writing; closed when done
}

// New makes the training.
func New(
	cfg Config,
	db *store.Store,
	scorer *riskclient.Client,
	pages *site.Site,
	events *outbox.Outbox,
	drills *phishing.Drills,
) *Training {
	return &Training{
		Store: &Store{db}, cfg: cfg, scorer: scorer, site: pages, outbox: events, drills: drills,
		writing: map[uuid.UUID]chan struct{}{},
	}
}

const (
	mostLessons = 20                      // asked for by one person within an hour
	writeWithin = 75 * time.Second        // a lesson, with whatever the gateway tries
	showWithin  = 1500 * time.Millisecond // how long a page waits for a lesson before it shows progress
)

// OriginWords says who wrote a lesson.
func OriginWords(l lesson.Lesson) string {
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

// DoStart begins a lesson of a module, or of what would lower the score most, or finds the open one.
func (tr *Training) DoStart(req *site.Request) error {
	person := req.Viewer.Person
	module := req.R.PostForm.Get("module")
	if _, known := risk.ModuleByID(module); module != "" && !known {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "unknown_module", "There is no such module in the catalogue.")
	}
	if req.Viewer.Self == nil {
		return site.Unavailable(req.Stale)
	}
	a, err := tr.scorer.Risk(req.Ctx(), person)
	if err != nil {
		return site.Unavailable(err)
	}
	if module == "" {
		module = riskview.Recommended(a)
	}
	id, err := tr.Store.openLesson(req.Ctx(), person, module)
	if errors.Is(err, store.ErrNotFound) {
		id, err = tr.newLesson(req, a, module)
	}
	if err != nil {
		return err
	}
	tr.await(req.Ctx(), tr.WriteLesson(id), showWithin)
	return req.Redirect("/training/" + id.String())
}

func (tr *Training) newLesson(req *site.Request, a risk.Assessment, module string) (uuid.UUID, error) {
	person := req.Viewer.Person
	n, err := tr.Store.lessonsSince(req.Ctx(), person, time.Hour)
	if err != nil {
		return uuid.Nil, err
	}
	if n >= mostLessons {
		return uuid.Nil, httpjson.Errorf(http.StatusTooManyRequests, "too_many_lessons", "You have begun %d lessons within an hour. Finish one of them, or come back later.", n).
			After(10 * time.Minute)
	}
	subject, err := tr.Store.subject(req.Ctx(), person)
	if err != nil {
		return uuid.Nil, err
	}
	people, err := tr.scorer.People()
	if err != nil && people == nil {
		return uuid.Nil, site.Unavailable(err)
	}
	wanted := lessonRequest(subject, a, module, people)
	if err := wanted.Validate(); err != nil {
		return uuid.Nil, fmt.Errorf("ask for lesson: %w", err)
	}
	return tr.Store.begin(req.Ctx(), person, wanted, a.At)
}

// mostReasons is how many reasons a lesson is about.
const mostReasons = 6

// lessonRequest makes the request for a lesson of a module: the reasons that it is about, under a pseudonym and without any name
// of the roster.
func lessonRequest(subject string, a risk.Assessment, module string, people []risk.Standing) lesson.Request {
	req := lesson.Request{Subject: subject, Role: string(a.Role), Level: a.Level, Module: module, Language: "en"}
	m, _ := risk.ModuleByID(module)
	for _, r := range a.Reasons {
		if len(req.Reasons) == mostReasons || !slices.Contains(m.Teaches, r.Verb) && !phishing.OfDrill(module, r) {
			continue
		}
		req.Reasons = append(
			req.Reasons,
			lesson.Reason{Verb: r.Verb, Count: min(r.Count, 1_000_000), Detail: Anonymise(r.Detail, people)},
		)
	}
	return req
}

// WriteLesson has the gateway write a lesson that is not written yet; the channel is closed when that has ended. Asking
// twice writes once.
func (tr *Training) WriteLesson(id uuid.UUID) <-chan struct{} {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if c, ok := tr.writing[id]; ok {
		return c
	}
	c := make(chan struct{})
	tr.writing[id] = c
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), writeWithin) // the learner may look elsewhere meanwhile
		defer cancel()
		if err := tr.generate(ctx, id); err != nil {
			tr.cfg.Log.Error("write lesson", "lesson", id.String(), "error", err.Error())
		}
		tr.mu.Lock()
		delete(tr.writing, id)
		tr.mu.Unlock()
		close(c)
	}()
	return c
}

func (tr *Training) generate(ctx context.Context, id uuid.UUID) error {
	t, err := tr.Store.lesson(ctx, id)
	if err != nil || t.State != stateWriting {
		return err
	}
	written, err := tr.askGateway(ctx, t.Request)
	var answered *httpjson.Error
	switch {
	case err == nil:
	case errors.As(err, &answered) && answered.Status == http.StatusTooManyRequests:
		wait := max(answered.RetryAfter, time.Second)
		return tr.Store.refuse(ctx, id, tr.cfg.Now().Add(wait), answered.Code)
	default:
		tr.cfg.Log.Warn(
			"the gateway did not write the lesson; the built-in one is used",
			"lesson",
			id.String(),
			"error",
			err.Error(),
		)
		written = lesson.BuiltIn(t.Module)
		written.Fallback = lesson.ModelUnavailable
	}
	// The gateway may have taken all the time there was; keeping the lesson gets its own.
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), riskclient.AskWithin)
	defer cancel()
	return tr.Store.written(keep, id, written)
}

func (tr *Training) askGateway(ctx context.Context, req lesson.Request) (lesson.Lesson, error) {
	var written lesson.Lesson
	body, err := json.Marshal(req)
	if err != nil {
		return written, fmt.Errorf("encode lesson request: %w", err)
	}
	resp, err := tr.cfg.Gateway(ctx, http.MethodPost, gatewayapi.RouteGenerate.Path(), "application/json", body)
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
func (tr *Training) await(ctx context.Context, c <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ownLesson reads the lesson that the path names, for whoever may see it: the learner, or an instructor who reads.
func (tr *Training) ownLesson(req *site.Request) (Taught, error) {
	id, err := uuid.Parse(req.R.PathValue("lesson"))
	if err != nil {
		return Taught{}, site.NotFound()
	}
	t, err := tr.Store.lesson(req.Ctx(), id)
	if errors.Is(err, store.ErrNotFound) {
		return t, site.NotFound()
	}
	if err != nil {
		return t, err
	}
	if !req.Viewer.Instructor() && t.Person != req.Viewer.Person {
		return Taught{}, tr.site.DenyAsNotFound(req, "not_own")
	}
	return t, nil
}

// LessonView is the model of the page of a lesson.
type LessonView struct {
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

// ShowLesson shows a lesson, or that it is being written.
func (tr *Training) ShowLesson(req *site.Request) error {
	t, err := tr.ownLesson(req)
	if err != nil {
		return err
	}
	if t.State == stateWriting {
		tr.await(req.Ctx(), tr.WriteLesson(t.ID), showWithin)
		if t, err = tr.ownLesson(req); err != nil {
			return err
		}
	}
	m, _ := risk.ModuleByID(t.Module)
	model := LessonView{
		ID:      t.ID.String(),
		Module:  m,
		State:   t.State,
		Reasons: t.Request.Reasons,
		Left:    MostAttempts - len(t.Attempts),
	}
	if req.Viewer.Instructor() {
		model.Of = t.Person
	}
	switch t.State {
	case stateWriting:
		model.Note = noteAt(t.Made, tr.cfg.Now())
		return tr.site.Render(req, "writing", "Your lesson is being written", "/training", model)
	case stateRefused:
		wait := time.Duration(0)
		if t.Again != nil {
			wait = max(time.Second, t.Again.Sub(tr.cfg.Now()))
		}
		return httpjson.Errorf(http.StatusTooManyRequests, "over_quota", "So many lessons were written lately that the quota is used up. Begin again in a little while.").
			After(wait)
	}
	model.Lesson = *t.Lesson
	model.Lesson.Quiz = nil
	model.Origin = OriginWords(*t.Lesson)
	model.Why = fallbackWords[t.Lesson.Fallback]
	model.Minutes = minutesOf(*t.Lesson)
	return tr.site.Render(req, "lesson", t.Lesson.Title, "/training", model)
}

// minutesOf is how long a lesson takes to read and answer, at 200 words a minute and half a minute a question.
func minutesOf(l lesson.Lesson) int {
	words := len(strings.Fields(l.Summary))
	for _, p := range l.Practices {
		words += len(strings.Fields(p.Why)) + len(strings.Fields(p.How))
	}
	return max(2, words/200+len(l.Quiz)/2+1)
}
