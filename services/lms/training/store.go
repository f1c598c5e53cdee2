package training

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lesson"
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

// LessonRecord is a person's lesson with its attempts and its completion.
type LessonRecord struct {
	ID         uuid.UUID
	Person     string
	Module     string
	State      string
	Request    lesson.Request
	Lesson     *lesson.Lesson // with the right answers; nil while it is being written
	Asked      time.Time      // lab time of the request
	Made       time.Time      // wall clock of the request
	Again      *time.Time     // when the gateway may be asked again; nil unless it refused
	Attempts   []Attempt
	Completion *completion
}

// Attempt is one attempt at a quiz. Answers are indices of options, from 0. At is lab time.
type Attempt struct {
	Number    int
	Answers   []int
	Correct   int
	Questions int
	Passed    bool
	At        time.Time
}

// completion is the end of a lesson. Share is that of right answers; scores are nil if unknown.
type completion struct {
	Event         string
	Passed        bool
	Share         float64
	At            time.Time
	Before, After *risk.Score
}

// subject returns a person's pseudonym. It is made at the first call.
func (s *Store) subject(ctx context.Context, person string) (string, error) {
	var subject string
	err := s.Pool.QueryRow(ctx, `INSERT INTO training.learner (person) VALUES ($1)
		ON CONFLICT (person) DO UPDATE SET person = excluded.person RETURNING subject`, person).Scan(&subject)
	if err != nil {
		return "", fmt.Errorf("find pseudonym: %w", err)
	}
	return subject, nil
}

// lessonsSince counts the lessons that a person began within span.
func (s *Store) lessonsSince(ctx context.Context, person string, span time.Duration) (int, error) {
	var n int
	err := s.Pool.QueryRow(ctx, `SELECT count(*) FROM training.lesson
		WHERE person = $1 AND made > clock_timestamp() - make_interval(secs => $2)`, person, span.Seconds()).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count lessons: %w", err)
	}
	return n, nil
}

// openLesson returns the id of a person's open lesson of a module; store.ErrNotFound if there is none.
func (s *Store) openLesson(ctx context.Context, person, module string) (uuid.UUID, error) {
	var id uuid.UUID
	err := s.Pool.QueryRow(ctx, `SELECT id FROM training.lesson
		WHERE person = $1 AND module = $2 AND state IN ('writing', 'ready')`, person, module).Scan((*[16]byte)(&id))
	if errors.Is(err, pgx.ErrNoRows) {
		return id, store.ErrNotFound
	}
	if err != nil {
		return id, fmt.Errorf("find open lesson: %w", err)
	}
	return id, nil
}

// begin stores a lesson that is to be written and returns its id, or the id of the open lesson of the same module.
// asked is lab time.
func (s *Store) begin(ctx context.Context, person string, req lesson.Request, asked time.Time) (uuid.UUID, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return uuid.Nil, fmt.Errorf("encode lesson request: %w", err)
	}
	id := uuid.New()
	err = s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		tag, err := tx.Exec(ctx, `INSERT INTO training.lesson (id, person, module, state, request, asked)
			VALUES ($1, $2, $3, 'writing', $4, $5) ON CONFLICT DO NOTHING`,
			[16]byte(id), person, req.Module, string(body), asked)
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

// written stores a lesson's content. It does nothing if a reset has deleted the lesson.
func (s *Store) written(ctx context.Context, id uuid.UUID, l lesson.Lesson) error {
	body, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode lesson: %w", err)
	}
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		var person string
		err := tx.QueryRow(ctx, `UPDATE training.lesson SET state = 'ready', lesson = $2, origin = $3
			WHERE id = $1 AND state = 'writing' RETURNING person`, [16]byte(id), string(body), string(l.Origin)).
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

// refuse stores that the gateway refused to write the lesson, with its code, and may be asked at the time again.
func (s *Store) refuse(ctx context.Context, id uuid.UUID, again time.Time, code string) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		var person string
		err := tx.QueryRow(ctx, `UPDATE training.lesson SET state = 'refused', again = $2
			WHERE id = $1 AND state = 'writing' RETURNING person`, [16]byte(id), again).Scan(&person)
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

