package riskscorer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

// store commits the batch in one transaction. If that fails because of a line, each line is committed by itself, so
// that the others are not delayed; a line that keeps failing becomes a dead letter.
func (s *Scorer) store(ctx context.Context, b *batch) error {
	err := s.commit(ctx, b, b.lines)
	if err == nil || transient(err) || ctx.Err() != nil {
		return err
	}
	s.log.Warn("a batch cannot be stored whole", "collector", b.caller.Name, "lines", len(b.lines), "error", err)
	for _, l := range b.lines {
		var last error
		for range attempts {
			if last = s.commit(ctx, b, []*line{l}); last == nil || transient(last) || ctx.Err() != nil {
				break
			}
		}
		switch {
		case last == nil:
		case transient(last) || ctx.Err() != nil:
			return last
		default:
			if err := s.storeDeadLetter(ctx, b, l, last); err != nil {
				return err
			}
		}
	}
	return nil
}

// commit stores lines in one transaction, and repeats it after a deadlock or a serialization failure.
func (s *Scorer) commit(ctx context.Context, b *batch, lines []*line) error {
	for try := 0; ; try++ {
		for _, l := range lines {
			l.receipt = activity.Receipt{Seq: l.Seq}
			l.person, l.late = "", false
		}
		var states map[string]*personState
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			var err error
			states, err = s.storeLines(ctx, tx, b, lines)
			return err
		})
		if err == nil {
			s.cache.put(states)
			s.standings.dirty.Store(true)
			return nil
		}
		var refusal *pgconn.PgError
		if try < attempts && errors.As(err, &refusal) && (refusal.Code == "40P01" || refusal.Code == "40001") {
			continue
		}
		return err
	}
}

