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
	"example.org/security-training/services/lms/phishing"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
)

// Store is the tables of lessons, attempts and completions.
type Store struct{ *store.Store }

// States of a lesson.
const (
	stateWriting = "writing"
	StateReady   = "ready"
	statePassed  = "passed"
	StateFailed  = "failed"
	stateRefused = "refused"
)

// Taught is a lesson with everything that happened to it.
type Taught struct {
	ID         uuid.UUID
	Person     string
	Module     string
	State      string
	Request    lesson.Request
	Lesson     *lesson.Lesson // with the key; nil while it is being written
	Asked      time.Time      // lab time
	Made       time.Time      // wall clock
	Again      *time.Time
	Attempts   []Attempt
	Completion *completion
}

// Attempt is one quiz that was handed in. Answers are indices of options, from 0.
type Attempt struct {
	Number    int
	Answers   []int
	Correct   int
	Questions int
	Passed    bool
	At        time.Time
}

type completion struct {
	Event         string
	Passed        bool
	Share         float64
	At            time.Time
	Before, After *risk.Score
}

// subject is the person's pseudonym, made when first asked for.
func (s *Store) subject(ctx context.Context, person string) (string, error) {
	var subject string
	err := s.Pool.QueryRow(ctx, `INSERT INTO training.learner (person) VALUES ($1) ON CONFLICT (person) DO UPDATE SET person = excluded.person RETURNING subject`, person).
		Scan(&subject)
	if err != nil {
		return "", fmt.Errorf("find pseudonym: %w", err)
	}
	return subject, nil
}

// lessonsSince counts the lessons that were asked for within span.
func (s *Store) lessonsSince(ctx context.Context, person string, span time.Duration) (int, error) {
	var n int
	err := s.Pool.QueryRow(ctx, `SELECT count(*) FROM training.lesson WHERE person = $1 AND made > clock_timestamp() - make_interval(secs => $2)`, person, span.Seconds()).
		Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count lessons: %w", err)
	}
	return n, nil
}

// openLesson is the id of the person's open lesson of a module, if there is one.
func (s *Store) openLesson(ctx context.Context, person, module string) (uuid.UUID, error) {
	var id uuid.UUID
	err := s.Pool.QueryRow(ctx, `SELECT id FROM training.lesson WHERE person = $1 AND module = $2 AND state IN ('writing', 'ready')`, person, module).
		Scan((*[16]byte)(&id))
	if errors.Is(err, pgx.ErrNoRows) {
		return id, store.ErrNotFound
	}
	if err != nil {
		return id, fmt.Errorf("find open lesson: %w", err)
	}
	return id, nil
}

// begin makes a lesson to be written, or finds the open one of the same module.
func (s *Store) begin(ctx context.Context, person string, req lesson.Request, asked time.Time) (uuid.UUID, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return uuid.Nil, fmt.Errorf("encode lesson request: %w", err)
	}
	id := uuid.New()
	err = s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		tag, err := tx.Exec(
			ctx,
			`INSERT INTO training.lesson (id, person, module, state, request, asked) VALUES ($1, $2, $3, 'writing', $4, $5) ON CONFLICT DO NOTHING`,
			[16]byte(id),
			person,
			req.Module,
			string(body),
			asked,
		)
		if err != nil {
			return nil, fmt.Errorf("store lesson: %w", err)
		}
		if tag.RowsAffected() == 0 {
			id = uuid.Nil
			return nil, nil
		}
		verbs := make([]activity.Verb, 0, len(req.Reasons))
		for _, r := range req.Reasons {
			verbs = append(verbs, r.Verb)
		}
		return []audited.Row{audited.Note("lesson.asked", person, "", struct {
			Lesson  uuid.UUID       `json:"lesson"`
			Module  string          `json:"module"`
			Reasons []activity.Verb `json:"reasons"`
		}{id, req.Module, verbs})}, nil
	})
	if err == nil && id == uuid.Nil {
		return s.openLesson(ctx, person, req.Module)
	}
	return id, err
}

// written keeps what the gateway wrote. A lesson that a reset has taken away stays away.
func (s *Store) written(ctx context.Context, id uuid.UUID, l lesson.Lesson) error {
	body, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode lesson: %w", err)
	}
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		var person string
		err := tx.QueryRow(ctx, `UPDATE training.lesson SET state = 'ready', lesson = $2, origin = $3 WHERE id = $1 AND state = 'writing' RETURNING person`, [16]byte(id), string(body), string(l.Origin)).
			Scan(&person)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("store written lesson: %w", err)
		}
		return []audited.Row{audited.Note("lesson.written", person, "", struct {
			Lesson   uuid.UUID       `json:"lesson"`
			Module   string          `json:"module"`
			Origin   lesson.Origin   `json:"origin"`
			Model    string          `json:"model,omitempty"`
			Fallback lesson.Fallback `json:"fallback,omitempty"`
		}{id, l.Module, l.Origin, l.Model, l.Fallback})}, nil
	})
}

