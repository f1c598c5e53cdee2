package training

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/risk"
)

// quizOf has n questions, whose right answer is option 1.
func quizOf(n int) []lesson.Question {
	quiz := make([]lesson.Question, n)
	for i := range quiz {
		quiz[i] = lesson.Question{Options: []string{"a", "b"}, Answer: 1}
	}
	return quiz
}

// answersOf has right answers first, then wrong ones.
func answersOf(right, wrong int) []int {
	return append(slices.Repeat([]int{1}, right), slices.Repeat([]int{0}, wrong)...)
}

func TestAnAttemptPassesFromThreeQuartersOnAndTheLastOneEndsTheLesson(t *testing.T) {
	for _, c := range []struct {
		right, wrong, done int
		passed             bool
		state              string
		verb               activity.Verb // of the event; empty: none
	}{
		{4, 0, 0, true, statePassed, activity.TrainingPassed},
		{3, 1, 0, true, statePassed, activity.TrainingPassed},
		{2, 2, 0, false, StateReady, ""},
		{5, 2, 0, false, StateReady, ""},
		{6, 2, 0, true, statePassed, activity.TrainingPassed},
		{2, 2, MostAttempts - 2, false, StateReady, ""},
		{2, 2, MostAttempts - 1, false, StateFailed, activity.FailedAssessment},
		{3, 1, MostAttempts - 1, true, statePassed, activity.TrainingPassed},
	} {
		l := attempted{Module: "phishing", State: StateReady, Quiz: quizOf(c.right + c.wrong), Done: c.done}
		o := attemptOrder{Person: "a", Number: c.done + 1, Answers: answersOf(c.right, c.wrong)}
		g, err := gradeAttempt(l, o)
		if err != nil || g.Passed != c.passed || g.State != c.state || g.Correct != c.right || g.Number != c.done+1 {
			t.Errorf("%+v: %+v, %v", c, g, err)
		}
		if (g.Event != nil) != (c.verb != "") || g.Event != nil && g.Event.Verb != c.verb {
			t.Errorf("%+v: event %+v", c, g.Event)
		}
	}
}

func TestAnAttemptIsGradedOnceAndNotAfterTheEndOfTheLesson(t *testing.T) {
	for _, c := range []struct {
		name    string
		state   string
		done    int
		number  int
		answers int
		want    error // nil: another error than the two
	}{
		{"an attempt that was graded", StateReady, 1, 1, 4, errAttempted},
		{"an attempt at a lesson that is passed", statePassed, 1, 2, 4, errFinished},
		{"an attempt at a lesson that is being written", stateWriting, 0, 1, 0, errFinished},
		{"one attempt too many", StateReady, MostAttempts, MostAttempts + 1, 4, errFinished},
		{"too few answers", StateReady, 0, 1, 3, nil},
	} {
		quiz := quizOf(4)
		if c.state == stateWriting {
			quiz = nil
		}
		l := attempted{Module: "phishing", State: c.state, Quiz: quiz, Done: c.done}
		_, err := gradeAttempt(l, attemptOrder{Number: c.number, Answers: answersOf(c.answers, 0)})
		known := errors.Is(err, errAttempted) || errors.Is(err, errFinished)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || c.want == nil && known {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestTheEventOfALessonSaysWhatWasTaughtAndHowMuchWasRight(t *testing.T) {
	at := time.Date(2026, 10, 1, 10, 0, 0, 0, time.UTC)
	module, known := risk.ModuleByID("phishing")
	if !known {
		t.Fatal("the catalogue has no module phishing")
	}
	id := uuid.New()
	l := attempted{Module: module.ID, State: StateReady, Quiz: quizOf(4)}
	g, err := gradeAttempt(l, attemptOrder{Lesson: id, Person: "mira.keller", Number: 1, Answers: answersOf(3, 1), At: at})
	if err != nil || g.Event == nil {
		t.Fatal(g, err)
	}
	e := *g.Event
	if e.ID != "training:"+id.String() || e.Person != "mira.keller" || !e.At.Equal(at) || *e.Score != .75 ||
		!slices.Equal(e.Teaches, module.Teaches) || e.Detail != module.Title+": 3 of 4 right" {
		t.Errorf("%+v", e)
	}
	if err := e.Validate(); err != nil {
		t.Error(err)
	}
}