// storeLines stores lines, their scores and their audit rows. Locks are taken in the same order everywhere, so that
// replicas do not deadlock: person rows by id, then events by id, then the collector's watermark and the audit's tip.
func (s *Scorer) storeLines(ctx context.Context, tx pgx.Tx, b *batch, lines []*line) (map[string]*personState, error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock_shared(hashtext('riskscorer.roster'))`); err != nil {
		return nil, fmt.Errorf("wait for the roster: %w", err)
	}
	clock, err := now(ctx, tx)
	if err != nil {
		return nil, err
	}
	good, letters := sortOut(lines, clock.Now)
	if err := s.attribute(ctx, tx, b, good); err != nil {
		return nil, err
	}
	people, err := lockPeople(ctx, tx, good)
	if err != nil {
		return nil, err
	}
	if err := insertEvents(ctx, tx, b, good); err != nil {
		return nil, err
	}
	if err := countUnowned(ctx, tx, good); err != nil {
		return nil, err
	}
	rows, states, err := s.assess(ctx, tx, people, good, clock)
	if err != nil {
		return nil, err
	}
	for _, l := range letters {
		if err := l.store(ctx, tx, b); err != nil {
			return nil, err
		}
		rows = append(rows, unfit(scorerapi.KindDeadLetter, l.line, l.reason))
	}
	for _, l := range lines {
		if l.receipt.Status == activity.Rejected {
			rows = append(rows, unfit(scorerapi.KindRejected, l, l.receipt.Reason))
		}
	}
	if err := moveWatermark(ctx, tx, b, lines); err != nil {
		return nil, err
	}
	if err := noteFeeds(ctx, tx, good); err != nil {
		return nil, err
	}
	return states, audited.Append(ctx, tx, rows)
}

// sortOut sets the receipts of lines that are not stored as events. It returns the others, and the dead letters.
func sortOut(lines []*line, now time.Time) (good []*line, letters []deadLetter) {
	for _, l := range lines {
		e := l.Event
		if e == nil { // a record without an event only moves the watermark
			l.receipt.Status = activity.Stored
			continue
		}
		l.receipt.ID = e.ID
		switch err := e.Validate(); {
		case err != nil:
			l.receipt.Status, l.receipt.Reason = activity.DeadLettered, activity.InvalidEvent
			letters = append(letters, deadLetter{l, activity.InvalidEvent + ": " + clip(err.Error())})
		case e.At.After(now.Add(tooFarIn)):
			l.receipt.Status, l.receipt.Reason = activity.Rejected, activity.TooFarAhead
		default:
			l.late = e.At.Before(now.Add(-lateAfter))
			good = append(good, l)
		}
	}
	return good, letters
}

// unfit is the audit row of a line that is not stored as an event.
func unfit(kind string, l *line, reason string) audited.Row {
	return audited.Note(kind, "", clip(l.Event.ID), scorerapi.Unfit{Reason: reason})
}

// attribute finds the person of each line: the one that the learning system names, else the owner of the first account
// that the roster knows.
func (s *Scorer) attribute(ctx context.Context, tx pgx.Tx, b *batch, lines []*line) error {
	var keys, named []string
	for _, l := range lines {
		for _, a := range l.Event.Accounts {
			keys = append(keys, risk.AccountKey(a))
		}
		if sourceOf(b.caller) == activity.Training && l.Event.Person != "" {
			named = append(named, l.Event.Person)
		}
	}
	owner := map[string]string{}
	exists := map[string]bool{}
	slices.Sort(keys)
	rows, err := tx.Query(ctx, `
		SELECT account, person FROM people.account WHERE account = ANY ($1)
		UNION ALL SELECT '', id FROM people.person WHERE id = ANY ($2)`, slices.Compact(keys), named)
	if err != nil {
		return fmt.Errorf("find people: %w", err)
	}
	var account, person string
	if _, err := pgx.ForEachRow(rows, []any{&account, &person}, func() error {
		owner[account] = person
		exists[person] = true
		return nil
	}); err != nil {
		return fmt.Errorf("find people: %w", err)
	}
	for _, l := range lines {
		if sourceOf(b.caller) == activity.Training && exists[l.Event.Person] {
			l.person = l.Event.Person
			continue
		}
		for _, a := range l.Event.Accounts {
			if p := owner[risk.AccountKey(a)]; p != "" {
				l.person = p
				break
			}
		}
	}
	return nil
}

// lockPeople locks the rows of the people of the lines, in the order of their ids.
func lockPeople(ctx context.Context, tx pgx.Tx, lines []*line) ([]employee, error) {
	var ids []string
	for _, l := range lines {
		if l.person != "" {
			ids = append(ids, l.person)
		}
	}
	slices.Sort(ids)
	rows, err := tx.Query(ctx, `SELECT `+employeeColumns+` FROM people.person
		WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE`, slices.Compact(ids))
	if err != nil {
		return nil, fmt.Errorf("lock people: %w", err)
	}
	people, err := pgx.CollectRows(rows, scanEmployee)
	if err != nil {
		return nil, fmt.Errorf("lock people: %w", err)
	}
	still := map[string]bool{}
	for _, p := range people {
		still[p.ID] = true
	}
	for _, l := range lines { // people may have left the roster since attribute found them
		if !still[l.person] {
			l.person = ""
		}
	}
	return people, nil
}

// insertEvents copies the lines into the connection's staging table and inserts them from there. An id that is stored
// already is a duplicate.
func insertEvents(ctx context.Context, tx pgx.Tx, b *batch, lines []*line) error {
	if len(lines) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		CREATE TEMPORARY TABLE IF NOT EXISTS staging (
			id text, person text, source text, verb text, at timestamptz, event jsonb, late boolean
		) ON COMMIT DELETE ROWS`); err != nil {
		return fmt.Errorf("stage events: %w", err)
	}
	staged := map[string]*line{}
	order := make([]*line, 0, len(lines))
	for _, l := range lines {
		l.receipt.Status = activity.Duplicate
		if staged[l.Event.ID] == nil {
			staged[l.Event.ID] = l
			order = append(order, l)
		}
	}
	slices.SortFunc(order, func(a, b *line) int { return cmp.Compare(a.Event.ID, b.Event.ID) })
	columns := []string{"id", "person", "source", "verb", "at", "event", "late"}
	from := pgx.CopyFromSlice(len(order), func(i int) ([]any, error) { return order[i].staged() })
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"staging"}, columns, from); err != nil {
		return fmt.Errorf("stage events: %w", err)
	}
	rows, err := tx.Query(ctx, `
		INSERT INTO risk.event (id, person, source, verb, at, event, late, collector, serial)
		SELECT id, person, source, verb, at, event, late, $1, $2 FROM staging ORDER BY id
		ON CONFLICT (id) DO NOTHING RETURNING id`, b.from, b.serial)
	if err != nil {
		return fmt.Errorf("merge events: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("merge events: %w", err)
	}
	for _, id := range ids {
		staged[id].receipt.Status = activity.Stored
	}
	return nil
}

