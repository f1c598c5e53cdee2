package training

import (
	"time"

	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/risk"
)

const scoreWithin = 2 * time.Second // how long the result waits for the new score

// ResultView is the model of the page of a result.
type ResultView struct {
	ID         string
	Module     risk.Module
	Title      string
	Attempt    Attempt
	Percent    float64
	Need       int
	Left       int
	Open       bool // the viewer can make another attempt
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
	Waiting    bool // the event is not delivered
	Unscored   bool // the event is delivered, and there is no score after it
	Teaches    []string
	Instructor bool
}

type answerRow struct {
	Number   int
	Question string
	Given    string
	Right    string // empty until the lesson is finished
	Why      string
	Correct  bool
}

// ShowResult shows the latest attempt, and after a passed or failed lesson the change of the score.
func (tr *Training) ShowResult(req *site.Request) error {
	t, err := tr.ownLesson(req)
	if err != nil {
		return err
	}
	if len(t.Attempts) == 0 {
		return req.Redirect("/training/" + t.ID.String())
	}
	undelivered := false
	if c := t.Completion; c != nil && c.After == nil {
		if t, undelivered, err = tr.awaitScore(req, c.Event); err != nil {
			return err
		}
	}
	m := ResultOf(t, req.Viewer)
	m.Waiting, m.Unscored = m.Waiting && undelivered, m.Waiting && !undelivered
	return tr.site.Render(req, "result", "Result", "/training", m)
}

// awaitScore waits for the delivery of a lesson's event, at most scoreWithin. It returns the lesson, and whether the
// event is still undelivered.
func (tr *Training) awaitScore(req *site.Request, event string) (t LessonRecord, undelivered bool, err error) {
	done, leave := tr.outbox.Expect(event)
	defer leave()
	left, err := tr.outbox.Undelivered(req.Ctx(), []string{event})
	if err == nil && left > 0 {
		tr.outbox.Kick()
		await(req.Ctx(), done, scoreWithin)
		left, err = tr.outbox.Undelivered(req.Ctx(), []string{event})
	}
	if err != nil {
		return t, false, err
	}
	t, err = tr.ownLesson(req) // after the query: a score is stored before its event counts as delivered
	return t, left > 0, err
}

// ResultOf is the latest attempt at a lesson for a viewer. It has the right answers only if the lesson is finished.
func ResultOf(t LessonRecord, viewer *site.Viewer) ResultView {
	m, _ := risk.ModuleByID(t.Module)
	last := t.Attempts[len(t.Attempts)-1]
	r := ResultView{
		ID:         t.ID.String(),
		Module:     m,
		Title:      t.Lesson.Title,
		Attempt:    last,
		Left:       MostAttempts - len(t.Attempts),
		Open:       t.State == StateReady && viewer.Learner(),
		Percent:    float64(last.Correct) / float64(last.Questions),
		Need:       needed(last.Questions),
		Passed:     last.Passed,
		Instructor: viewer.Instructor(),
	}
	for i, q := range t.Lesson.Quiz {
		row := answerRow{
			Number:   i + 1,
			Question: q.Question,
			Correct:  last.Answers[i] == q.Answer,
			Given:    q.Options[last.Answers[i]],
		}
		// While another attempt is possible, a wrong answer is marked without the right one.
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
