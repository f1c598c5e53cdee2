package lms

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/risk"
)

// records is the schema training.
type records struct{ *store.Store }

func (s *records) sweep(ctx context.Context) error {
	_, err := s.Pool.Exec(ctx, `DELETE FROM training.session WHERE expiry < now()`)
	if err != nil {
		return fmt.Errorf("delete sessions: %w", err)
	}
	if _, err = s.Pool.Exec(ctx, `DELETE FROM training.link WHERE expires < now() - interval '1 day'`); err != nil {
		return fmt.Errorf("delete links: %w", err)
	}
	return nil
}

// Roles of a session. Whether a person is a manager is the roster's to say.
const (
	rolePerson     = "person"
	roleInstructor = "instructor"
	roleAdmin      = "admin" // an instructor who may also give and take identities
)

// principal is who a link or a session stands for.
type principal struct {
	Role        string `json:"role"`
	Person      string `json:"person,omitempty"`
	Via         string `json:"via,omitempty"`         // how it was proven, where not by a link
	Certificate string `json:"certificate,omitempty"` // serial number, hex: the session is good with it alone

	// Whom a provider of identities signed in, for roles that are nobody's own: its name for them, and an address that it has verified.
	Subject string `json:"subject,omitempty"`
	Email   string `json:"email,omitempty"`
}

// words name a principal in a line: "instructor, anna@example.org, 42, provider id.example.org".
func (p principal) words() string {
	certificate := ""
	if p.Certificate != "" {
		certificate = "serial number " + p.Certificate
	}
	return strings.Join(slices.DeleteFunc([]string{p.Role, p.Person, p.Email, p.Subject, p.Via, certificate}, func(s string) bool { return s == "" }), ", ")
}

func digest(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

func (s *records) addLink(ctx context.Context, token string, p principal, expires time.Time, by string) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		if _, err := tx.Exec(ctx, `INSERT INTO training.link (token, role, person, expires) VALUES ($1, $2, $3, $4)`, digest(token), p.Role, p.Person, expires); err != nil {
			return nil, fmt.Errorf("store link: %w", err)
		}
		return []store.Row{store.Note("link.made", p.Person, "", struct {
			Role    string    `json:"role"`
			By      string    `json:"by"`
			Expires time.Time `json:"expires"`
		}{p.Role, by, expires.UTC()})}, nil
	})
}

// useLink consumes a link: of many who try, one gets it. errGone if it was used, has ended, or never was.
func (s *records) useLink(ctx context.Context, token string, now time.Time) (principal, error) {
	var p principal
	err := s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		row := tx.QueryRow(ctx, `UPDATE training.link SET used = $2 WHERE token = $1 AND used IS NULL AND expires > $2 RETURNING role, person`, digest(token), now)
		if err := row.Scan(&p.Role, &p.Person); errors.Is(err, pgx.ErrNoRows) {
			return nil, store.ErrNotFound
		} else if err != nil {
			return nil, fmt.Errorf("use link: %w", err)
		}
		return []store.Row{store.Note("sign_in", p.Person, "", p)}, nil
	})
	return p, err
}

// States of a lesson.
const (
	stateWriting = "writing"
	stateReady   = "ready"
	statePassed  = "passed"
	stateFailed  = "failed"
	stateRefused = "refused"
)

// taught is a lesson with everything that happened to it.
type taught struct {
	ID         uuid.UUID
	Person     string
	Module     string
	State      string
	Request    lesson.Request
	Lesson     *lesson.Lesson // with the key; nil while it is being written
	Asked      time.Time      // lab time
	Made       time.Time      // wall clock
	Again      *time.Time
	Attempts   []attempt
	Completion *completion
}

type attempt struct {
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
func (s *records) subject(ctx context.Context, person string) (string, error) {
	var subject string
	err := s.Pool.QueryRow(ctx, `INSERT INTO training.learner (person) VALUES ($1)
		ON CONFLICT (person) DO UPDATE SET person = excluded.person RETURNING subject`, person).
		Scan(&subject)
	if err != nil {
		return "", fmt.Errorf("find pseudonym: %w", err)
	}
	return subject, nil
}

// lessonsSince counts the lessons that were asked for within span.
func (s *records) lessonsSince(ctx context.Context, person string, span time.Duration) (int, error) {
	var n int
	err := s.Pool.QueryRow(ctx, `SELECT count(*) FROM training.lesson WHERE person = $1
		AND made > clock_timestamp() - make_interval(secs => $2)`, person, span.Seconds()).
		Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count lessons: %w", err)
	}
	return n, nil
}

