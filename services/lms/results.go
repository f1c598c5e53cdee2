package lms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/mesh"
)

// Learners' records are lessons, attempts, certificates and what was done with the mails of drills. A reset of
// exercises does not touch them. They are deleted only by name, with the mark of the results that were kept before.

// results are the records as they are, with names by the roster.
func (l *LMS) results(ctx context.Context) (exercise.Results, error) {
	r := exercise.Results{At: l.cfg.Now().UTC(), Lessons: []exercise.LessonResult{}, Drills: []exercise.DrillResult{}}
	key, err := l.store.CertificateKey(ctx)
	if err != nil {
		return r, err
	}
	name := l.scorer.Names()
	if r.Mark, err = l.store.recordsMark(ctx, l.store.Pool); err != nil { // first: what comes after it makes it another
		return r, err
	}
	err = l.store.eachLesson(ctx, time.Time{}, func(t taught) error {
		x := exercise.LessonResult{
			Person: t.Person, Name: name(t.Person).Name, Module: t.Module, State: t.State, Asked: t.Asked.UTC(),
			Attempts: []exercise.AttemptResult{},
		}
		for _, a := range t.Attempts {
			x.Attempts = append(x.Attempts, exercise.AttemptResult{
				Number: a.Number, Correct: a.Correct, Questions: a.Questions, Passed: a.Passed, At: a.At.UTC(),
			})
		}
		if c := t.Completion; c != nil {
			x.Share, x.Ended = c.Share, c.At.UTC()
			if c.Passed {
				x.Certificate = certificateNumber(key, t.ID)
			}
		}
		r.Lessons = append(r.Lessons, x)
		return nil
	})
	if err != nil {
		return r, err
	}
	drills, err := l.store.drillResults(ctx)
	for i := range drills {
		drills[i].Name = name(drills[i].Person).Name
	}
	r.Drills = append(r.Drills, drills...)
	return r, err
}

// GetResults is GET /v1/results: Results.
func (l *LMS) GetResults(w http.ResponseWriter, r *http.Request) error {
	results, err := l.results(r.Context())
	if err != nil {
		return err
	}
	if err := l.store.Record(r.Context(), resultsRow(mesh.Caller(r.Context()).Name)); err != nil {
		return err
	}
	return httpjson.Write(w, http.StatusOK, results)
}

func resultsRow[By string | site.Principal](by By) store.Row {
	return store.Note("export", "", "", struct {
		By   By     `json:"by"`
		What string `json:"what"`
	}{by, "results"})
}

// showResults is the same for an instructor's browser, to be saved: results.csv or results.json.
func (l *LMS) showResults(v *site.Request) error {
	file := v.R.PathValue("file")
	if file != "results.csv" && file != "results.json" {
		return site.NotFound()
	}
	results, err := l.results(v.Ctx())
	if err != nil {
		return err
	}
	if err := l.store.Record(v.Ctx(), resultsRow(v.Viewer.Principal)); err != nil {
		return err
	}
	v.W.Header().Set("Content-Disposition", `attachment; filename="`+file+`"`)
	if file == "results.csv" {
		v.W.Header().Set("Content-Type", "text/csv; charset=utf-8")
		return results.WriteCSV(v.W)
	}
	v.W.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(v.W).Encode(results)
}

// ResetOrder is the body of POST /v1/reset: these exercises, and what these people, their cast, were taught; or All,
// with the Mark of the results that were kept.
type ResetOrder struct {
	All       bool     `json:"all,omitempty"`
	Mark      string   `json:"mark,omitempty"`
	Exercises []string `json:"exercises,omitempty"`
	People    []string `json:"people,omitempty"`
}

