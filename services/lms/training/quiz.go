package training

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/risk"
)

// MostAttempts is the most attempts at the quiz of a lesson.
const MostAttempts = 3

const passPercent = 75 // of the answers must be right

// needed is the least number of right answers that passes a quiz.
func needed(questions int) int { return (passPercent*questions + 99) / 100 }

// QuizView is the model of the page of a quiz.
type QuizView struct {
	ID        string
	Title     string
	Attempt   int
	Need      int
	Questions []quizRow
	Missing   []int // numbers of the questions without an answer, from 1
}

// quizRow is a question without the right answer.
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

// QuizOf is the quiz of a lesson with the chosen options: for each question an index, or a negative number for none.
// nil is a quiz without choices.
func QuizOf(t LessonRecord, chosen []int) QuizView {
	q := QuizView{ID: t.ID.String(), Title: t.Lesson.Title, Attempt: len(t.Attempts) + 1}
	q.Need = needed(len(t.Lesson.Quiz))
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

// openQuiz returns the lesson that the path names. If its quiz is not open, elsewhere is the path to redirect to.
func (tr *Training) openQuiz(req *site.Request) (t LessonRecord, elsewhere string, err error) {
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

// ShowQuiz shows the questions without the right answers.
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

// DoQuiz grades an attempt. An attempt that is sent twice counts once. 422 for an invalid form or missing answers.
func (tr *Training) DoQuiz(req *site.Request) error {
	t, elsewhere, err := tr.openQuiz(req)
	if err != nil {
		return err
	}
	if elsewhere != "" {
		return req.Redirect(elsewhere)
	}
	number, answers, err := readAnswers(req.R.PostForm, t.Lesson.Quiz)
	if err != nil {
		return err
	}
	if missing := slices.Contains(answers, -1); missing && number > len(t.Attempts) {
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
	event, err := tr.Store.grade(req.Ctx(), attemptOrder{
		Lesson: t.ID, Person: req.Viewer.Person, Number: number, Answers: answers, Before: before, At: at,
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return site.NotFound()
	case errors.Is(err, errAttempted), errors.Is(err, errFinished):
	case err != nil:
		return err
	case event != "":
		tr.outbox.Kick()
	}
	return req.Redirect("/training/" + t.ID.String() + "/result")
}

// readAnswers reads a quiz form: the number of the attempt and for each question the index of the option, or -1.
func readAnswers(form url.Values, quiz []lesson.Question) (number int, answers []int, err error) {
	number, err = strconv.Atoi(form.Get("attempt"))
	if err != nil || number < 1 || number > MostAttempts {
		return 0, nil, httpjson.Errorf(http.StatusUnprocessableEntity, "bad_attempt",
			"The form does not say which attempt it is. Open the quiz again.")
	}
	answers = make([]int, len(quiz))
	for i, q := range quiz {
		text := form.Get("q" + strconv.Itoa(i+1))
		if text == "" {
			answers[i] = -1
			continue
		}
		if answers[i], err = strconv.Atoi(text); err != nil || answers[i] < 0 || answers[i] >= len(q.Options) {
			return 0, nil, httpjson.Errorf(http.StatusUnprocessableEntity, "bad_answer",
				"Question %d has no such answer. Open the quiz again.", i+1)
		}
	}
	return number, answers, nil
}
