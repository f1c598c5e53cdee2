// Package store is what every part of the learning system needs of its database: a write commits together with its rows
// of the audit. The statements are with the subjects that they belong to.
package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/postgres/audited"
)

// Store is the schema training. A change that matters commits with its audit row.
type Store struct {
	Pool  *pgxpool.Pool
	Wrote func([]audited.Row) // told of audit rows that have committed; may be nil
}

// ErrNotFound is the answer to something that is not there, or is not for the one who asks.
var ErrNotFound = errors.New("not found")

// Write runs act in a transaction and appends the audit rows that it returns: they commit together, or not at all.
func (s *Store) Write(ctx context.Context, act func(pgx.Tx) ([]audited.Row, error)) error {
	rows, err := audited.Write(ctx, s.Pool, act)
	if err == nil && s.Wrote != nil {
		s.Wrote(rows)
	}
	return err
}

// Record appends rows that report nothing but themselves.
func (s *Store) Record(ctx context.Context, rows ...audited.Row) error {
	return s.Write(ctx, func(pgx.Tx) ([]audited.Row, error) { return rows, nil })
}