// selectLessons is what scanLesson reads.
const selectLessons = `SELECT l.id, l.person, l.module, l.state, l.request, l.lesson, l.asked, l.made, l.again,
		c.event, c.passed, c.share, c.at, c.before, c.after
	FROM training.lesson l LEFT JOIN training.completion c ON c.lesson = l.id `

func scanLesson(row pgx.Row) (LessonRecord, error) {
	var t LessonRecord
	var request, content []byte
	var event *string
	var passed *bool
	var share *float64
	var at *time.Time
	var before, after *int64
	if err := row.Scan(
		(*[16]byte)(&t.ID), &t.Person, &t.Module, &t.State, &request, &content, &t.Asked, &t.Made, &t.Again,
		&event, &passed, &share, &at, &before, &after,
	); err != nil {
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

// lesson returns a lesson with its attempts; store.ErrNotFound if there is none.
func (s *Store) lesson(ctx context.Context, id uuid.UUID) (LessonRecord, error) {
	t, err := scanLesson(s.Pool.QueryRow(ctx, selectLessons+`WHERE l.id = $1`, [16]byte(id)))
	if errors.Is(err, pgx.ErrNoRows) {
		return t, store.ErrNotFound
	}
	if err != nil {
		return t, fmt.Errorf("read lesson: %w", err)
	}
	all := []LessonRecord{t}
	err = s.attach(ctx, all)
	return all[0], err
}

// Lessons returns a person's lessons, the newest first, at most limit.
func (s *Store) Lessons(ctx context.Context, person string, limit int) ([]LessonRecord, error) {
	return s.collect(ctx, selectLessons+`WHERE l.person = $1 ORDER BY l.made DESC LIMIT $2`, person, limit)
}

// collect returns the lessons of a query, with their attempts.
func (s *Store) collect(ctx context.Context, query string, args ...any) ([]LessonRecord, error) {
	rows, err := s.Pool.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read lessons: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (LessonRecord, error) { return scanLesson(row) })
	if err != nil {
		return nil, fmt.Errorf("read lessons: %w", err)
	}
	return all, s.attach(ctx, all)
}

// attach adds the attempts to lessons.
func (s *Store) attach(ctx context.Context, all []LessonRecord) error {
	ids := make([][16]byte, len(all))
	index := map[[16]byte]int{}
	for i, t := range all {
		ids[i] = t.ID
		index[t.ID] = i
	}
	rows, err := s.Pool.Query(ctx, `SELECT lesson, number, answers, correct, questions, passed, at
		FROM training.attempt WHERE lesson = ANY($1) ORDER BY lesson, number`, ids)
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

// deletedCertificate returns the date of a certificate whose record was deleted; zero if it is unknown.
func (s *Store) deletedCertificate(ctx context.Context, lesson uuid.UUID) (given time.Time, err error) {
	const query = `SELECT given FROM training.deleted_certificate WHERE lesson = $1`
	err = s.Pool.QueryRow(ctx, query, [16]byte(lesson)).Scan(&given)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, fmt.Errorf("read deleted certificates: %w", err)
	}
	return given, nil
}

// eachLesson calls do for every lesson begun after since, the oldest first. It reads a few hundred at a time.
func (s *Store) eachLesson(ctx context.Context, since time.Time, do func(LessonRecord) error) error {
	const few = 200
	last := uuid.Nil
	for {
		all, err := s.collect(ctx, selectLessons+`WHERE (l.made, l.id) > ($1, $2) ORDER BY l.made, l.id LIMIT $3`,
			since, [16]byte(last), few)
		if err != nil {
			return err
		}
		for _, t := range all {
			if err := do(t); err != nil {
				return err
			}
			since, last = t.Made, t.ID
		}
		if len(all) < few {
			return nil
		}
	}
}
