package training

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/lms/outbox"
	"example.org/security-training/services/lms/phishing"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
)

var (
	errAttempted = errors.New("this attempt is already recorded")
	errFinished  = errors.New("this lesson is finished")
)

// attemptOrder is an attempt that is to be graded.
type attemptOrder struct {
	Lesson  uuid.UUID
	Person  string
	Number  int         // of the attempt, from 1
	Answers []int       // indices of options, from 0
	Before  *risk.Score // score at the time of the attempt; nil: unknown
	At      time.Time   // lab time with the person's offset
}

// attempted is a lesson at the time of an attempt.
type attempted struct {
	Module string
	State  string
	Quiz   []lesson.Question
	Done   int // number of earlier attempts
}

// graded is the result of an attempt. Event is nil while the lesson continues.
type graded struct {
	Attempt
	State string // of the lesson after the attempt
	Event *activity.Event
}

// gradeAttempt grades an attempt: errAttempted if it was graded before, errFinished if the lesson has ended. The last
// attempt, or one that passes, ends the lesson.
func gradeAttempt(l attempted, o attemptOrder) (graded, error) {
	switch {
	case o.Number <= l.Done:
		return graded{}, errAttempted
	case l.State != StateReady || l.Done >= MostAttempts:
		return graded{}, errFinished
	case len(o.Answers) != len(l.Quiz):
		return graded{}, fmt.Errorf("grade quiz: %d answers to %d questions", len(o.Answers), len(l.Quiz))
	}
	g := graded{
		Attempt: Attempt{Number: l.Done + 1, Answers: o.Answers, Questions: len(l.Quiz), At: o.At},
		State:   StateReady,
	}
	for i, q := range l.Quiz {
		if o.Answers[i] == q.Answer {
			g.Correct++
		}
	}
	g.Passed = g.Correct >= needed(g.Questions)
	if !g.Passed && g.Number < MostAttempts {
		return g, nil
	}
	g.State = StateFailed
	if g.Passed {
		g.State = statePassed
	}
	e := completed(o.Lesson, o.Person, l.Module, g.Attempt)
	g.Event = &e
	return g, nil
}

// completed is the event of a finished lesson.
func completed(id uuid.UUID, person, module string, a Attempt) activity.Event {
	share := float64(a.Correct) / float64(a.Questions)
	e := activity.Event{
		ID: "training:" + id.String(), At: a.At, Person: person, Source: activity.Training,
		Verb: activity.FailedAssessment, Module: module, Score: &share,
	}
	m, known := risk.ModuleByID(module)
	title := module
	if known {
		title = m.Title
	}
	e.Detail = fmt.Sprintf("%s: %d of %d right", title, a.Correct, a.Questions)
	if a.Passed {
		e.Verb, e.Teaches = activity.TrainingPassed, m.Teaches
	}
	return e
}

// grade grades an attempt and stores it. If it ends the lesson, the completion, the event and the audit rows commit
// together, and the id of the event is returned. store.ErrNotFound if the person has no such lesson.
func (s *Store) grade(ctx context.Context, o attemptOrder) (event string, err error) {
	err = s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		l, err := lockAttempted(ctx, tx, o)
		if err != nil {
			return nil, err
		}
		g, err := gradeAttempt(l, o)
		if err != nil {
			return nil, err
		}
		row, err := storeAttempt(ctx, tx, o, g.Attempt)
		if err != nil || g.Event == nil {
			return []audited.Row{row}, err
		}
		if g.Passed {
			more, err := phishing.AlsoTeaches(ctx, tx, o.Person, l.Module)
			if err != nil {
				return nil, err
			}
			g.Event.Teaches = append(slices.Clone(g.Event.Teaches), more...)
		}
		event = g.Event.ID
		end, err := storeCompletion(ctx, tx, o, l.Module, g)
		return []audited.Row{row, end}, err
	})
	return event, err
}

// lockAttempted reads a person's lesson and locks it until the transaction ends, so that an attempt is graded once.
func lockAttempted(ctx context.Context, tx pgx.Tx, o attemptOrder) (attempted, error) {
	var l attempted
	var body []byte
	err := tx.QueryRow(ctx, `SELECT module, state, lesson FROM training.lesson
		WHERE id = $1 AND person = $2 FOR UPDATE`, [16]byte(o.Lesson), o.Person).Scan(&l.Module, &l.State, &body)
	if errors.Is(err, pgx.ErrNoRows) {
		return l, store.ErrNotFound
	}
	if err != nil {
		return l, fmt.Errorf("read lesson: %w", err)
	}
	const count = `SELECT count(*) FROM training.attempt WHERE lesson = $1`
	if err := tx.QueryRow(ctx, count, [16]byte(o.Lesson)).Scan(&l.Done); err != nil {
		return l, fmt.Errorf("count attempts: %w", err)
	}
	if body == nil {
		return l, nil
	}
	var content lesson.Lesson
	if err := json.Unmarshal(body, &content); err != nil {
		return l, fmt.Errorf("decode lesson: %w", err)
	}
	l.Quiz = content.Quiz
	return l, nil
}

// storeAttempt stores an attempt and returns its audit row.
func storeAttempt(ctx context.Context, tx pgx.Tx, o attemptOrder, a Attempt) (audited.Row, error) {
	_, err := tx.Exec(ctx, `INSERT INTO training.attempt (lesson, number, answers, correct, questions, passed, at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		[16]byte(o.Lesson), a.Number, a.Answers, a.Correct, a.Questions, a.Passed, a.At)
	if err != nil {
		return audited.Row{}, fmt.Errorf("store attempt: %w", err)
	}
	return audited.Note("attempt", o.Person, "", struct {
		Lesson    uuid.UUID `json:"lesson"`
		Number    int       `json:"number"`
		Correct   int       `json:"correct"`
		Questions int       `json:"questions"`
		Passed    bool      `json:"passed"`
	}{o.Lesson, a.Number, a.Correct, a.Questions, a.Passed}), nil
}

// storeCompletion ends a lesson, stores its event, and returns the audit row.
func storeCompletion(ctx context.Context, tx pgx.Tx, o attemptOrder, module string, g graded) (audited.Row, error) {
	var none audited.Row
	id, e := [16]byte(o.Lesson), *g.Event
	if _, err := tx.Exec(ctx, `UPDATE training.lesson SET state = $2 WHERE id = $1`, id, g.State); err != nil {
		return none, fmt.Errorf("finish lesson: %w", err)
	}
	_, err := tx.Exec(ctx, `INSERT INTO training.completion (lesson, person, module, event, passed, share, at, before)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		id, o.Person, module, e.ID, g.Passed, *e.Score, o.At, (*int64)(o.Before))
	if err != nil {
		return none, fmt.Errorf("store completion: %w", err)
	}
	if err := outbox.Insert(ctx, tx, e); err != nil {
		return none, err
	}
	return audited.Note("completion", o.Person, e.ID, struct {
		Lesson uuid.UUID     `json:"lesson"`
		Module string        `json:"module"`
		Verb   activity.Verb `json:"verb"`
		Share  float64       `json:"share"`
	}{o.Lesson, module, e.Verb, *e.Score}), nil
}
