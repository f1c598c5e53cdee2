package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/auditlog"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/postgres/audited"
)

// putExercise stores an exercise. A new state has an audit row.
func (s *recordStore) putExercise(ctx context.Context, e exercise.Exercise, by string) error {
	steps, err := json.Marshal(e.Steps)
	if err != nil {
		return fmt.Errorf("encode steps: %w", err)
	}
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		var before exercise.State
		err := tx.QueryRow(ctx, `SELECT state FROM training.exercise WHERE id = $1 FOR UPDATE`, e.ID).Scan(&before)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return nil, fmt.Errorf("read exercise: %w", err)
		}
		if _, err := tx.Exec(
			ctx,
			`INSERT INTO training.exercise (id, title, brief, difficulty, minutes, attack, state, steps, players)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (id) DO UPDATE SET title = excluded.title, brief = excluded.brief,
				difficulty = excluded.difficulty, minutes = excluded.minutes, attack = excluded.attack,
				state = excluded.state, steps = excluded.steps, players = excluded.players, changed = clock_timestamp()`,
			e.ID, e.Title, e.Brief, e.Difficulty, e.Minutes, e.Attack, e.State, string(steps), e.Cast); err != nil {
			return nil, fmt.Errorf("store exercise: %w", err)
		}
		if before == e.State {
			return nil, nil // progress within a state is not audited
		}
		return []audited.Row{audited.Note("exercise", "", "", struct {
			ID    string         `json:"id"`
			State exercise.State `json:"state"`
			By    string         `json:"by"`
		}{e.ID, e.State, by})}, nil
	})
}