// PostReset is POST /v1/reset: takes exercises away and what their casts were taught. With All it takes away every
// exercise and all learners' records: lessons, attempts, completions, mails and events under way; 409 if the records
// are others than the results of that mark, and nothing is done. What PUT /v1/training has brought to the scorer
// stays, unless it is of the people who are named; who is signed in stays so, and the audit never goes back. The
// scorer is to be reset after it.
func (l *LMS) PostReset(w http.ResponseWriter, r *http.Request) error {
	var order ResetOrder
	if err := httpjson.Read(w, r, 1<<20, &order); err != nil {
		return err
	}
	if order.All == (len(order.Exercises)+len(order.People) > 0) || order.All == (order.Mark == "") {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_reset",
			"want either exercises and people, or all with the mark of GET /v1/results")
	}
	defer l.outbox.Hold()()
	name := l.scorer.Names()
	given := func(person string, at time.Time) time.Time { return at.In(words.Location(name(person).Zone)) }
	if err := l.store.reset(r.Context(), order, given, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// querier is a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// recordsMark tells learners' records from others: it changes when there is one more, one less, or one that went on.
func (s *records) recordsMark(ctx context.Context, q querier) (mark string, err error) {
	err = q.QueryRow(ctx, `SELECT md5(coalesce(string_agg(line, chr(10) ORDER BY line), '')) FROM (
		SELECT concat_ws(' ', 'lesson', id, state) AS line FROM training.lesson
		UNION ALL SELECT concat_ws(' ', 'attempt', lesson, number) FROM training.attempt
		UNION ALL SELECT concat_ws(' ', 'mail', id, 'o' || opened, 'c' || clicked, 's' || submitted, 'r' || reported)
			FROM training.mail) records`).Scan(&mark)
	if err != nil {
		return "", fmt.Errorf("read records: %w", err)
	}
	return mark, nil
}

func (s *records) drillResults(ctx context.Context) ([]exercise.DrillResult, error) {
	rows, err := s.Pool.Query(ctx, `SELECT person, campaign::text, lure, sent, opened, clicked, submitted, reported
		FROM training.mail ORDER BY sent, id`)
	if err != nil {
		return nil, fmt.Errorf("read mails: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (exercise.DrillResult, error) {
		var d exercise.DrillResult
		var opened, clicked, submitted, reported *time.Time
		err := row.Scan(&d.Person, &d.Drill, &d.Lure, &d.Sent, &opened, &clicked, &submitted, &reported)
		d.Sent = d.Sent.UTC()
		for to, at := range map[*time.Time]*time.Time{&d.Opened: opened, &d.Clicked: clicked, &d.Submitted: submitted, &d.Reported: reported} {
			if at != nil {
				*to = at.UTC()
			}
		}
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("read mails: %w", err)
	}
	return list, nil
}

// lockRecords keeps records as they are until the transaction ends: every writer of an attempt or a completion takes
// a lesson first.
const lockRecords = `LOCK TABLE training.lesson, training.mail IN EXCLUSIVE MODE`

// reset takes away what PostReset says. Given is the time of a person's certificate in the zone that it bears its
// date in. Sessions, links and the audit stay, and of everybody's training what was imported and has been delivered:
// the scorer goes back to a position behind it, and counts it still.
func (s *records) reset(
	ctx context.Context, order ResetOrder, given func(person string, at time.Time) time.Time, by string,
) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		if order.All {
			if _, err := tx.Exec(ctx, lockRecords); err != nil {
				return nil, fmt.Errorf("reset: %w", err)
			}
			mark, err := s.recordsMark(ctx, tx)
			if err != nil {
				return nil, err
			}
			if mark != order.Mark {
				return nil, httpjson.Errorf(http.StatusConflict, "records_changed",
					"learners' records are others than those that were kept: keep them again")
			}
		}
		certificates, err := keepCertificates(ctx, tx, order, given)
		if err != nil {
			return nil, err
		}
		var lessons, played int64
		for _, q := range []struct {
			text  string
			of    []string
			count *int64
		}{
			{`DELETE FROM training.outbox o WHERE event->>'person' = ANY ($2)
				OR $1 AND (delivered IS NULL OR id ~ '^training:drill-[0-9a-f-]{36}-[a-z]+$'
					OR EXISTS (SELECT FROM training.completion c WHERE c.event = o.id))`, order.People, nil},
			// Attempts and completions go with their lessons.
			{`DELETE FROM training.lesson WHERE $1 OR person = ANY ($2)`, order.People, &lessons},
			{`DELETE FROM training.mail WHERE $1 OR person = ANY ($2)`, order.People, nil},
			{`DELETE FROM training.campaign WHERE $1 OR id::text = ANY ($2)`, nil, nil}, // a campaign is of no exercise
			{`DELETE FROM training.hint WHERE $1 OR exercise = ANY ($2)`, order.Exercises, nil},
			{`DELETE FROM training.exercise WHERE $1 OR id = ANY ($2)`, order.Exercises, &played},
		} {
			tag, err := tx.Exec(ctx, q.text, order.All, q.of)
			if err != nil {
				return nil, fmt.Errorf("reset: %w", err)
			}
			if q.count != nil {
				*q.count = tag.RowsAffected()
			}
		}
		return []store.Row{store.Note("reset", "", "", struct {
			By           string `json:"by"`
			Lessons      int64  `json:"lessons"`
			Certificates int    `json:"certificates"`
			Exercises    int64  `json:"exercises"`
			Records      bool   `json:"records"` // learners' records were deleted by name
		}{by, lessons, certificates, played, order.All})}, nil
	})
}

