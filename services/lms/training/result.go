package training

import (
	"time"

	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/risk"
)

const (
	scoreWithin = 2 * time.Second // how long the result waits for the new score
)

// ResultView is the model of the page of a result.
type ResultView struct {
	ID         string
	Module     risk.Module
	Title      string
	Attempt    Attempt
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

// ShowResult shows the latest attempt, and what passing did to the score once the scorer has said so.
func (tr *Training) ShowResult(req *site.Request) error {
	t, err := tr.ownLesson(req)
	if err != nil {
		return err
	}
	if len(t.Attempts) == 0 {
		return req.Redirect("/training/" + t.ID.String())
	}
	owed := false
	if c := t.Completion; c != nil && c.After == nil {
		if t, owed, err = tr.awaitScore(req, c.Event); err != nil {
			return err
		}
	}
	m := ResultOf(t, req.Viewer)
	m.Waiting, m.Unscored = m.Waiting && owed, m.Waiting && !owed
	return tr.site.Render(req, "result", "Result", "/training", m)
}

// awaitScore waits a moment for the score after the lesson that the path names, and says whether the scorer has yet to
// hear of it.
func (tr *Training) awaitScore(req *site.Request, event string) (t Taught, owed bool, err error) {
	done, leave := tr.outbox.Expect(event)
	defer leave()
	left, err := tr.outbox.Undelivered(req.Ctx(), []string{event})
	if err == nil && left > 0 {
		tr.outbox.Kick()
		tr.await(req.Ctx(), done, scoreWithin)
		left, err = tr.outbox.Undelivered(req.Ctx(), []string{event})
	}
	if err != nil {
		return t, false, err
	}
	t, err = tr.ownLesson(req) // after it: a score is kept before its event counts as delivered
	return t, left > 0, err
}

// ResultOf is the latest attempt at a lesson as who may see it. The right answers are shown once the lesson is
// finished.
func ResultOf(t Taught, who *site.Viewer) ResultView {
	m, _ := risk.ModuleByID(t.Module)
	last := t.Attempts[len(t.Attempts)-1]
	r := ResultView{
		ID: t.ID.String(), Module: m, Title: t.Lesson.Title, Attempt: last, Left: MostAttempts - len(t.Attempts), Open: t.State == StateReady && who.Learner(),
		Percent: float64(
			last.Correct,
		) / float64(
			last.Questions,
		), Need: (passPercent*last.Questions + 99) / 100, Passed: last.Passed, Instructor: who.Instructor(),
	}
	for i, q := range t.Lesson.Quiz {
		row := answerRow{
			Number:   i + 1,
			Question: q.Question,
			Correct:  last.Answers[i] == q.Answer,
			Given:    q.Options[last.Answers[i]],
		}
		// While another attempt is open, what was wrong is named and the right answer is not.
		if t.State != StateReady {
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