// openLesson is the id of the person's open lesson of a module, if there is one.
func (s *records) openLesson(ctx context.Context, person, module string) (uuid.UUID, error) {
	var id uuid.UUID
	err := s.Pool.QueryRow(ctx, `SELECT id FROM training.lesson WHERE person = $1 AND module = $2
		AND state IN ('writing', 'ready')`, person, module).
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
func (s *records) begin(ctx context.Context, person string, req lesson.Request, asked time.Time) (uuid.UUID, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return uuid.Nil, fmt.Errorf("encode lesson request: %w", err)
	}
	id := uuid.New()
	err = s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		tag, err := tx.Exec(ctx, `INSERT INTO training.lesson (id, person, module, state, request, asked) VALUES ($1, $2, $3, 'writing', $4, $5) ON CONFLICT DO NOTHING`,
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
		return []store.Row{store.Note("lesson.asked", person, "", struct {
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
func (s *records) written(ctx context.Context, id uuid.UUID, l lesson.Lesson) error {
	body, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode lesson: %w", err)
	}
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		var person string
		err := tx.QueryRow(ctx, `UPDATE training.lesson SET state = 'ready', lesson = $2, origin = $3 WHERE id = $1 AND state = 'writing' RETURNING person`, [16]byte(id), string(body), string(l.Origin)).Scan(&person)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("store written lesson: %w", err)
		}
		return []store.Row{store.Note("lesson.written", person, "", struct {
			Lesson   uuid.UUID       `json:"lesson"`
			Module   string          `json:"module"`
			Origin   lesson.Origin   `json:"origin"`
			Model    string          `json:"model,omitempty"`
			Fallback lesson.Fallback `json:"fallback,omitempty"`
		}{id, l.Module, l.Origin, l.Model, l.Fallback})}, nil
	})
}

// refuse says that the gateway would not write the lesson before again.
func (s *records) refuse(ctx context.Context, id uuid.UUID, again time.Time, code string) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		var person string
		err := tx.QueryRow(ctx, `UPDATE training.lesson SET state = 'refused', again = $2 WHERE id = $1 AND state = 'writing' RETURNING person`, [16]byte(id), again).Scan(&person)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("store refused lesson: %w", err)
		}
		return []store.Row{store.Note("lesson.refused", person, "", struct {
			Lesson uuid.UUID `json:"lesson"`
			Code   string    `json:"code"`
		}{id, code})}, nil
	})
}

const lessonColumns = `l.id, l.person, l.module, l.state, l.request, l.lesson, l.asked, l.made, l.again,
	c.event, c.passed, c.share, c.at, c.before, c.after`

func scanLesson(row pgx.Row) (taught, error) {
	var t taught
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
		t.Completion = &completion{Event: *event, Passed: *passed, Share: *share, At: *at, Before: (*risk.Score)(before), After: (*risk.Score)(after)}
	}
	return t, nil
}

// lesson reads one lesson with its attempts; errGone if there is none.
func (s *records) lesson(ctx context.Context, id uuid.UUID) (taught, error) {
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
	all := []taught{t}
	err = s.attach(ctx, all)
	return all[0], err
}

