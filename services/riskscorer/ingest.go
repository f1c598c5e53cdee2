package riskscorer

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
)

// Bounds of a batch, and of an event's time against the lab's clock.
const (
	batchBytes = 16 << 20
	batchLines = 5000
	tooFarIn   = 10 * time.Minute
	lateAfter  = 48 * time.Hour
	// attempts is how often an event is tried before it becomes a dead letter.
	attempts = 5
)

// line is one entry of a batch on its way.
type line struct {
	activity.Entry
	raw     []byte
	number  int    // in the batch
	person  string // found, or empty
	late    bool
	receipt activity.Receipt // final once its Status is set
}

// batch is what one request brings.
type batch struct {
	caller topology.Workload
	from   string // SPIFFE ID
	serial string
	lines  []*line
}

// Events is POST /v1/events: NDJSON of activity.Entry in spool order, answered by NDJSON of activity.Receipt in the same
// order. A foreign source refuses the whole batch (403); when every event is too far ahead, the answer is 422.
func (s *Scorer) Events(w http.ResponseWriter, r *http.Request) error {
	if err := httpjson.RequireType(r, "application/x-ndjson"); err != nil {
		return err
	}
	b, err := s.readBatch(w, r)
	if err != nil {
		return err
	}
	if err := s.refuseForeign(b, r); err != nil {
		return err
	}
	wait, stop := context.WithTimeout(r.Context(), turnWithin)
	defer stop()
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-wait.Done():
		return httpjson.Errorf(http.StatusTooManyRequests, "busy", "%d batches are at work already", batchesAtOnce).After(time.Second)
	}
	if err := s.store(r.Context(), b); err != nil {
		return s.away(err)
	}
	status := http.StatusOK
	if ahead := count(
		b,
		func(l *line) bool { return l.receipt.Reason == activity.TooFarAhead },
	); ahead > 0 &&
		ahead == len(b.lines) {
		status = http.StatusUnprocessableEntity
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(status)
	out := json.NewEncoder(w)
	for _, l := range b.lines {
		if err := out.Encode(l.receipt); err != nil {
			return fmt.Errorf("answer receipts: %w", err)
		}
	}
	return nil
}

func count(b *batch, match func(*line) bool) int {
	n := 0
	for _, l := range b.lines {
		if match(l) {
			n++
		}
	}
	return n
}

// readBatch reads the lines and refuses a body that is no batch: every fault is named with its line.
func (s *Scorer) readBatch(w http.ResponseWriter, r *http.Request) (*batch, error) {
	caller := mesh.Caller(r.Context())
	b := &batch{caller: caller, from: s.ids(caller), serial: mesh.CallerSerial(r.Context())}
	body := bufio.NewReaderSize(http.MaxBytesReader(w, r.Body, batchBytes), 64<<10)
	var last uint64
	for {
		text, err := body.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, httpjson.Cut(err)
		}
		end := err != nil
		if text = bytes.TrimSpace(text); len(text) > 0 {
			if len(b.lines) == batchLines {
				return nil, httpjson.Errorf(http.StatusRequestEntityTooLarge, "too_many_lines", "the batch has over %d lines", batchLines)
			}
			l := &line{raw: text, number: len(b.lines)}
			d := json.NewDecoder(bytes.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(&l.Entry); err != nil {
				return nil, httpjson.Errorf(http.StatusBadRequest, "bad_line", "line %d: %v", l.number+1, err)
			}
			if d.More() {
				return nil, httpjson.Errorf(http.StatusBadRequest, "bad_line", "line %d: text after the entry", l.number+1)
			}
			if l.number > 0 && l.Seq <= last {
				return nil, httpjson.Errorf(http.StatusBadRequest, "bad_order", "line %d: seq %d after %d", l.number+1, l.Seq, last)
			}
			last = l.Seq
			l.receipt = activity.Receipt{Seq: l.Seq}
			b.lines = append(b.lines, l)
		}
		if end {
			return b, nil
		}
	}
}

// sourceOf is the one source that a caller may submit: a collector's own, the learning system's training.
func sourceOf(w topology.Workload) activity.Source {
	if w.Source == "" && w.Kind == topology.KindDashboard {
		return activity.Training
	}
	return activity.Source(w.Source)
}

// refuseForeign refuses a batch that has an event of a source which is not the caller's.
func (s *Scorer) refuseForeign(b *batch, r *http.Request) error {
	own := sourceOf(b.caller)
	for _, l := range b.lines {
		if l.Event == nil || own != "" && l.Event.Source == own && (l.Event.Verb.Source() == own || l.Event.Validate() != nil) {
			continue
		}
		s.refused(audit.Entry{
			Kind: "decision", Peer: b.from, Serial: b.serial, Route: string(scorerapi.RouteEvents), Outcome: string(topology.Forbidden), Reason: "foreign_source",
			Event: clip(l.Event.ID), Detail: clip(fmt.Sprintf("%s sent an event of source %q", b.caller.Name, l.Event.Source)),
		})
		return httpjson.Errorf(http.StatusForbidden, "foreign_source", "line %d: %s submits events of source %q only", l.number+1, b.caller.Name, own)
	}
	return nil
}

