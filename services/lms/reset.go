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

// PostReset is POST /v1/reset: it deletes exercises and the training records of their casts. With All it deletes every
// exercise and all learners' records: lessons, attempts, completions, messages and undelivered events. 409 if the
// records have changed since the mark was exported; then nothing is deleted. Imported records that are delivered stay,
// except those of the people in the order. Sessions and the audit log stay. The risk scorer must be reset afterwards.
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

// lockRecords prevents changes of learners' records until the transaction ends. It includes attempts and completions,
// because their writers lock the lesson first.
const lockRecords = `LOCK TABLE training.lesson, training.mail IN EXCLUSIVE MODE`

// reset deletes what PostReset says. given is the time of a certificate in the person's zone. Delivered imported
// records stay, because the risk scorer is reset to a position after them.
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
					"learners' records have changed since they were exported: export them again")
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
			{`DELETE FROM training.campaign WHERE $1 OR id::text = ANY ($2)`, nil, nil}, // a campaign belongs to no exercise
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
