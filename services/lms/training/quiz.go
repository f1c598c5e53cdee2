package training

import (
	"errors"
	"net/http"
	"strconv"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/risk"
)

// MostAttempts is how often the quiz of one lesson may be handed in.
const MostAttempts = 3

const (
	passPercent = 75 // of the answers must be right
)

// enough says whether so many right answers pass.
func enough(correct, questions int) bool { return 100*correct >= passPercent*questions }

// QuizView is the model of the page of a quiz.
type QuizView struct {
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

// QuizOf is the quiz of a lesson, with the options that were chosen; nil: none were.
func QuizOf(t Taught, chosen []int) QuizView {
	q := QuizView{ID: t.ID.String(), Title: t.Lesson.Title, Attempt: len(t.Attempts) + 1}
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
func (tr *Training) openQuiz(req *site.Request) (t Taught, elsewhere string, err error) {
	t, err = tr.ownLesson(req)
	switch {
	case err != nil:
		return t, "", err
	case t.State == stateWriting, t.State == stateRefused:
		return t, "/training/" + t.ID.String(), nil
	case t.State != StateReady:
		return t, "/training/" + t.ID.String() + "/result", nil
	}
	return t, "", nil
}

// ShowQuiz shows the questions, without their key.
func (tr *Training) ShowQuiz(req *site.Request) error {
	t, elsewhere, err := tr.openQuiz(req)
	if err != nil {
		return err
	}
	if elsewhere != "" {
		return req.Redirect(elsewhere)
	}
	return tr.site.Render(req, "quiz", "Quiz", "/training", QuizOf(t, nil))
}

// DoQuiz grades an attempt. The same attempt sent twice counts once.
func (tr *Training) DoQuiz(req *site.Request) error {
	t, elsewhere, err := tr.openQuiz(req)
	if err != nil {
		return err
	}
	if elsewhere != "" {
		return req.Redirect(elsewhere)
	}
	number, err := strconv.Atoi(req.R.PostForm.Get("attempt"))
	if err != nil || number < 1 || number > MostAttempts {
		return httpjson.Errorf(
			http.StatusUnprocessableEntity,
			"bad_attempt",
			"The form does not say which attempt it is. Open the quiz again.",
		)
	}
	answers, missing := make([]int, len(t.Lesson.Quiz)), false
	for i, q := range t.Lesson.Quiz {
		text := req.R.PostForm.Get("q" + strconv.Itoa(i+1))
		if text == "" {
			answers[i], missing = -1, true
			continue
		}
		if answers[i], err = strconv.Atoi(text); err != nil || answers[i] < 0 || answers[i] >= len(q.Options) {
			return httpjson.Errorf(
				http.StatusUnprocessableEntity,
				"bad_answer",
				"Question %d has no such answer. Open the quiz again.",
				i+1,
			)
		}
	}
	if missing && number > len(t.Attempts) {
		req.Status = http.StatusUnprocessableEntity
		return tr.site.Render(req, "quiz", "Quiz", "/training", QuizOf(t, answers))
	}
	at, err := tr.scorer.NowIn(req.Ctx(), req.Viewer.Zone())
	if err != nil {
		return site.Unavailable(err)
	}
	var before *risk.Score
	if a, err := tr.scorer.Risk(req.Ctx(), req.Viewer.Person); err == nil {
		before = &a.Score
	}
	g, err := tr.Store.grade(req.Ctx(), t.ID, req.Viewer.Person, number, answers, before, at)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return site.NotFound()
	case errors.Is(err, errAttempted), errors.Is(err, errFinished):
	case err != nil:
		return err
	case g.Event != "":
		tr.outbox.Kick()
	}
	return req.Redirect("/training/" + t.ID.String() + "/result")
}