// refuse says that the gateway would not write the lesson before again.
func (s *Store) refuse(ctx context.Context, id uuid.UUID, again time.Time, code string) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		var person string
		err := tx.QueryRow(ctx, `UPDATE training.lesson SET state = 'refused', again = $2 WHERE id = $1 AND state = 'writing' RETURNING person`, [16]byte(id), again).
			Scan(&person)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("store refused lesson: %w", err)
		}
		return []audited.Row{audited.Note("lesson.refused", person, "", struct {
			Lesson uuid.UUID `json:"lesson"`
			Code   string    `json:"code"`
		}{id, code})}, nil
	})
}

const lessonColumns = `l.id, l.person, l.module, l.state, l.request, l.lesson, l.asked, l.made, l.again,
	c.event, c.passed, c.share, c.at, c.before, c.after`

func scanLesson(row pgx.Row) (Taught, error) {
	var t Taught
	var request, content []byte
	var event *string
	var passed *bool
	var share *float64
	var at *time.Time
	var before, after *int64
	if err := row.Scan((*[16]byte)(&t.ID), &t.Person, &t.Module, &t.State, &request, &content, &t.Asked, &t.Made, &t.Again, &event, &passed, &share, &at, &before, &after); err != nil {
		return t, err
	}
	if err := json.Unmarshal(request, &t.Request); err != nil {
		return t, fmt.Errorf("decode lesson request: %w", err)
	}
	if content != nil {
		t.Lesson = &lesson.Lesson{}
		if err := json.Unmarshal(content, t.Lesson); err != nil {
			return t, fmt.Errorf("decode lesson: %w", err)
		}
	}
	if event != nil {
		t.Completion = &completion{
			Event:  *event,
			Passed: *passed,
			Share:  *share,
			At:     *at,
			Before: (*risk.Score)(before),
			After:  (*risk.Score)(after),
		}
	}
	return t, nil
}

// lesson reads one lesson with its attempts; errGone if there is none.
func (s *Store) lesson(ctx context.Context, id uuid.UUID) (Taught, error) {
	t, err := scanLesson(
		s.Pool.QueryRow(
			ctx,
			`SELECT `+lessonColumns+` FROM training.lesson l LEFT JOIN training.completion c ON c.lesson = l.id WHERE l.id = $1`,
			[16]byte(id),
		),
	)
	if errors.Is(err, pgx.ErrNoRows) {
		return t, store.ErrNotFound
	}
	if err != nil {
		return t, fmt.Errorf("read lesson: %w", err)
	}
	all := []Taught{t}
	err = s.attach(ctx, all)
	return all[0], err
}