// clip makes foreign text fit for one line of an audit.
func clip(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "")
	}
	return text
}

// store commits the batch whole; if a line will not be stored, each line by itself, so that it delays nobody.
func (s *Scorer) store(ctx context.Context, b *batch) error {
	err := s.commit(ctx, b, b.lines)
	if err == nil || gone(err) || ctx.Err() != nil {
		return err
	}
	s.log.Warn("a batch cannot be stored whole", "collector", b.caller.Name, "lines", len(b.lines), "error", err)
	for _, l := range b.lines {
		var last error
		for range attempts {
			if last = s.commit(ctx, b, []*line{l}); last == nil || gone(last) || ctx.Err() != nil {
				break
			}
		}
		switch {
		case last == nil:
		case gone(last) || ctx.Err() != nil:
			return last
		default:
			if err := s.bury(ctx, b, l, last); err != nil {
				return err
			}
		}
	}
	return nil
}

// commit stores lines in one transaction, and tries again when the database asked for that.
func (s *Scorer) commit(ctx context.Context, b *batch, lines []*line) error {
	for try := 0; ; try++ {
		for _, l := range lines {
			l.receipt = activity.Receipt{Seq: l.Seq}
			l.person, l.late = "", false
		}
		var books map[string]*book
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			var err error
			books, err = s.merge(ctx, tx, b, lines)
			return err
		})
		if err == nil {
			s.memory.put(books)
			s.company.dirty.Store(true)
			return nil
		}
		var refusal *pgconn.PgError
		if try < attempts && errors.As(err, &refusal) && (refusal.Code == "40P01" || refusal.Code == "40001") {
			continue
		}
		return err
	}
}

