package auditlog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/audit"
)

// Query selects rows of the audit log. Empty fields match every row.
type Query struct {
	Person, Event, Kind string
	Before              int64 // sequence number; 0: from the newest row on
	Limit               int
}

// Search returns the rows of a query, the newest first.
func (s *Store) Search(ctx context.Context, q Query) ([]audit.Row, error) {
	// Each kind of search has its own statement, so that each uses an index. The rows about one person or event are few.
	const columns = `SELECT chain, seq, at, kind, person, event, detail, prev, hash FROM `
	const rest = ` AND ($2 = '' OR kind = $2) AND ($3 = 0 OR seq < $3) ORDER BY seq DESC LIMIT $4`
	query, args := columns+`audit.newest($1, $2, $3)`, []any{q.Before, q.Kind, q.Limit}
	switch {
	case q.Event != "":
		query = columns + `audit.own WHERE event = $1 AND ($5 = '' OR person = $5)` + rest
		args = []any{q.Event, q.Kind, q.Before, q.Limit, q.Person}
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
