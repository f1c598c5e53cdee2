// Package audited writes to the database so that a change commits together with its audit rows, or not at all. Each
// workload has its own chain there, and reads only that.
package audited

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/audit"
)

// Row is an entry to be written. The database adds its number, time and hashes.
type Row struct {
	Kind   string `json:"kind"`             // what happened: "lesson.asked"
	Person string `json:"person,omitempty"` // the person it is about
	Event  string `json:"event,omitempty"`  // the event that caused it
	Detail string `json:"detail,omitempty"` // a JSON object, of a type for each kind
}

// Note returns a row whose detail is v as JSON. It panics if v cannot be encoded, which is a bug.
func Note(kind, person, event string, v any) Row {
	var b bytes.Buffer
	line := json.NewEncoder(&b)
	line.SetEscapeHTML(false) // so that ids have the same form as in PostgreSQL's JSON
	if err := line.Encode(v); err != nil {
		panic(fmt.Sprintf("detail of %s: %v", kind, err))
	}
	return Row{Kind: kind, Person: person, Event: event, Detail: strings.TrimSuffix(b.String(), "\n")}
}

// Beginner begins transactions: a pool, a connection or a transaction.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// Write runs act in a transaction, appends the rows that it returns, and commits. It returns the rows that have
// committed. Rows are appended last, so that the chain is locked briefly.
func Write(ctx context.Context, db Beginner, act func(pgx.Tx) ([]Row, error)) ([]Row, error) {
	var rows []Row
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var err error
		if rows, err = act(tx); err != nil {
			return err
		}
		return Append(ctx, tx, rows)
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Append adds rows to the writer's chain. It must be the last statement of its transaction, since it locks the chain
// until the transaction ends.
func Append(ctx context.Context, tx pgx.Tx, rows []Row) error {
	if len(rows) == 0 {
		return nil
	}
	text, err := json.Marshal(rows)
	if err != nil {
		return fmt.Errorf("encode audit rows: %w", err)
	}
	if _, err := tx.Exec(ctx, `SELECT audit.append($1::jsonb)`, string(text)); err != nil {
		return fmt.Errorf("append to audit: %w", err)
	}
	return nil
}

// Querier runs queries: a pool, a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Export reads the writer's own chain after the row after, in order, at most limit rows (0: all).
func Export(ctx context.Context, db Querier, after, limit int64) iter.Seq2[audit.Row, error] {
	return read(
		ctx, db,
		`SELECT chain, seq, at, kind, person, event, detail, prev, hash FROM audit.own
			WHERE seq > $1 ORDER BY seq LIMIT nullif($2::bigint, 0)`,
		after, limit,
	)
}

// Subject selects rows for Story: those about an event, about a person, or those about the person that name the event.
// Rows about the person are limited to Since and Until, if these are not zero.
type Subject struct {
	Event, Person string
	Since, Until  time.Time
}

// Story reads the rows of the writer's own chain about a subject, in order, at most most rows. It uses indexes, so its
// cost does not depend on the length of the chain.
func Story(ctx context.Context, db Querier, s Subject, most int64) iter.Seq2[audit.Row, error] {
	bound := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	return read(
		ctx, db,
		`SELECT chain, seq, at, kind, person, event, detail, prev, hash
			FROM audit.story($1, $2, coalesce($3::timestamptz, '-infinity'), coalesce($4::timestamptz, 'infinity'), $5::integer)
			ORDER BY seq`,
		s.Event, s.Person, bound(s.Since), bound(s.Until), most,
	)
}

// read runs the query when its rows are iterated.
func read(ctx context.Context, db Querier, query string, args ...any) iter.Seq2[audit.Row, error] {
	return func(yield func(audit.Row, error) bool) {
		rows, err := db.Query(ctx, query, args...)
		if err != nil {
			yield(audit.Row{}, fmt.Errorf("read audit: %w", err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			row, err := pgx.RowToStructByPos[audit.Row](rows)
			if err != nil {
				yield(row, fmt.Errorf("read audit: %w", err))
				return
			}
			if !yield(row, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(audit.Row{}, fmt.Errorf("read audit: %w", err))
		}
	}
}

// Collect reads all rows.
func Collect(rows iter.Seq2[audit.Row, error]) ([]audit.Row, error) {
	var all []audit.Row
	for row, err := range rows {
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, nil
}