// merge stores lines: person rows are locked in the order of their ids, then events in theirs, then the collector's
// watermark and the audit's tip, the same everywhere, so that replicas do not deadlock.
func (s *Scorer) merge(ctx context.Context, tx pgx.Tx, b *batch, lines []*line) (map[string]*book, error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock_shared(hashtext('riskscorer.roster'))`); err != nil {
		return nil, fmt.Errorf("wait for the roster: %w", err)
	}
	clock, err := now(ctx, tx)
	if err != nil {
		return nil, err
	}
	var letters []letter
	var good []*line
	for _, l := range lines {
		e := l.Event
		if e == nil { // a record that means nothing moves the watermark only
			l.receipt.Status = activity.Stored
			continue
		}
		l.receipt.ID = e.ID
		switch err := e.Validate(); {
		case err != nil:
			l.receipt.Status, l.receipt.Reason = activity.DeadLettered, activity.InvalidEvent
			letters = append(letters, letter{l, activity.InvalidEvent + ": " + clip(err.Error())})
		case e.At.After(clock.Now.Add(tooFarIn)):
			l.receipt.Status, l.receipt.Reason = activity.Rejected, activity.TooFarAhead
		default:
			l.late = e.At.Before(clock.Now.Add(-lateAfter))
			good = append(good, l)
		}
	}
	if err := s.attribute(ctx, tx, b, good); err != nil {
		return nil, err
	}
	people, err := lock(ctx, tx, good)
	if err != nil {
		return nil, err
	}
	if err := insert(ctx, tx, b, good); err != nil {
		return nil, err
	}
	if err := unknown(ctx, tx, good); err != nil {
		return nil, err
	}
	entries, books, err := s.assess(ctx, tx, people, good, clock)
	if err != nil {
		return nil, err
	}
	for _, l := range letters {
		if err := l.insert(ctx, tx, b); err != nil {
			return nil, err
		}
		entries = append(
			entries,
			audited.Note(scorerapi.KindDeadLetter, "", clip(l.line.Event.ID), scorerapi.Unfit{Reason: l.reason}),
		)
	}
	for _, l := range lines {
		if l.receipt.Status == activity.Rejected {
			entries = append(
				entries,
				audited.Note(scorerapi.KindRejected, "", clip(l.Event.ID), scorerapi.Unfit{Reason: l.receipt.Reason}),
			)
		}
	}
	if err := mark(ctx, tx, b, lines); err != nil {
		return nil, err
	}
	if err := heard(ctx, tx, good); err != nil {
		return nil, err
	}
	return books, audited.Append(ctx, tx, entries)
}

// attribute finds the person of each line: named by the learning system, else by the first account that the roster knows.
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
	rows, err := tx.Query(ctx, `SELECT account, person FROM people.account WHERE account = ANY ($1) UNION ALL SELECT '', id FROM people.person WHERE id = ANY ($2)`, slices.Compact(keys), named)
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

// lock takes the rows of the people whom the lines are about, in the order of their ids.
func lock(ctx context.Context, tx pgx.Tx, lines []*line) ([]employee, error) {
	var ids []string
	for _, l := range lines {
		if l.person != "" {
			ids = append(ids, l.person)
		}
	}
	slices.Sort(ids)
	rows, err := tx.Query(ctx, `SELECT `+employeeColumns+` FROM people.person WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE`, slices.Compact(ids))
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
	for _, l := range lines { // struck off the roster since they were found
		if !still[l.person] {
			l.person = ""
		}
	}
	return people, nil
}

// insert copies the lines into the connection's staging table and merges them from there; a known id is a duplicate.
func insert(ctx context.Context, tx pgx.Tx, b *batch, lines []*line) error {
	if len(lines) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `CREATE TEMPORARY TABLE IF NOT EXISTS staging (id text, person text, source text, verb text, at timestamptz, event jsonb, late boolean) ON COMMIT DELETE ROWS`); err != nil {
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
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"staging"}, []string{"id", "person", "source", "verb", "at", "event", "late"}, pgx.CopyFromSlice(len(order), func(i int) ([]any, error) {
		l := order[i]
		text, err := json.Marshal(l.Event)
		if err != nil {
			return nil, fmt.Errorf("encode event: %w", err)
		}
		var person *string
		if l.person != "" {
			person = &l.person
		}
		return []any{l.Event.ID, person, string(l.Event.Source), string(l.Event.Verb), l.Event.At, text, l.late}, nil
	}))
	if err != nil {
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

// unknown counts new events whose accounts belong to nobody, under the first account.
func unknown(ctx context.Context, tx pgx.Tx, lines []*line) error {
	type tally struct {
		events      int64
		first, last time.Time
	}
	tallies := map[string]tally{}
	for _, l := range lines {
		if l.person != "" || l.receipt.Status != activity.Stored {
			continue
		}
		account := strayAccount(*l.Event)
		t, ok := tallies[account]
		if !ok || l.Event.At.Before(t.first) {
			t.first = l.Event.At
		}
		if l.Event.At.After(t.last) {
			t.last = l.Event.At
		}
		t.events++
		tallies[account] = t
	}
	accounts := make([]string, 0, len(tallies))
	for a := range tallies {
		accounts = append(accounts, a)
	}
	slices.Sort(accounts)
	for _, a := range accounts {
		t := tallies[a]
		if _, err := tx.Exec(ctx, `
			INSERT INTO risk.unknown_account AS u (account, events, first, last) VALUES ($1, $2, $3, $4)
			ON CONFLICT (account) DO UPDATE SET events = u.events + excluded.events, first = least(u.first, excluded.first), last = greatest(u.last, excluded.last)`,
			a, t.events, t.first, t.last); err != nil {
			return fmt.Errorf("count unknown accounts: %w", err)
		}
	}
	return nil
}

// strayAccount is the account that an event of nobody's is counted under.
func strayAccount(e activity.Event) string {
	if len(e.Accounts) == 0 {
		return "person:" + strings.ToLower(e.Person)
	}
	return risk.AccountKey(e.Accounts[0])
}

// assess scores everybody about whom something new was stored, and says so in the audit with the ids of what was new.
func (s *Scorer) assess(
	ctx context.Context,
	tx pgx.Tx,
	people []employee,
	lines []*line,
	clock risk.Clock,
) ([]audited.Row, map[string]*book, error) {
	fresh, oldest, passed := map[string][]string{}, map[string]time.Time{}, map[string]bool{}
	for _, l := range lines {
		if l.person == "" || l.receipt.Status != activity.Stored {
			continue
		}
		fresh[l.person] = append(fresh[l.person], l.Event.ID)
		if t, ok := oldest[l.person]; !ok || l.Event.At.Before(t) {
			oldest[l.person] = l.Event.At
		}
		passed[l.person] = passed[l.person] || l.Event.Verb == activity.TrainingPassed
	}
	people = slices.DeleteFunc(people, func(p employee) bool { return len(fresh[p.ID]) == 0 })
	if len(people) == 0 {
		return nil, nil, nil
	}
	books, all, err := s.books(ctx, tx, people, clock.Now)
	if err != nil {
		return nil, nil, err
	}
	ids, positions, eras := make([]string, len(people)), make([]int64, len(people)), make([]int64, len(people))
	undisturbed := make(
		[]*time.Time,
		len(people),
	) // the last midnight, if all that is new is after it and nothing was passed
	last := midnight(clock.Now)
	var entries []audited.Row
	for i, p := range people {
		ids[i], positions[i], eras[i] = p.ID, books[p.ID].position, p.era
		if !passed[p.ID] && oldest[p.ID].After(last) {
			undisturbed[i] = &last
		}
	}
	for which, profile := range s.profiles() {
		roles, scores, levels := make([]string, len(people)), make([]int64, len(people)), make([]string, len(people))
		for i, p := range people {
			score := all[p.ID][which]
			level := profile.Level(score)
			roles[i], scores[i], levels[i] = string(p.Role), int64(score), string(level)
			if profile != s.profile {
				continue
			}
			entries = append(entries, audited.Note(scorerapi.KindAssessment, p.ID, fresh[p.ID][0], scorerapi.Assessed{
				Profile: profile.Name, Score: score, Level: level, Position: positions[i], At: clock.Now, Events: fresh[p.ID],
			}))
		}
		if _, err := tx.Exec(ctx, `
			INSERT INTO risk.score (person, at, position, profile, version, role, score, level)
			SELECT person, $1, position, $2, $3, role, score, level FROM unnest($4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::text[]) AS s (person, position, role, score, level)
			ON CONFLICT DO NOTHING`, clock.Now, profile.Name, profile.Version, ids, positions, roles, scores, levels); err != nil {
			return nil, nil, fmt.Errorf("store scores: %w", err)
		}
		// When training falls due, and what the scores were at midnights, stays true unless something happened before the
		// last midnight, the level is another, or a module was passed. Else the standing is made again: without due it is
		// outdated.
		if _, err := tx.Exec(ctx, `
			INSERT INTO risk.standing AS s (person, profile, version, role, at, position, era, score, level, days)
			SELECT person, $2, $3, role, $1, position, era, score, level, days
			FROM unnest($4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::bigint[], $10::timestamptz[]) AS n (person, position, role, score, level, era, days)
			ON CONFLICT (person, profile) DO UPDATE SET version = excluded.version, role = excluded.role, at = excluded.at, position = excluded.position, era = excluded.era,
				score = excluded.score, level = excluded.level, due = CASE
					WHEN excluded.days <= s.at AND (s.version, s.role, s.era, s.level) = (excluded.version, excluded.role, excluded.era, excluded.level) THEN s.due END`,
			clock.Now, profile.Name, profile.Version, ids, positions, roles, scores, levels, eras, undisturbed); err != nil {
			return nil, nil, fmt.Errorf("store standings: %w", err)
		}
	}
	if _, err := tx.Exec(ctx, `UPDATE people.person p SET position = s.position FROM unnest($1::text[], $2::bigint[]) AS s (person, position) WHERE p.id = s.person`, ids, positions); err != nil {
		return nil, nil, fmt.Errorf("store positions: %w", err)
	}
	return entries, books, nil
}

// mark moves the caller's watermark to the last line: it never goes back.
func mark(ctx context.Context, tx pgx.Tx, b *batch, lines []*line) error {
	if len(lines) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO risk.watermark AS w (collector, seq, at) VALUES ($1, $2, clock_timestamp())
		ON CONFLICT (collector) DO UPDATE SET seq = greatest(w.seq, excluded.seq), at = excluded.at`, b.caller.Name, int64(lines[len(lines)-1].Seq)); err != nil {
		return fmt.Errorf("move watermark: %w", err)
	}
	return nil
}

