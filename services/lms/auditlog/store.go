package auditlog

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/audit"
)

// Query is a question about the audit; empty fields do not matter.
type Query struct {
	Person, Event, Kind string
	Before              int64 // seq; 0: from the newest
	Limit               int
}

// Search reads the entries that a query asks for, the newest first.
func (s *Store) Search(ctx context.Context, q Query) ([]audit.Row, error) {
	// Each way of looking for rows has a statement, and so an index, of its own; somebody's or an event's rows are few.
	const columns = `SELECT chain, seq, at, kind, person, event, detail, prev, hash FROM `
	const rest = ` AND ($2 = '' OR kind = $2) AND ($3 = 0 OR seq < $3) ORDER BY seq DESC LIMIT $4`
	query, args := columns+`audit.newest($1, $2, $3)`, []any{q.Before, q.Kind, q.Limit}
	switch {
	case q.Event != "":
		query, args = columns+`audit.own WHERE event = $1 AND ($5 = '' OR person = $5)`+rest, []any{
			q.Event,
			q.Kind,
			q.Before,
			q.Limit,
			q.Person,
		}
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
func (s *Store) export(ctx context.Context, w io.Writer, after, limit int64) error {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT chain, seq, at, kind, person, event, detail, prev, hash FROM audit.own WHERE seq > $1 ORDER BY seq LIMIT nullif($2::bigint, 0)`,
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
func (s *Store) story(ctx context.Context, event, person string, since time.Time, most int) ([]audit.Row, error) {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT chain, seq, at, kind, person, event, detail, prev, hash FROM audit.story($1, $2, $3, 'infinity', $4) ORDER BY seq`,
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