// exercises returns the exercises, the latest first.
func (s *recordStore) exercises(ctx context.Context) ([]exercise.Exercise, error) {
	rows, err := s.Pool.Query(ctx, `SELECT id, title, brief, difficulty, minutes, attack, state, steps, players,
			begun, changed
		FROM training.exercise ORDER BY begun DESC, id LIMIT 200`)
	if err != nil {
		return nil, fmt.Errorf("read exercises: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (exercise.Exercise, error) {
		var e exercise.Exercise
		var steps []byte
		if err := row.Scan(
			&e.ID, &e.Title, &e.Brief, &e.Difficulty, &e.Minutes, &e.Attack, &e.State, &steps, &e.Cast, &e.Begun, &e.Changed,
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

// keepFeed stores lines of the feed and deletes all but the latest.
func (s *recordStore) keepFeed(ctx context.Context, lines []exercise.FeedLine) error {
	if len(lines) == 0 {
		return nil
	}
	text, err := json.Marshal(lines)
	if err != nil {
		return fmt.Errorf("encode feed: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.Pool, func(tx pgx.Tx) error {
		const insert = `INSERT INTO training.feed (line) SELECT x FROM jsonb_array_elements($1::jsonb) x`
		if _, err := tx.Exec(ctx, insert, string(text)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM training.feed
			WHERE number <= (SELECT max(number) FROM training.feed) - $1`, feedKept)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep feed: %w", err)
	}
	return nil
}

// feedOf is the feed before a time: the stored lines of the conductor, and the lines of this service's audit rows.
func (s *recordStore) feedOf(ctx context.Context, log *auditlog.Store, before time.Time) ([]exercise.FeedLine, error) {
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
		row := audited.Row{Kind: r.Kind, Person: r.Person, Event: r.Event, Detail: r.Detail}
		if line, ok := lineOf(row, r.At.UTC()); ok {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// waitingOrders returns the orders that no conductor has taken, the oldest first.
func (s *recordStore) waitingOrders(ctx context.Context) ([]exercise.Order, error) {
	rows, err := s.Pool.Query(ctx, `SELECT number, body FROM training.console_order
		WHERE state = $1 ORDER BY number LIMIT 50`, exercise.OrderWaiting)
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (exercise.Order, error) {
		var o exercise.Order
		var n int64
		var body []byte
		if err := row.Scan(&n, &body); err != nil {
			return o, err
		}
		err := json.Unmarshal(body, &o)
		o.Number = n
		return o, err
	})
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	if all == nil {
		all = []exercise.Order{}
	}
	return all, nil
}

// orders returns the latest orders of some kinds, the newest first.
func (s *recordStore) orders(ctx context.Context, limit int, kinds ...string) ([]placed, error) {
	rows, err := s.Pool.Query(ctx, `SELECT number, body, role, state, note, result, made, changed
		FROM training.console_order WHERE kind = ANY($1) ORDER BY number DESC LIMIT $2`, kinds, limit)
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (placed, error) {
		var p placed
		var n int64
		var body, result []byte
		if err := row.Scan(&n, &body, &p.Role, &p.State, &p.Note, &result, &p.Made, &p.Changed); err != nil {
			return p, err
		}
		err := json.Unmarshal(body, &p.Order)
		if err == nil && result != nil {
			err = json.Unmarshal(result, &p.Result)
		}
		p.Number = n
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("read orders: %w", err)
	}
	return all, nil
}

// reportOrder stores a report about an order: 404 if there is no such order, 409 if its state does not allow the
// report.
func (s *recordStore) reportOrder(ctx context.Context, n int64, report exercise.Report, by string) error {
	var result *string
	if report.Result != nil {
		b, err := json.Marshal(report.Result)
		if err != nil {
			return fmt.Errorf("encode result: %w", err)
		}
		text := string(b)
		result = &text
	}
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		var kind, state string
		err := tx.QueryRow(ctx, `SELECT kind, state FROM training.console_order WHERE number = $1 FOR UPDATE`, n).
			Scan(&kind, &state)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, httpjson.Errorf(http.StatusNotFound, "unknown_order", "there is no order %d", n)
		}
		if err != nil {
			return nil, fmt.Errorf("read order: %w", err)
		}
		if report.State == exercise.ReportTaken && state != exercise.OrderWaiting ||
			report.State != exercise.ReportTaken && state != exercise.ReportTaken {
			return nil, httpjson.Errorf(http.StatusConflict, "order_"+state, "order %d is already %s", n, state)
		}
		_, err = tx.Exec(ctx, `UPDATE training.console_order
			SET state = $2, note = $3, result = $4, changed = clock_timestamp() WHERE number = $1`,
			n, report.State, report.Note, result)
		if err != nil {
			return nil, fmt.Errorf("store report: %w", err)
		}
		if report.State == exercise.ReportTaken {
			return nil, nil
		}
		return []audited.Row{audited.Note("order."+report.State, "", "", struct {
			Number int64  `json:"number"`
			Order  string `json:"order"`
			Note   string `json:"note,omitempty"`
			By     string `json:"by"`
		}{n, kind, report.Note, by})}, nil
	})
}

// putScenarios replaces the scenarios. If the conductor has just started, orders that an earlier one left open fail.
func (s *recordStore) putScenarios(ctx context.Context, list exercise.Scenarios, by string) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		if _, err := tx.Exec(ctx, `DELETE FROM training.scenario`); err != nil {
			return nil, fmt.Errorf("store scenarios: %w", err)
		}
		for i, x := range list.Scenarios {
			body, err := json.Marshal(x)
			if err != nil {
				return nil, fmt.Errorf("encode scenario: %w", err)
			}
			_, err = tx.Exec(ctx, `INSERT INTO training.scenario (name, place, body) VALUES ($1, $2, $3)
				ON CONFLICT (name) DO UPDATE SET place = excluded.place, body = excluded.body`, x.Name, i, string(body))
			if err != nil {
				return nil, fmt.Errorf("store scenarios: %w", err)
			}
		}
		if !list.Fresh {
			return nil, nil // a repetition, for a service that was restarted
		}
		tag, err := tx.Exec(ctx, `UPDATE training.console_order
			SET state = $1, note = 'the conductor was restarted', changed = clock_timestamp()
			WHERE state = $2 OR state = $3 AND made < clock_timestamp() - interval '1 minute'`,
			exercise.ReportFailed, exercise.ReportTaken, exercise.OrderWaiting)
		if err != nil {
			return nil, fmt.Errorf("end old orders: %w", err)
		}
		return []audited.Row{audited.Note("scenarios", "", "", struct {
			Scenarios int    `json:"scenarios"`
			Ended     int64  `json:"orders_ended"`
			By        string `json:"by"`
		}{len(list.Scenarios), tag.RowsAffected(), by})}, nil
	})
}

// scenarios returns the scenarios in the conductor's order.
func (s *recordStore) scenarios(ctx context.Context) ([]exercise.Scenario, error) {
	rows, err := s.Pool.Query(ctx, `SELECT body FROM training.scenario ORDER BY place`)
	if err != nil {
		return nil, fmt.Errorf("read scenarios: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (exercise.Scenario, error) {
		var x exercise.Scenario
		var body []byte
		if err := row.Scan(&body); err != nil {
			return x, err
		}
		return x, json.Unmarshal(body, &x)
	})
	if err != nil {
		return nil, fmt.Errorf("read scenarios: %w", err)
	}
	return all, nil
}

// giveHint stores that a hint is shown, with an audit row the first time.
func (s *recordStore) giveHint(
	ctx context.Context, id string, number int, hint exercise.Hint, by site.Principal,
) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		tag, err := tx.Exec(ctx, `INSERT INTO training.hint (exercise, number, cost) VALUES ($1, $2, $3)
			ON CONFLICT DO NOTHING`, id, number, hint.Cost)
		if err != nil {
			return nil, fmt.Errorf("store hint: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil, nil
		}
		return []audited.Row{audited.Note("hint", "", "", struct {
			Exercise string         `json:"exercise"`
			Number   int            `json:"number"`
			Cost     int            `json:"cost"`
			By       site.Principal `json:"by"`
		}{id, number, hint.Cost, by})}, nil
	})
}

// hintsGiven returns the numbers, from 1, of the hints of an exercise that are shown.
func (s *recordStore) hintsGiven(ctx context.Context, id string) ([]int, error) {
	rows, err := s.Pool.Query(ctx, `SELECT number FROM training.hint WHERE exercise = $1`, id)
	if err != nil {
		return nil, fmt.Errorf("read hints: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return nil, fmt.Errorf("read hints: %w", err)
	}
	return all, nil
}

// stuck is a person with an open lesson.
type stuck struct {
	Person   string
	Module   string
	State    string
	Since    time.Time // wall clock
	Attempts int
}

// stuck returns people with open lessons, those with the most attempts first.
func (s *recordStore) stuck(ctx context.Context, limit int) ([]stuck, error) {
	rows, err := s.Pool.Query(ctx, `SELECT l.person, l.module, l.state, l.made, count(a.number)
		FROM training.lesson l LEFT JOIN training.attempt a ON a.lesson = l.id
		WHERE l.state IN ('writing', 'ready', 'refused') GROUP BY l.id
		ORDER BY count(a.number) DESC, l.made LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("read open lessons: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[stuck])
	if err != nil {
		return nil, fmt.Errorf("read open lessons: %w", err)
	}
	return all, nil
}
