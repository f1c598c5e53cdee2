package lms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/auditlog"
	"example.org/security-training/services/lms/store"
)

// records is the schema training.
type records struct{ *store.Store }

func (s *records) putExercise(ctx context.Context, e exercise.Exercise, by string) error {
	steps, err := json.Marshal(e.Steps)
	if err != nil {
		return fmt.Errorf("encode steps: %w", err)
	}
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		var before exercise.State
		err := tx.QueryRow(ctx, `SELECT state FROM training.exercise WHERE id = $1 FOR UPDATE`, e.ID).Scan(&before)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return nil, fmt.Errorf("read exercise: %w", err)
		}
		if _, err := tx.Exec(
			ctx,
			`INSERT INTO training.exercise (id, title, brief, difficulty, minutes, attack, state, steps, players) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (id) DO UPDATE SET title = excluded.title, brief = excluded.brief, difficulty = excluded.difficulty, minutes = excluded.minutes,
				attack = excluded.attack, state = excluded.state, steps = excluded.steps, players = excluded.players, changed = clock_timestamp()`,
			e.ID, e.Title, e.Brief, e.Difficulty, e.Minutes, e.Attack, e.State, string(steps), e.Cast); err != nil {
			return nil, fmt.Errorf("store exercise: %w", err)
		}
		if before == e.State {
			return nil, nil // progress within a state is no act of its own
		}
		return []store.Row{store.Note("exercise", "", "", struct {
			ID    string         `json:"id"`
			State exercise.State `json:"state"`
			By    string         `json:"by"`
		}{e.ID, e.State, by})}, nil
	})
}

func (s *records) exercises(ctx context.Context) ([]exercise.Exercise, error) {
	rows, err := s.Pool.Query(
		ctx,
		`SELECT id, title, brief, difficulty, minutes, attack, state, steps, players, begun, changed FROM training.exercise ORDER BY begun DESC, id LIMIT 200`,
	)
	if err != nil {
		return nil, fmt.Errorf("read exercises: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (exercise.Exercise, error) {
		var e exercise.Exercise
		var steps []byte
		if err := row.Scan(
			&e.ID,
			&e.Title,
			&e.Brief,
			&e.Difficulty,
			&e.Minutes,
			&e.Attack,
			&e.State,
			&steps,
			&e.Cast,
			&e.Begun,
			&e.Changed,
		); err != nil {
			return e, err
		}
		return e, json.Unmarshal(steps, &e.Steps)
	})
	if err != nil {
		return nil, fmt.Errorf("read exercises: %w", err)
	}
	return all, nil
}

// keepFeed keeps lines, and lets go of those that are too old to be shown.
func (s *records) keepFeed(ctx context.Context, lines []exercise.FeedLine) error {
	if len(lines) == 0 {
		return nil
	}
	text, err := json.Marshal(lines)
	if err != nil {
		return fmt.Errorf("encode feed: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO training.feed (line) SELECT x FROM jsonb_array_elements($1::jsonb) x`, string(text)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM training.feed WHERE number <= (SELECT max(number) FROM training.feed) - $1`, feedKept)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep feed: %w", err)
	}
	return nil
}

// feedOf is the feed as it was at a time: what the conductor had told, and what this service had written in its audit.
func (s *records) feedOf(ctx context.Context, log *auditlog.Store, before time.Time) ([]exercise.FeedLine, error) {
	rows, err := s.Pool.Query(ctx, `SELECT line FROM training.feed WHERE told < $1 ORDER BY number`, before)
	if err != nil {
		return nil, fmt.Errorf("read feed: %w", err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[exercise.FeedLine])
	if err != nil {
		return nil, fmt.Errorf("read feed: %w", err)
	}
	own, err := log.Search(ctx, auditlog.Query{Limit: 5 * feedKept})
	if err != nil {
		return nil, err
	}
	for _, r := range slices.Backward(own) {
		if !r.At.Before(before) {
			continue
		}
		if line, ok := lineOf(store.Row{Kind: r.Kind, Person: r.Person, Event: r.Event, Detail: r.Detail}, r.At.UTC()); ok {
			lines = append(lines, line)
		}
	}
	return lines, nil
}