// lessons reads a person's lessons, the newest first, at most limit.
func (s *records) lessons(ctx context.Context, person string, limit int) ([]taught, error) {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT `+lessonColumns+` FROM training.lesson l LEFT JOIN training.completion c ON c.lesson = l.id
			WHERE l.person = $1 ORDER BY l.made DESC LIMIT $2`,
		person,
		limit,
	)
	if err != nil {
		return nil, fmt.Errorf("read lessons: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (taught, error) { return scanLesson(row) })
	if err != nil {
		return nil, fmt.Errorf("read lessons: %w", err)
	}
	return all, s.attach(ctx, all)
}

// attach reads the attempts of all.
func (s *records) attach(ctx context.Context, all []taught) error {
	ids := make([][16]byte, len(all))
	index := map[[16]byte]int{}
	for i, t := range all {
		ids[i] = t.ID
		index[t.ID] = i
	}
	rows, err := s.Pool.Query(
		ctx,
		`SELECT lesson, number, answers, correct, questions, passed, at FROM training.attempt WHERE lesson = ANY($1)
			ORDER BY lesson, number`,
		ids,
	)
	if err != nil {
		return fmt.Errorf("read attempts: %w", err)
	}
	var id [16]byte
	var a attempt
	_, err = pgx.ForEachRow(rows, []any{&id, &a.Number, &a.Answers, &a.Correct, &a.Questions, &a.Passed, &a.At}, func() error {
		t := &all[index[id]]
		t.Attempts = append(t.Attempts, a)
		a.Answers = nil
		return nil
	})
	if err != nil {
		return fmt.Errorf("read attempts: %w", err)
	}
	return nil
}

// graded is what became of an attempt.
type graded struct {
	attempt
	Event string // of the completion, empty while the lesson goes on
}

var (
	errAttempted = errors.New("this attempt is recorded already")
	errFinished  = errors.New("this lesson is finished")
)

// grade records attempt number of a lesson: answers are indices of options, before is the score of the moment, at is lab
// time with the person's offset. The last attempt, or one that passes, completes the lesson: completion, event and audit
// rows commit together.
func (s *records) grade(
	ctx context.Context,
	id uuid.UUID,
	person string,
	number int,
	answers []int,
	before *risk.Score,
	at time.Time,
) (graded, error) {
	var g graded
	err := s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		var module, state string
		var body []byte
		err := tx.QueryRow(ctx, `SELECT module, state, lesson FROM training.lesson WHERE id = $1 AND person = $2 FOR UPDATE`, [16]byte(id), person).Scan(&module, &state, &body)
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
		case state != stateReady || done >= mostAttempts:
			return nil, errFinished
		}
		var l lesson.Lesson
		if err := json.Unmarshal(body, &l); err != nil {
			return nil, fmt.Errorf("decode lesson: %w", err)
		}
		if len(answers) != len(l.Quiz) {
			return nil, fmt.Errorf("grade quiz: %d answers to %d questions", len(answers), len(l.Quiz))
		}
		g.attempt = attempt{Number: done + 1, Answers: answers, Questions: len(l.Quiz), At: at}
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
		rows := []store.Row{store.Note("attempt", person, "", struct {
			Lesson    uuid.UUID `json:"lesson"`
			Number    int       `json:"number"`
			Correct   int       `json:"correct"`
			Questions int       `json:"questions"`
			Passed    bool      `json:"passed"`
		}{id, g.Number, g.Correct, g.Questions, g.Passed})}
		if !g.Passed && g.Number < mostAttempts {
			return rows, nil
		}
		e := completed(id, person, module, g.attempt)
		if g.Passed {
			more, err := alsoTeaches(ctx, tx, person, module)
			if err != nil {
				return nil, err
			}
			e.Teaches = append(slices.Clone(e.Teaches), more...)
		}
		g.Event = e.ID
		state = stateFailed
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
		return append(rows, store.Note("completion", person, e.ID, struct {
			Lesson uuid.UUID     `json:"lesson"`
			Module string        `json:"module"`
			Verb   activity.Verb `json:"verb"`
			Share  float64       `json:"share"`
		}{id, module, e.Verb, *e.Score})), nil
	})
	return g, err
}

// completed is the event that a finished lesson means.
func completed(id uuid.UUID, person, module string, a attempt) activity.Event {
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

type waiting struct {
	Seq   int64
	ID    string
	Event activity.Event
	Ends  bool // it ends a lesson here, whose page shows the score after it
}

func (s *records) waiting(ctx context.Context, limit int) ([]waiting, error) {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT seq, id, event, EXISTS (SELECT FROM training.completion c WHERE c.event = o.id) FROM training.outbox o
			WHERE delivered IS NULL ORDER BY seq LIMIT $1`,
		limit,
	)
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (waiting, error) {
		var w waiting
		var event []byte
		if err := row.Scan(&w.Seq, &w.ID, &event, &w.Ends); err != nil {
			return w, err
		}
		return w, json.Unmarshal(event, &w.Event)
	})
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	return all, nil
}

