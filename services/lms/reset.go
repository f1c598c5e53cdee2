package lms

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/training"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/postgres/audited"
)

// PostReset is POST /v1/reset: takes exercises away and what their casts were taught. With All it takes away every
// exercise and all learners' records: lessons, attempts, completions, mails and events under way; 409 if the records
// are others than the results of that mark, and nothing is done. What PUT /v1/training has brought to the scorer
// stays, unless it is of the people who are named; who is signed in stays so, and the audit never goes back. The
// scorer is to be reset after it.
func (l *LMS) PostReset(w http.ResponseWriter, r *http.Request) error {
	var order lmsapi.ResetOrder
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
	if err := reset(r.Context(), l.db, order, given, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// lockRecords keeps records as they are until the transaction ends: every writer of an attempt or a completion takes
// a lesson first.
const lockRecords = `LOCK TABLE training.lesson, training.mail IN EXCLUSIVE MODE`

// reset takes away what PostReset says. Given is the time of a person's certificate in the zone that it bears its
// date in. Sessions, links and the audit stay, and of everybody's training what was imported and has been delivered:
// the scorer goes back to a position behind it, and counts it still.
func reset(
	ctx context.Context,
	db *store.Store,
	order lmsapi.ResetOrder,
	given func(person string, at time.Time) time.Time,
	by string,
) error {
	return db.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		if order.All {
			if _, err := tx.Exec(ctx, lockRecords); err != nil {
				return nil, fmt.Errorf("reset: %w", err)
			}
			mark, err := training.RecordsMark(ctx, tx)
			if err != nil {
				return nil, err
			}
			if mark != order.Mark {
				return nil, httpjson.Errorf(http.StatusConflict, "records_changed",
					"learners' records are others than those that were kept: keep them again")
			}
		}
		certificates, err := training.KeepCertificates(ctx, tx, order.All, order.People, given)
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
		return []audited.Row{audited.Note("reset", "", "", struct {
			By           string `json:"by"`
			Lessons      int64  `json:"lessons"`
			Certificates int    `json:"certificates"`
			Exercises    int64  `json:"exercises"`
			Records      bool   `json:"records"` // learners' records were deleted by name
		}{by, lessons, certificates, played, order.All})}, nil
	})
}