// keepCertificates notes the number and the date of each certificate whose record is about to be deleted, and counts
// them.
func keepCertificates(
	ctx context.Context, tx pgx.Tx, order ResetOrder, given func(person string, at time.Time) time.Time,
) (int, error) {
	rows, err := tx.Query(ctx, `SELECT lesson, person, at FROM training.completion
		WHERE passed AND ($1 OR person = ANY ($2))`, order.All, order.People)
	if err != nil {
		return 0, fmt.Errorf("read certificates: %w", err)
	}
	var lessons []uuid.UUID
	var days []string
	var lesson uuid.UUID
	var person string
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&lesson), &person, &at}, func() error {
		lessons, days = append(lessons, lesson), append(days, given(person, at).Format(time.DateOnly))
		return nil
	}); err != nil {
		return 0, fmt.Errorf("read certificates: %w", err)
	}
	ids := make([]string, len(lessons))
	for i, id := range lessons {
		ids[i] = id.String()
	}
	if _, err := tx.Exec(ctx, `INSERT INTO training.deleted_certificate (lesson, given)
		SELECT * FROM unnest($1::text[]::uuid[], $2::text[]::date[]) ON CONFLICT DO NOTHING`, ids, days); err != nil {
		return 0, fmt.Errorf("keep certificates: %w", err)
	}
	return len(lessons), nil
}

// deletedCertificate is the date on a certificate whose record was deleted; zero if nothing says it.
func (s *records) deletedCertificate(ctx context.Context, lesson uuid.UUID) (given time.Time, err error) {
	const query = `SELECT given FROM training.deleted_certificate WHERE lesson = $1`
	err = s.Pool.QueryRow(ctx, query, [16]byte(lesson)).Scan(&given)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return time.Time{}, fmt.Errorf("read deleted certificates: %w", err)
	}
	return given, nil
}

// recordsView is the page on which learners' records are deleted.
type recordsView struct {
	consoleFrame
	Learners, Lessons, Attempts, Certificates, Mails int
	Orders                                           []placed
}

// deleteWord is what is to be typed before learners' records are deleted.
const deleteWord = "delete"

func (l *LMS) showRecords(v *site.Request) error {
	m := recordsView{consoleFrame: l.consoleFrame(v, "/console/records")}
	err := l.store.Pool.QueryRow(v.Ctx(), `SELECT
		(SELECT count(*) FROM (SELECT person FROM training.lesson UNION SELECT person FROM training.mail) p),
		(SELECT count(*) FROM training.lesson), (SELECT count(*) FROM training.attempt),
		(SELECT count(*) FROM training.completion WHERE passed),
		(SELECT count(*) FROM training.mail)`).Scan(&m.Learners, &m.Lessons, &m.Attempts, &m.Certificates, &m.Mails)
	if err != nil {
		return fmt.Errorf("count records: %w", err)
	}
	if m.Orders, err = l.store.orders(v.Ctx(), 6, exercise.OrderReset, exercise.OrderForget); err != nil {
		return err
	}
	return l.site.Render(v, "console_records", "Learners' records", "/console", m)
}
