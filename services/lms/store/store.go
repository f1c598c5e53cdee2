// Package store is what every part of the learning system needs of its database: a write commits together with its rows
// of the audit. The statements are with the subjects that they belong to.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Store is the schema training. A change that matters commits with its audit row.
type Store struct {
	Pool  *pgxpool.Pool
	Wrote func([]Row) // told of audit rows that have committed; may be nil
}

// Row is an entry of this workload's chain in the database.
type Row struct {
	Kind   string `json:"kind"`
	Person string `json:"person,omitempty"`
	Event  string `json:"event,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Note makes a row whose detail is v as JSON.
func Note(kind, person, event string, v any) Row {
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte(`{}`) // none of the structs given here can fail
	}
	return Row{Kind: kind, Person: person, Event: event, Detail: string(b)}
}

// ErrNotFound is the answer to something that is not there, or is not for the one who asks.
var ErrNotFound = errors.New("not found")

// Write runs act in a transaction and appends the audit rows that it returns, last, so that the chain is locked
// briefly.
func (s *Store) Write(ctx context.Context, act func(pgx.Tx) ([]Row, error)) error {
	var rows []Row
	err := pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		var err error
		rows, err = act(tx)
		if err != nil || len(rows) == 0 {
			return err
		}
		b, err := json.Marshal(rows)
		if err != nil {
			return fmt.Errorf("encode audit rows: %w", err)
		}
		if _, err := tx.Exec(ctx, `SELECT audit.append($1::jsonb)`, string(b)); err != nil {
			return fmt.Errorf("append to audit: %w", err)
		}
		return nil
	})
	if err == nil && s.Wrote != nil {
		s.Wrote(rows)
	}
	return err
}

// Record appends rows that report nothing but themselves.
func (s *Store) Record(ctx context.Context, rows ...Row) error {
	return s.Write(ctx, func(pgx.Tx) ([]Row, error) { return rows, nil })
}