// delivered keeps the receipts of a batch, one for each event.
func (s *records) delivered(ctx context.Context, batch []waiting, receipts []activity.Receipt) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		var seqs []int64
		var statuses, reasons []string
		var rows []store.Row
		for i, w := range batch {
			r := receipts[i]
			seqs, statuses, reasons = append(seqs, w.Seq), append(statuses, string(r.Status)), append(reasons, r.Reason)
			rows = append(rows, store.Note("delivery", w.Event.Person, w.ID, r))
		}
		if _, err := tx.Exec(ctx, `UPDATE training.outbox o SET delivered = clock_timestamp(), status = r.status, reason = r.reason
			FROM unnest($1::bigint[], $2::text[], $3::text[]) AS r (seq, status, reason) WHERE o.seq = r.seq`, seqs, statuses, reasons); err != nil {
			return nil, fmt.Errorf("store receipts: %w", err)
		}
		return rows, nil
	})
}

// addRecords puts training records from elsewhere into the outbox; those that are known already stay as they are.
func (s *records) addRecords(ctx context.Context, events []activity.Event, by string) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		var ids, texts []string
		for _, e := range events {
			b, err := json.Marshal(e)
			if err != nil {
				return nil, fmt.Errorf("encode training record: %w", err)
			}
			ids, texts = append(ids, e.ID), append(texts, string(b))
		}
		tag, err := tx.Exec(ctx, `INSERT INTO training.outbox (id, event) SELECT id, event::jsonb FROM unnest($1::text[], $2::text[]) AS r (id, event) ON CONFLICT (id) DO NOTHING`, ids, texts)
		if err != nil {
			return nil, fmt.Errorf("store training records: %w", err)
		}
		return []store.Row{store.Note("import", "", "", imported{By: by, Records: len(events), New: tag.RowsAffected()})}, nil
	})
}

// imported is the audit's word of an import.
type imported struct {
	By      string `json:"by"`
	Records int    `json:"records"`
	New     int64  `json:"new"`
}

// undelivered counts those of the events that the scorer has not taken yet.
func (s *records) undelivered(ctx context.Context, ids []string) (n int64, err error) {
	if err := s.Pool.QueryRow(ctx, `SELECT count(*) FROM training.outbox WHERE id = ANY ($1)
		AND delivered IS NULL`, ids).Scan(&n); err != nil {
		return 0, fmt.Errorf("read outbox: %w", err)
	}
	return n, nil
}

// scored keeps the score that the scorer gave after the event.
func (s *records) scored(ctx context.Context, event string, after risk.Score) error {
	_, err := s.Pool.Exec(ctx, `UPDATE training.completion SET after = $2 WHERE event = $1`, event, int64(after))
	if err != nil {
		return fmt.Errorf("store score after training: %w", err)
	}
	return nil
}

func (s *records) putExercise(ctx context.Context, e exercise.Exercise, by string) error {
	steps, err := json.Marshal(e.Steps)
	if err != nil {
		return fmt.Errorf("encode steps: %w", err)
	}
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		var before exercise.State
		err := tx.QueryRow(ctx, `SELECT state FROM training.exercise WHERE id = $1 FOR UPDATE`, e.ID).Scan(&before)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return nil, fmt.Errorf("read exercise: %w", err)
		}
		if _, err := tx.Exec(
			ctx,
			`INSERT INTO training.exercise (id, title, brief, difficulty, minutes, attack, state, steps, players) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (id) DO UPDATE SET title = excluded.title, brief = excluded.brief, difficulty = excluded.difficulty, minutes = excluded.minutes,
				attack = excluded.attack, state = excluded.state, steps = excluded.steps, players = excluded.players, changed = clock_timestamp()`,
			e.ID, e.Title, e.Brief, e.Difficulty, e.Minutes, e.Attack, e.State, string(steps), e.Cast); err != nil {
			return nil, fmt.Errorf("store exercise: %w", err)
		}
		if before == e.State {
			return nil, nil // progress within a state is no act of its own
		}
		return []store.Row{store.Note("exercise", "", "", struct {
			ID    string         `json:"id"`
			State exercise.State `json:"state"`
			By    string         `json:"by"`
		}{e.ID, e.State, by})}, nil
	})
}