// letter is a line that will never be stored as an event.
type letter struct {
	line   *line
	reason string
}

func (d letter) insert(ctx context.Context, tx pgx.Tx, b *batch) error {
	if _, err := tx.Exec(ctx, `INSERT INTO risk.dead_letter (id, collector, serial, seq, reason, event) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		clip(strings.ToValidUTF8(d.line.Event.ID, "�")), b.from, b.serial, int64(d.line.Seq), strings.ToValidUTF8(d.reason, "�"), d.line.raw); err != nil {
		return fmt.Errorf("store dead letter: %w", err)
	}
	return nil
}

// bury makes a dead letter of a line that failed too often.
func (s *Scorer) bury(ctx context.Context, b *batch, l *line, cause error) error {
	l.receipt = activity.Receipt{
		Seq:    l.Seq,
		ID:     l.Event.ID,
		Status: activity.DeadLettered,
		Reason: activity.CannotBeStored,
	}
	reason := fmt.Sprintf("%s: failed %d times: %s", activity.CannotBeStored, attempts, clip(cause.Error()))
	_, err := audited.Write(ctx, s.pool, func(tx pgx.Tx) ([]audited.Row, error) {
		if err := (letter{l, reason}).insert(ctx, tx, b); err != nil {
			return nil, err
		}
		if err := mark(ctx, tx, b, []*line{l}); err != nil {
			return nil, err
		}
		row := audited.Note(scorerapi.KindDeadLetter, "", clip(l.Event.ID), scorerapi.Unfit{Reason: reason})
		return []audited.Row{row}, nil
	})
	return err
}
