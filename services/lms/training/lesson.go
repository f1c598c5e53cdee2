// Package training serves lessons: the catalogue of modules, lessons that the LLM gateway writes about a person's acts,
// quizzes, certificates, the import of training records and exports.
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

// Training serves the pages and routes about lessons. Its methods are safe for concurrent use.
type Training struct {
	Store     *Store
	cfg       Config
	scorer    *riskclient.Client
	site      *site.Site
	outbox    *outbox.Outbox
	campaigns *phishing.Campaigns

	mu      sync.Mutex
	writing map[uuid.UUID]chan struct{} // lessons that the gateway is writing; a channel is closed when its lesson is done
}

// New returns a Training.
func New(
	cfg Config,
	db *store.Store,
	scorer *riskclient.Client,
	pages *site.Site,
	events *outbox.Outbox,
	campaigns *phishing.Campaigns,
) *Training {
	return &Training{
		Store: &Store{db}, cfg: cfg, scorer: scorer, site: pages, outbox: events, campaigns: campaigns,
		writing: map[uuid.UUID]chan struct{}{},
	}
}

const (
	mostLessons = 20                      // that one person may begin within an hour
	writeWithin = 75 * time.Second        // timeout of writing a lesson, with the gateway's retries
	showWithin  = 1500 * time.Millisecond // how long a page waits for a lesson before it shows progress
)

// OriginWords says by what a lesson was written.
func OriginWords(l lesson.Lesson) string {
	switch l.Origin {
	case lesson.Gemini:
		return "Written for you by " + l.Model
	case lesson.Stub:
		return "Written by the lab's stand-in for " + l.Model
	}
	return "Built-in lesson"
}

// fallbackWords says why a lesson is the built-in one.
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

// DoStart begins a lesson of a module, without one of the recommended module, and redirects to it. If the person has an
// open lesson of the module, it redirects to that one.
func (tr *Training) DoStart(req *site.Request) error {
	person := req.Viewer.Person
	module := req.R.PostForm.Get("module")
	if _, known := risk.ModuleByID(module); module != "" && !known {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "unknown_module", "The catalogue has no such module.")
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
	await(req.Ctx(), tr.WriteLesson(id), showWithin)
	return req.Redirect("/training/" + id.String())
}

// newLesson stores a new lesson of a module; 429 if the person has begun too many.
func (tr *Training) newLesson(req *site.Request, a risk.Assessment, module string) (uuid.UUID, error) {
	person := req.Viewer.Person
	n, err := tr.Store.lessonsSince(req.Ctx(), person, time.Hour)
	if err != nil {
		return uuid.Nil, err
	}
	if n >= mostLessons {
		return uuid.Nil, httpjson.Errorf(http.StatusTooManyRequests, "too_many_lessons",
			"You have begun %d lessons within an hour. Finish one of them, or come back later.", n).
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

// mostReasons is the most reasons that a lesson is about.
const mostReasons = 6

// lessonRequest is the request for a lesson of a module, with the reasons that the module teaches against. The subject
// is a pseudonym, and details contain no name of the roster.
func lessonRequest(subject string, a risk.Assessment, module string, people []risk.Standing) lesson.Request {
	req := lesson.Request{Subject: subject, Role: string(a.Role), Level: a.Level, Module: module, Language: "en"}
	m, _ := risk.ModuleByID(module)
	for _, r := range a.Reasons {
		if len(req.Reasons) == mostReasons || !slices.Contains(m.Teaches, r.Verb) && !phishing.Concerns(module, r) {
			continue
		}
		req.Reasons = append(
			req.Reasons,
			lesson.Reason{Verb: r.Verb, Count: min(r.Count, 1_000_000), Detail: Anonymise(r.Detail, people)},
		)
	}
	return req
}

// WriteLesson makes the gateway write a lesson that is not written yet. The channel is closed when it is done.
// Concurrent calls share one request.
func (tr *Training) WriteLesson(id uuid.UUID) <-chan struct{} {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if c, ok := tr.writing[id]; ok {
		return c
	}
	c := make(chan struct{})
	tr.writing[id] = c
	go func() {
		// Not the request's context: the learner may leave the page.
		ctx, cancel := context.WithTimeout(context.Background(), writeWithin)
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

// generate requests a lesson and stores it, or the built-in lesson if the gateway fails. It stores a refusal of the
// gateway, with the time of the next attempt, if the quota is used up.
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
		tr.cfg.Log.Warn("the gateway did not write the lesson; the built-in one is used",
			"lesson", id.String(), "error", err.Error())
		written = lesson.BuiltIn(t.Module)
		written.Fallback = lesson.ModelUnavailable
	}
	// The gateway may have used up the timeout, so storing the lesson has its own.
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), riskclient.AskWithin)
	defer cancel()
	return tr.Store.written(keep, id, written)
}

// askGateway requests a lesson from the gateway and validates it.
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
		return written, fmt.Errorf("read lesson: want module %q, not %q", req.Module, written.Module)
	}
	// The gateway validates lessons, too, but this service does not rely on it for what it shows.
	if err := written.Validate(); err != nil {
		return written, errors.New("read lesson: the lesson is not valid")
	}
	return written, nil
}

// await waits for c, at most for d.
func await(ctx context.Context, c <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ownLesson returns the lesson that the path names, to its learner or to an instructor. 404 for any other viewer.
func (tr *Training) ownLesson(req *site.Request) (LessonRecord, error) {
	id, err := uuid.Parse(req.R.PathValue("lesson"))
	if err != nil {
		return LessonRecord{}, site.NotFound()
	}
	t, err := tr.Store.lesson(req.Ctx(), id)
	if errors.Is(err, store.ErrNotFound) {
		return t, site.NotFound()
	}
	if err != nil {
		return t, err
	}
	if !req.Viewer.Instructor() && t.Person != req.Viewer.Person {
		return LessonRecord{}, tr.site.DenyAsNotFound(req, "not_own")
	}
	return t, nil
}

// LessonView is the model of the page of a lesson.
type LessonView struct {
	ID      string
	Module  risk.Module
	Lesson  lesson.Lesson // without the quiz
	Origin  string
	Why     string // why it is the built-in lesson; empty: it is not
	State   string
	Reasons []lesson.Reason
	Left    int
	Of      string // the learner's id, for an instructor
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
		await(req.Ctx(), tr.WriteLesson(t.ID), showWithin)
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
		return httpjson.Errorf(http.StatusTooManyRequests, "over_quota",
			"The quota for new lessons is used up at the moment. Begin again in a little while.").After(wait)
	}
	model.Lesson = *t.Lesson
	model.Lesson.Quiz = nil
	model.Origin = OriginWords(*t.Lesson)
	model.Why = fallbackWords[t.Lesson.Fallback]
	model.Minutes = minutesOf(*t.Lesson)
	return tr.site.Render(req, "lesson", t.Lesson.Title, "/training", model)
}

// minutesOf estimates the minutes that a lesson takes: 200 words a minute, and half a minute for each question.
func minutesOf(l lesson.Lesson) int {
	words := len(strings.Fields(l.Summary))
	for _, p := range l.Practices {
		words += len(strings.Fields(p.Why)) + len(strings.Fields(p.How))
	}
	return max(2, words/200+len(l.Quiz)/2+1)
}