func (s *records) exercises(ctx context.Context) ([]exercise.Exercise, error) {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT id, title, brief, difficulty, minutes, attack, state, steps, players, begun, changed FROM training.exercise ORDER BY begun DESC, id LIMIT 200`,
	)
	if err != nil {
		return nil, fmt.Errorf("read exercises: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (exercise.Exercise, error) {
		var e exercise.Exercise
		var steps []byte
		if err := row.Scan(
			&e.ID,
			&e.Title,
			&e.Brief,
			&e.Difficulty,
			&e.Minutes,
			&e.Attack,
			&e.State,
			&steps,
			&e.Cast,
			&e.Begun,
			&e.Changed,
		); err != nil {
			return e, err
		}
		return e, json.Unmarshal(steps, &e.Steps)
	})
	if err != nil {
		return nil, fmt.Errorf("read exercises: %w", err)
	}
	return all, nil
}

// search is a question about the audit; empty fields do not matter.
type search struct {
	Person, Event, Kind string
	Before              int64 // seq; 0: from the newest
	Limit               int
}

func (s *records) audit(ctx context.Context, q search) ([]audit.Row, error) {
	// Each way of looking for rows has a statement, and so an index, of its own; somebody's or an event's rows are few.
	const columns = `SELECT chain, seq, at, kind, person, event, detail, prev, hash FROM `
	const rest = ` AND ($2 = '' OR kind = $2) AND ($3 = 0 OR seq < $3) ORDER BY seq DESC LIMIT $4`
	query, args := columns+`audit.newest($1, $2, $3)`, []any{q.Before, q.Kind, q.Limit}
	switch {
	case q.Event != "":
		query, args = columns+`audit.own WHERE event = $1 AND ($5 = '' OR person = $5)`+rest, []any{q.Event, q.Kind, q.Before, q.Limit, q.Person}
	case q.Person != "":
		query, args = columns+`audit.own WHERE person = $1`+rest, []any{q.Person, q.Kind, q.Before, q.Limit}
	}
	rows, err := s.Pool.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[audit.Row])
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	return all, nil
}

// export writes the chain behind seq after, in order, one JSON object a line, at most limit of them (0: all).
func (s *records) export(ctx context.Context, w io.Writer, after, limit int64) error {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT chain, seq, at, kind, person, event, detail, prev, hash FROM audit.own WHERE seq > $1
			ORDER BY seq LIMIT nullif($2::bigint, 0)`,
		after,
		limit,
	)
	if err != nil {
		return fmt.Errorf("read audit: %w", err)
	}
	err = audit.WriteRows(w, func(yield func(audit.Row, error) bool) {
		defer rows.Close()
		for rows.Next() {
			if !yield(pgx.RowToStructByPos[audit.Row](rows)) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(audit.Row{}, err)
		}
	})
	if err != nil {
		return fmt.Errorf("export audit: %w", err)
	}
	return nil
}

// story is what the chain says of an event, or of a person from a time on.
func (s *records) story(ctx context.Context, event, person string, since time.Time, most int) ([]audit.Row, error) {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT chain, seq, at, kind, person, event, detail, prev, hash FROM audit.story($1, $2, $3, 'infinity', $4)
			ORDER BY seq`,
		event,
		person,
		since,
		most,
	)
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[audit.Row])
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	return list, nil
}

// keepFeed keeps lines, and lets go of those that are too old to be shown.
func (s *records) keepFeed(ctx context.Context, lines []exercise.FeedLine) error {
	if len(lines) == 0 {
		return nil
	}
	text, err := json.Marshal(lines)
	if err != nil {
		return fmt.Errorf("encode feed: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO training.feed (line) SELECT x FROM jsonb_array_elements($1::jsonb) x`, string(text)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM training.feed WHERE number <= (SELECT max(number) FROM training.feed) - $1`, feedKept)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep feed: %w", err)
	}
	return nil
}

// feedOf is the feed as it was at a time: what the conductor had told, and what this service had written in its audit.
func (s *records) feedOf(ctx context.Context, before time.Time) ([]exercise.FeedLine, error) {
	rows, err := s.Pool.Query(ctx, `SELECT line FROM training.feed WHERE told < $1 ORDER BY number`, before)
	if err != nil {
		return nil, fmt.Errorf("read feed: %w", err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[exercise.FeedLine])
	if err != nil {
		return nil, fmt.Errorf("read feed: %w", err)
	}
	own, err := s.audit(ctx, search{Limit: 5 * feedKept})
	if err != nil {
		return nil, err
	}
	for _, r := range slices.Backward(own) {
		if !r.At.Before(before) {
			continue
		}
		if line, ok := lineOf(store.Row{Kind: r.Kind, Person: r.Person, Event: r.Event, Detail: r.Detail}, r.At.UTC()); ok {
			lines = append(lines, line)
		}
	}
	return lines, nil
}
