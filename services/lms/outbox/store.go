package outbox

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
)

// Store is the table of training events.
type Store struct{ *store.Store }

type waiting struct {
	Seq   int64
	ID    string
	Event activity.Event
	Ends  bool // it ended a lesson of this system, whose page shows the score after it
}

// waiting returns the first events that are not delivered, in order.
func (s *Store) waiting(ctx context.Context, limit int) ([]waiting, error) {
	rows, err := s.Pool.Query(ctx, `SELECT seq, id, event,
			EXISTS (SELECT FROM training.completion c WHERE c.event = o.id)
		FROM training.outbox o WHERE delivered IS NULL ORDER BY seq LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (waiting, error) {
		var w waiting
		var event []byte
		if err := row.Scan(&w.Seq, &w.ID, &event, &w.Ends); err != nil {
			return w, err
		}
		return w, json.Unmarshal(event, &w.Event)
	})
	if err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	return all, nil
}

// delivered stores the receipts of a batch, one for each event.
func (s *Store) delivered(ctx context.Context, batch []waiting, receipts []activity.Receipt) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		var seqs []int64
		var statuses, reasons []string
		var rows []audited.Row
		for i, w := range batch {
			r := receipts[i]
			seqs, statuses, reasons = append(seqs, w.Seq), append(statuses, string(r.Status)), append(reasons, r.Reason)
			rows = append(rows, audited.Note("delivery", w.Event.Person, w.ID, r))
		}
		_, err := tx.Exec(ctx, `UPDATE training.outbox o
			SET delivered = clock_timestamp(), status = r.status, reason = r.reason
			FROM unnest($1::bigint[], $2::text[], $3::text[]) AS r (seq, status, reason)
			WHERE o.seq = r.seq`, seqs, statuses, reasons)
		if err != nil {
			return nil, fmt.Errorf("store receipts: %w", err)
		}
		return rows, nil
	})
}

// Add stores imported training records as events. Records with a known id are left as they are.
func (s *Store) Add(ctx context.Context, events []activity.Event, by string) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		var ids, texts []string
		for _, e := range events {
			b, err := json.Marshal(e)
			if err != nil {
				return nil, fmt.Errorf("encode training record: %w", err)
			}
			ids, texts = append(ids, e.ID), append(texts, string(b))
		}
		tag, err := tx.Exec(ctx, `INSERT INTO training.outbox (id, event)
			SELECT id, event::jsonb FROM unnest($1::text[], $2::text[]) AS r (id, event)
			ON CONFLICT (id) DO NOTHING`, ids, texts)
		if err != nil {
			return nil, fmt.Errorf("store training records: %w", err)
		}
		return []audited.Row{
			audited.Note("import", "", "", imported{By: by, Records: len(events), New: tag.RowsAffected()}),
		}, nil
	})
}

// imported is the audit detail of an import.
type imported struct {
	By      string `json:"by"`
	Records int    `json:"records"`
	New     int64  `json:"new"`
}

// Insert stores an event in the transaction of the change that it reports.
func Insert(ctx context.Context, tx pgx.Tx, e activity.Event) error {
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	if _, err := tx.Exec(ctx, `INSERT INTO training.outbox (id, event) VALUES ($1, $2)`, e.ID, string(text)); err != nil {
		return fmt.Errorf("store event: %w", err)
	}
	return nil
}

// Undelivered counts the events among ids that are not delivered.
func (s *Store) Undelivered(ctx context.Context, ids []string) (n int64, err error) {
	const query = `SELECT count(*) FROM training.outbox WHERE id = ANY ($1) AND delivered IS NULL`
	if err := s.Pool.QueryRow(ctx, query, ids).Scan(&n); err != nil {
		return 0, fmt.Errorf("read outbox: %w", err)
	}
	return n, nil
}

// scored stores the score after an event.
func (s *Store) scored(ctx context.Context, event string, after risk.Score) error {
	_, err := s.Pool.Exec(ctx, `UPDATE training.completion SET after = $2 WHERE event = $1`, event, int64(after))
	if err != nil {
		return fmt.Errorf("store score after training: %w", err)
	}
	return nil
}