// Lessons reads a person's lessons, the newest first, at most limit.
func (s *Store) Lessons(ctx context.Context, person string, limit int) ([]Taught, error) {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT `+lessonColumns+` FROM training.lesson l LEFT JOIN training.completion c ON c.lesson = l.id WHERE l.person = $1 ORDER BY l.made DESC LIMIT $2`,
		person,
		limit,
	)
	if err != nil {
		return nil, fmt.Errorf("read lessons: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Taught, error) { return scanLesson(row) })
	if err != nil {
		return nil, fmt.Errorf("read lessons: %w", err)
	}
	return all, s.attach(ctx, all)
}

// attach reads the attempts of all.
func (s *Store) attach(ctx context.Context, all []Taught) error {
	ids := make([][16]byte, len(all))
	index := map[[16]byte]int{}
	for i, t := range all {
		ids[i] = t.ID
		index[t.ID] = i
	}
	rows, err := s.Pool.Query(
		ctx,
		`SELECT lesson, number, answers, correct, questions, passed, at FROM training.attempt WHERE lesson = ANY($1) ORDER BY lesson, number`,
		ids,
	)
	if err != nil {
		return fmt.Errorf("read attempts: %w", err)
	}
	var id [16]byte
	var a Attempt
	_, err = pgx.ForEachRow(
		rows,
		[]any{&id, &a.Number, &a.Answers, &a.Correct, &a.Questions, &a.Passed, &a.At},
		func() error {
			t := &all[index[id]]
			t.Attempts = append(t.Attempts, a)
			a.Answers = nil
			return nil
		},
	)
	if err != nil {
		return fmt.Errorf("read attempts: %w", err)
	}
	return nil
}

// graded is what became of an attempt.
type graded struct {
	Attempt
	Event string // of the completion, empty while the lesson goes on
}

var (
	errAttempted = errors.New("this attempt is recorded already")
	errFinished  = errors.New("this lesson is finished")
)

// grade records attempt number of a lesson: answers are indices of options, before is the score of the moment, at is
// lab time with the person's offset. The last attempt, or one that passes, completes the lesson: completion, event and
// audit rows commit together.
func (s *Store) grade(
	ctx context.Context,
	id uuid.UUID,
	person string,
	number int,
	answers []int,
	before *risk.Score,
	at time.Time,
) (graded, error) {
	var g graded
	err := s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		var module, state string
		var body []byte
		err := tx.QueryRow(ctx, `SELECT module, state, lesson FROM training.lesson WHERE id = $1 AND person = $2 FOR UPDATE`, [16]byte(id), person).
			Scan(&module, &state, &body)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, store.ErrNotFound
		}
		if err != nil {
			return nil, fmt.Errorf("read lesson: %w", err)
		}
		var done int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM training.attempt WHERE lesson = $1`, [16]byte(id)).Scan(&done); err != nil {
			return nil, fmt.Errorf("count attempts: %w", err)
		}
		switch {
		case number <= done:
			return nil, errAttempted
		case state != StateReady || done >= MostAttempts:
			return nil, errFinished
		}
		var l lesson.Lesson
		if err := json.Unmarshal(body, &l); err != nil {
			return nil, fmt.Errorf("decode lesson: %w", err)
		}
		if len(answers) != len(l.Quiz) {
			return nil, fmt.Errorf("grade quiz: %d answers to %d questions", len(answers), len(l.Quiz))
		}
		g.Attempt = Attempt{Number: done + 1, Answers: answers, Questions: len(l.Quiz), At: at}
		for i, q := range l.Quiz {
			if answers[i] == q.Answer {
				g.Correct++
			}
		}
		g.Passed = enough(g.Correct, g.Questions)
		if _, err := tx.Exec(ctx, `INSERT INTO training.attempt (lesson, number, answers, correct, questions, passed, at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			[16]byte(id), g.Number, g.Answers, g.Correct, g.Questions, g.Passed, at); err != nil {
			return nil, fmt.Errorf("store attempt: %w", err)
		}
		rows := []audited.Row{audited.Note("attempt", person, "", struct {
			Lesson    uuid.UUID `json:"lesson"`
			Number    int       `json:"number"`
			Correct   int       `json:"correct"`
			Questions int       `json:"questions"`
			Passed    bool      `json:"passed"`
		}{id, g.Number, g.Correct, g.Questions, g.Passed})}
		if !g.Passed && g.Number < MostAttempts {
			return rows, nil
		}
		e := completed(id, person, module, g.Attempt)
		if g.Passed {
			more, err := phishing.AlsoTeaches(ctx, tx, person, module)
			if err != nil {
				return nil, err
			}
			e.Teaches = append(slices.Clone(e.Teaches), more...)
		}
		g.Event = e.ID
		state = StateFailed
		if g.Passed {
			state = statePassed
		}
		if _, err := tx.Exec(ctx, `UPDATE training.lesson SET state = $2 WHERE id = $1`, [16]byte(id), state); err != nil {
			return nil, fmt.Errorf("finish lesson: %w", err)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO training.completion (lesson, person, module, event, passed, share, at, before) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			[16]byte(id), person, module, e.ID, g.Passed, *e.Score, at, (*int64)(before)); err != nil {
			return nil, fmt.Errorf("store completion: %w", err)
		}
		event, err := json.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("encode event: %w", err)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO training.outbox (id, event) VALUES ($1, $2)`, e.ID, string(event)); err != nil {
			return nil, fmt.Errorf("store event: %w", err)
		}
		return append(rows, audited.Note("completion", person, e.ID, struct {
			Lesson uuid.UUID     `json:"lesson"`
			Module string        `json:"module"`
			Verb   activity.Verb `json:"verb"`
			Share  float64       `json:"share"`
		}{id, module, e.Verb, *e.Score})), nil
	})
	return g, err
}

// completed is the event that a finished lesson means.
func completed(id uuid.UUID, person, module string, a Attempt) activity.Event {
	share := float64(a.Correct) / float64(a.Questions)
	e := activity.Event{
		ID: "training:" + id.String(), At: a.At, Person: person, Source: activity.Training, Verb: activity.FailedAssessment,
		Module: module, Score: &share,
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

// deletedCertificate is the date on a certificate whose record was deleted; zero if nothing says it.
func (s *Store) deletedCertificate(ctx context.Context, lesson uuid.UUID) (given time.Time, err error) {
	const query = `SELECT given FROM training.deleted_certificate WHERE lesson = $1`
	err = s.Pool.QueryRow(ctx, query, [16]byte(lesson)).Scan(&given)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, fmt.Errorf("read deleted certificates: %w", err)
	}
	return given, nil
}

// eachLesson calls visit for every lesson begun since, the oldest first, a few hundred at a time.
func (s *Store) eachLesson(ctx context.Context, since time.Time, visit func(Taught) error) error {
	const few = 200
	last := uuid.Nil
	for {
		rows, err := s.Pool.Query(
			ctx,
			`SELECT `+lessonColumns+` FROM training.lesson l LEFT JOIN training.completion c ON c.lesson = l.id
			WHERE (l.made, l.id) > ($1, $2) ORDER BY l.made, l.id LIMIT $3`,
			since,
			[16]byte(last),
			few,
		)
		if err != nil {
			return fmt.Errorf("read lessons: %w", err)
		}
		all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Taught, error) { return scanLesson(row) })
		if err != nil {
			return fmt.Errorf("read lessons: %w", err)
		}
		if err := s.attach(ctx, all); err != nil {
			return err
		}
		for _, t := range all {
			if err := visit(t); err != nil {
				return err
			}
			since, last = t.Made, t.ID
		}
		if len(all) < few {
			return nil
		}
	}
}
