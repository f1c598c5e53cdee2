package training

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/postgres/audited"
)

// Learners' records are lessons, attempts, certificates and the steps in phishing campaigns. A reset of exercises does
// not delete them. They are deleted only on request, with the mark of the results that were exported before.

// results are the current records, with names by the roster.
func (tr *Training) results(ctx context.Context) (exercise.Results, error) {
	r := exercise.Results{At: tr.cfg.Now().UTC(), Lessons: []exercise.LessonResult{}, Drills: []exercise.DrillResult{}}
	key, err := tr.Store.CertificateKey(ctx)
	if err != nil {
		return r, err
	}
	name := tr.scorer.Names()
	if r.Mark, err = RecordsMark(ctx, tr.Store.Pool); err != nil { // first, so that a later change makes the mark outdated
		return r, err
	}
	err = tr.Store.eachLesson(ctx, time.Time{}, func(t LessonRecord) error {
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
				x.Certificate = CertificateNumber(key, t.ID)
			}
		}
		r.Lessons = append(r.Lessons, x)
		return nil
	})
	if err != nil {
		return r, err
	}
	drills, err := tr.campaigns.Store.Results(ctx)
	for i := range drills {
		drills[i].Name = name(drills[i].Person).Name
	}
	r.Drills = append(r.Drills, drills...)
	return r, err
}

// GetResults is GET /v1/results: exercise.Results. It writes an audit row.
func (tr *Training) GetResults(w http.ResponseWriter, r *http.Request) error {
	results, err := tr.results(r.Context())
	if err != nil {
		return err
	}
	if err := tr.Store.Record(r.Context(), resultsRow(mesh.Caller(r.Context()).Name)); err != nil {
		return err
	}
	return httpjson.Write(w, http.StatusOK, results)
}

// resultsRow is the audit row of an export of results, by a workload or by a user.
func resultsRow[By string | site.Principal](by By) audited.Row {
	return audited.Note("export", "", "", struct {
		By   By     `json:"by"`
		What string `json:"what"`
	}{by, "results"})
}

// ShowResults is the same as a download for an instructor: results.csv or results.json.
func (tr *Training) ShowResults(req *site.Request) error {
	file := req.R.PathValue("file")
	if file != "results.csv" && file != "results.json" {
		return site.NotFound()
	}
	results, err := tr.results(req.Ctx())
	if err != nil {
		return err
	}
	if err := tr.Store.Record(req.Ctx(), resultsRow(req.Viewer.Principal)); err != nil {
		return err
	}
	req.W.Header().Set("Content-Disposition", `attachment; filename="`+file+`"`)
	if file == "results.csv" {
		req.W.Header().Set("Content-Type", "text/csv; charset=utf-8")
		return results.WriteCSV(req.W)
	}
	req.W.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(req.W).Encode(results)
}

// querier is a pgxpool.Pool or a pgx.Tx.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// RecordsMark is a digest of learners' records. It changes when a record is added, deleted or changed.
func RecordsMark(ctx context.Context, q querier) (mark string, err error) {
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

// KeepCertificates stores the lesson and the date of each certificate of all people, or of some, before their records
// are deleted, and returns their number. given is the time of a certificate in the person's zone.
func KeepCertificates(
	ctx context.Context, tx pgx.Tx, all bool, people []string, given func(person string, at time.Time) time.Time,
) (int, error) {
	rows, err := tx.Query(ctx, `SELECT lesson, person, at FROM training.completion
		WHERE passed AND ($1 OR person = ANY ($2))`, all, people)
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
