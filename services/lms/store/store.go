// Package store is what all packages of the learning system share of its database: a write that commits together with
// its audit rows. The statements are in the packages of their subjects.
package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/postgres/audited"
)

// Store gives access to the database schema training. Its methods are safe for concurrent use.
type Store struct {
	Pool  *pgxpool.Pool
	Wrote func([]audited.Row) // called with audit rows after they have committed; may be nil
}

// ErrNotFound means that a record does not exist, or does not belong to the person in the query.
var ErrNotFound = errors.New("not found")

// Write runs act in a transaction and appends the audit rows that it returns. Both commit together or not at all.
func (s *Store) Write(ctx context.Context, act func(pgx.Tx) ([]audited.Row, error)) error {
	rows, err := audited.Write(ctx, s.Pool, act)
	if err == nil && s.Wrote != nil {
		s.Wrote(rows)
	}
	return err
}

// Record appends audit rows that belong to no other change.
func (s *Store) Record(ctx context.Context, rows ...audited.Row) error {
	return s.Write(ctx, func(pgx.Tx) ([]audited.Row, error) { return rows, nil })
}