// staged is the line as a row of the staging table.
func (l *line) staged() ([]any, error) {
	text, err := json.Marshal(l.Event)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	var person *string
	if l.person != "" {
		person = &l.person
	}
	return []any{l.Event.ID, person, string(l.Event.Source), string(l.Event.Verb), l.Event.At, text, l.late}, nil
}

// countUnowned counts new events without a person, under their first account.
func countUnowned(ctx context.Context, tx pgx.Tx, lines []*line) error {
	type count struct {
		events      int64
		first, last time.Time
	}
	counts := map[string]count{}
	for _, l := range lines {
		if l.person != "" || l.receipt.Status != activity.Stored {
			continue
		}
		account := unownedAccount(*l.Event)
		c, ok := counts[account]
		if !ok || l.Event.At.Before(c.first) {
			c.first = l.Event.At
		}
		if l.Event.At.After(c.last) {
			c.last = l.Event.At
		}
		c.events++
		counts[account] = c
	}
	for _, a := range slices.Sorted(maps.Keys(counts)) {
		c := counts[a]
		if _, err := tx.Exec(ctx, `
			INSERT INTO risk.unknown_account AS u (account, events, first, last) VALUES ($1, $2, $3, $4)
			ON CONFLICT (account) DO UPDATE SET events = u.events + excluded.events,
				first = least(u.first, excluded.first), last = greatest(u.last, excluded.last)`,
			a, c.events, c.first, c.last); err != nil {
			return fmt.Errorf("count unknown accounts: %w", err)
		}
	}
	return nil
}

// unownedAccount is the account under which an event without a person is counted.
func unownedAccount(e activity.Event) string {
	if len(e.Accounts) == 0 {
		return "person:" + strings.ToLower(e.Person)
	}
	return risk.AccountKey(e.Accounts[0])
}

// moveWatermark moves the caller's watermark to the last line. A watermark never goes back.
func moveWatermark(ctx context.Context, tx pgx.Tx, b *batch, lines []*line) error {
	if len(lines) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO risk.watermark AS w (collector, seq, at) VALUES ($1, $2, clock_timestamp())
		ON CONFLICT (collector) DO UPDATE SET seq = greatest(w.seq, excluded.seq), at = excluded.at`,
		b.caller.Name, int64(lines[len(lines)-1].Seq)); err != nil {
		return fmt.Errorf("move watermark: %w", err)
	}
	return nil
}

// deadLetter is a line that is never stored as an event.
type deadLetter struct {
	line   *line
	reason string
}

func (d deadLetter) store(ctx context.Context, tx pgx.Tx, b *batch) error {
	if _, err := tx.Exec(ctx, `
		INSERT INTO risk.dead_letter (id, collector, serial, seq, reason, event)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		clip(strings.ToValidUTF8(d.line.Event.ID, "�")), b.from, b.serial, int64(d.line.Seq),
		strings.ToValidUTF8(d.reason, "�"), d.line.raw); err != nil {
		return fmt.Errorf("store dead letter: %w", err)
	}
	return nil
}

// storeDeadLetter makes a dead letter of a line that failed too often.
func (s *Scorer) storeDeadLetter(ctx context.Context, b *batch, l *line, cause error) error {
	l.receipt = activity.Receipt{
		Seq:    l.Seq,
		ID:     l.Event.ID,
		Status: activity.DeadLettered,
		Reason: activity.CannotBeStored,
	}
	reason := fmt.Sprintf("%s: failed %d times: %s", activity.CannotBeStored, attempts, clip(cause.Error()))
	_, err := audited.Write(ctx, s.pool, func(tx pgx.Tx) ([]audited.Row, error) {
		if err := (deadLetter{l, reason}).store(ctx, tx, b); err != nil {
			return nil, err
		}
		if err := moveWatermark(ctx, tx, b, []*line{l}); err != nil {
			return nil, err
		}
		return []audited.Row{unfit(scorerapi.KindDeadLetter, l, reason)}, nil
	})
	return err
}
