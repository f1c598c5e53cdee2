package riskscorer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

const rosterBytes = 32 << 20

// PutPeople is PUT /v1/people: a JSON array of risk.Person, each added or replaced; other people do not change. People
// who have left are put with their "left" date. All faults are named at once (422); an account of two people is a
// conflict (409). Events that arrived for an account before its owner was known become the owner's.
func (s *Scorer) PutPeople(w http.ResponseWriter, r *http.Request) error {
	var people []risk.Person
	if err := httpjson.Read(w, r, rosterBytes, &people); err != nil {
		return err
	}
	if err := checkRoster(people); err != nil {
		return err
	}
	slices.SortFunc(people, func(a, b risk.Person) int { return cmp.Compare(a.ID, b.ID) })
	answer := scorerapi.RosterAnswer{People: len(people)}
	_, err := audited.Write(r.Context(), s.pool, func(tx pgx.Tx) ([]audited.Row, error) {
		enrolled, err := putPeople(r.Context(), tx, people)
		if err != nil || enrolled.Added == 0 && len(enrolled.Changed) == 0 && enrolled.Attributed == 0 {
			return nil, err
		}
		answer.Attributed = enrolled.Attributed
		return []audited.Row{audited.Note(scorerapi.KindRoster, "", "", enrolled)}, nil
	})
	if err != nil {
		return s.unavailable(err)
	}
	s.standings.dirty.Store(true)
	return httpjson.Write(w, http.StatusOK, answer)
}

func checkRoster(people []risk.Person) error {
	var faults []error
	ids, owners := map[string]bool{}, map[string]string{}
	for _, p := range people {
		if err := p.Validate(); err != nil {
			faults = append(faults, err)
		}
		if ids[p.ID] {
			faults = append(faults, fmt.Errorf("person %q: twice", p.ID))
		}
		ids[p.ID] = true
		for _, a := range p.Accounts {
			key := risk.AccountKey(a)
			if o, ok := owners[key]; ok && o != p.ID {
				faults = append(faults, fmt.Errorf("account %q: of %s and of %s", a, o, p.ID))
			}
			owners[key] = p.ID
		}
	}
	if len(faults) > 0 {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_roster", "%v", errors.Join(faults...))
	}
	return nil
}

// lockRoster waits for all batches in progress and keeps new ones out until the transaction ends: a batch first finds
// the owners of accounts and then stores events, and neither may change in between. Batches hold the lock shared.
func lockRoster(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('riskscorer.roster'))`); err != nil {
		return fmt.Errorf("wait for batches: %w", err)
	}
	return nil
}

// putPeople adds or replaces people, and says what is different now.
func putPeople(ctx context.Context, tx pgx.Tx, people []risk.Person) (scorerapi.Enrolled, error) {
	none := scorerapi.Enrolled{}
	if err := lockRoster(ctx, tx); err != nil {
		return none, err
	}
	var ids, accounts, owners []string
	for _, p := range people {
		ids = append(ids, p.ID)
		for _, a := range p.Accounts {
			accounts, owners = append(accounts, risk.AccountKey(a)), append(owners, p.ID)
		}
	}
	enrolled, err := compareRoster(ctx, tx, ids, people)
	if err != nil {
		return none, err
	}
	if err := storePeople(ctx, tx, people); err != nil {
		return none, err
	}
	// From here on, the rows of these people stay locked, in the order of their ids.
	if err := storeAccounts(ctx, tx, ids, accounts, owners); err != nil {
		return none, err
	}
	enrolled.Attributed, err = attributeUnowned(ctx, tx)
	return enrolled, err
}

// compareRoster says which of people are new and which are different from what is stored. ids are those of people.
func compareRoster(
	ctx context.Context, tx pgx.Tx, ids []string, people []risk.Person,
) (scorerapi.Enrolled, error) {
	enrolled := scorerapi.Enrolled{Changed: []string{}}
	rows, err := tx.Query(ctx, `SELECT `+employeeColumns+` FROM people.person WHERE id = ANY ($1)`, ids)
	if err != nil {
		return enrolled, fmt.Errorf("read people: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanEmployee)
	if err != nil {
		return enrolled, fmt.Errorf("read people: %w", err)
	}
	stored := make(map[string]risk.Person, len(list))
	for _, e := range list {
		stored[e.ID] = e.Person
	}
	for _, p := range people {
		switch was, ok := stored[p.ID]; {
		case !ok:
			enrolled.Added++
		case !samePerson(was, p):
			enrolled.Changed = append(enrolled.Changed, p.ID)
		}
	}
	return enrolled, nil
}

// samePerson tells whether nothing of a person is different. No accounts may be nil or an empty list.
func samePerson(a, b risk.Person) bool {
	same := slices.Equal(a.Accounts, b.Accounts)
	a.Accounts, b.Accounts = nil, nil
	return same && reflect.DeepEqual(a, b)
}

func storePeople(ctx context.Context, tx pgx.Tx, people []risk.Person) error {
	batch := &pgx.Batch{}
	for _, p := range people {
		batch.Queue(`
			INSERT INTO people.person AS p
				(id, name, email, role, team, manager, joined, gone, zone, accounts, run, added, era)
			VALUES ($1, $2, $3, $4, $5, $6, $7::text::date, nullif($8::text, '')::date, $9, $10, $11,
				(SELECT coalesce(max(position), 0) FROM risk.event), nextval('people.era'))
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email, role = excluded.role,
				team = excluded.team, manager = excluded.manager, joined = excluded.joined, gone = excluded.gone,
				zone = excluded.zone, accounts = excluded.accounts, run = excluded.run`,
			p.ID, p.Name, p.Email, string(p.Role), p.Team, p.Manager, p.Joined, p.Left, p.Zone,
			append([]string{}, p.Accounts...), p.Run) // none is an empty list, not NULL
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("store people: %w", err)
	}
	return nil
}

// storeAccounts replaces the accounts of the people with these ids; accounts and owners are parallel. An account of
// another person is a conflict.
func storeAccounts(ctx context.Context, tx pgx.Tx, ids, accounts, owners []string) error {
	var taken, by string
	err := tx.QueryRow(ctx, `
		SELECT a.account, a.person
		FROM people.account a JOIN unnest($1::text[], $2::text[]) AS n (account, person) ON a.account = n.account
		WHERE a.person <> n.person AND NOT a.person = ANY ($3) LIMIT 1`, accounts, owners, ids).Scan(&taken, &by)
	if err == nil {
		return httpjson.Errorf(http.StatusConflict, "account_taken", "account %q belongs to %s", taken, by)
	} else if !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("check accounts: %w", err)
	}
	if _, err := tx.Exec(ctx, `DELETE FROM people.account WHERE person = ANY ($1)`, ids); err != nil {
		return fmt.Errorf("store accounts: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO people.account (account, person)
		SELECT DISTINCT account, person FROM unnest($1::text[], $2::text[]) AS n (account, person)`,
		accounts, owners); err != nil {
		return fmt.Errorf("store accounts: %w", err)
	}
	return nil
}

// attributeUnowned gives events of unknown accounts to the people who now own one of these accounts, the first account
// first. It returns how many events it attributed.
func attributeUnowned(ctx context.Context, tx pgx.Tx) (int64, error) {
	rows, err := tx.Query(ctx, `
		UPDATE risk.event e SET person = o.person, owned = (SELECT max(position) + 1 FROM risk.event)
		FROM (
			SELECT DISTINCT ON (e.position) e.position, coalesce(a.person, p.id) AS person
			FROM risk.event e
			LEFT JOIN LATERAL jsonb_array_elements_text(coalesce(e.event->'accounts', '[]'))
				WITH ORDINALITY AS x (account, n) ON true
			LEFT JOIN people.account a ON a.account = lower(x.account)
			LEFT JOIN people.person p ON e.source = 'training' AND p.id = e.event->>'person'
			WHERE e.person IS NULL AND coalesce(a.person, p.id) IS NOT NULL
			ORDER BY e.position, x.n
		) o WHERE e.position = o.position
		RETURNING o.person`)
	if err != nil {
		return 0, fmt.Errorf("attribute events: %w", err)
	}
	owners, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(owners) == 0 {
		return 0, err
	}
	n := int64(len(owners))
	slices.Sort(owners)
	if _, err := tx.Exec(ctx, `
		UPDATE people.person p SET era = nextval('people.era'),
			position = (SELECT max(position) FROM risk.event e WHERE e.person = p.id)
		WHERE p.id = ANY ($1)`, slices.Compact(owners)); err != nil {
		return 0, fmt.Errorf("attribute events: %w", err)
	}
	return n, recountUnowned(ctx, tx)
}

// recountUnowned rebuilds the list of unknown accounts from the events without a person.
func recountUnowned(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `DELETE FROM risk.unknown_account`); err != nil {
		return fmt.Errorf("count unknown accounts: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO risk.unknown_account (account, events, first, last)
		SELECT coalesce(lower(event->'accounts'->>0), 'person:' || lower(event->>'person')),
			count(*), min(at), max(at)
		FROM risk.event WHERE person IS NULL GROUP BY 1`); err != nil {
		return fmt.Errorf("count unknown accounts: %w", err)
	}
	return nil
}

// Clock is GET /v1/clock: the lab's time and pace, as risk.Clock.
func (s *Scorer) Clock(w http.ResponseWriter, r *http.Request) error {
	c, err := s.clock(r.Context())
	if err != nil {
		return s.unavailable(err)
	}
	return httpjson.Write(w, http.StatusOK, c)
}

// maxPace is the fastest clock, in lab seconds per second: a lab day per second.
const maxPace = 86_400

// PutClock is PUT /v1/clock: it moves the lab's time forward or sets its pace, and answers the clock. Moving it
// backward is refused (409).
func (s *Scorer) PutClock(w http.ResponseWriter, r *http.Request) error {
	var change scorerapi.ClockChange
	if err := httpjson.Read(w, r, 1<<10, &change); err != nil {
		return err
	}
	if change.Pace < 0 || change.Pace > maxPace || change.Now.Year() > 2100 {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_clock",
			"now %v, pace %v: want a year up to 2100, and a pace above 0 and up to %d", change.Now, change.Pace, maxPace)
	}
	var c risk.Clock
	_, err := audited.Write(r.Context(), s.pool, func(tx pgx.Tx) ([]audited.Row, error) {
		if _, err := now(r.Context(), tx); err != nil {
			return nil, err
		}
		var base time.Time
		if err := tx.QueryRow(r.Context(), `SELECT base FROM people.clock FOR UPDATE`).Scan(&base); err != nil {
			return nil, fmt.Errorf("lock clock: %w", err)
		}
		var err error
		if c, err = now(r.Context(), tx); err != nil {
			return nil, err
		}
		if !change.Now.IsZero() {
			if change.Now.Before(c.Now) {
				return nil, httpjson.Errorf(http.StatusConflict, "clock_backward",
					"it is %s already: the lab's clock only moves forward", c.Now.Format(time.RFC3339))
			}
			c.Now = change.Now.UTC().Truncate(time.Microsecond)
		}
		if change.Pace > 0 {
			c.Pace = change.Pace
		}
		if _, err := tx.Exec(r.Context(),
			`UPDATE people.clock SET base = $1, since = clock_timestamp(), pace = $2`, c.Now, c.Pace); err != nil {
			return nil, fmt.Errorf("set clock: %w", err)
		}
		return []audited.Row{audited.Note(scorerapi.KindClock, "", "", c)}, nil
	})
	if err != nil {
		return s.unavailable(err)
	}
	return httpjson.Write(w, http.StatusOK, c)
}

// Reset is POST /v1/reset. It deletes either what came after a position, that is events and their scores, dead letters
// and people added to the roster since; or the people who are named, with their events and scores. The audit, the
// watermarks and the clock never go back.
func (s *Scorer) Reset(w http.ResponseWriter, r *http.Request) error {
	var order scorerapi.ResetOrder
	if err := httpjson.Read(w, r, 1<<20, &order); err != nil {
		return err
	}
	if (order.After == nil) == (len(order.People) == 0) || order.After != nil && *order.After < 0 {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_reset",
			"want either after, a position of 0 or more, or people")
	}
	var answer scorerapi.ResetAnswer
	_, err := audited.Write(r.Context(), s.pool, func(tx pgx.Tx) ([]audited.Row, error) {
		ctx := r.Context()
		if err := lockRoster(ctx, tx); err != nil {
			return nil, err
		}
		list := deletePeople(order.People)
		if order.After != nil {
			list = deleteAfter(*order.After)
		}
		var err error
		if answer, err = list.run(ctx, tx); err != nil {
			return nil, err
		}
		if err := rebuildFeeds(ctx, tx); err != nil {
			return nil, err
		}
		if err := recountUnowned(ctx, tx); err != nil {
			return nil, err
		}
		row := audited.Note(scorerapi.KindReset, "", "", scorerapi.Forgotten{After: order.After, ResetAnswer: answer})
		return []audited.Row{row}, nil
	})
	if err != nil {
		return s.unavailable(err)
	}
	s.standings.dirty.Store(true)
	return httpjson.Write(w, http.StatusOK, answer)
}

// deletion is one statement of a reset. Deleted events and people are counted.
type deletion struct {
	text  string
	args  []any
	count func(*scorerapi.ResetAnswer) *int64 // nil: not counted
}

type deletions []deletion

func countEvents(a *scorerapi.ResetAnswer) *int64 { return &a.Events }

func countPeople(a *scorerapi.ResetAnswer) *int64 { return &a.People }

func deleteAfter(position int64) deletions {
	at := []any{position}
	return deletions{
		{`
			DELETE FROM risk.dead_letter
			WHERE received > (SELECT coalesce(max(received), '-infinity') FROM risk.event WHERE position <= $1)`, at, nil},
		{`DELETE FROM risk.event WHERE position > $1`, at, countEvents},
		{`DELETE FROM risk.score WHERE position > $1`, at, nil},
		{`DELETE FROM people.person WHERE added >= $1`, at, countPeople},
		{`
			UPDATE risk.event e SET person = NULL, owned = NULL
			WHERE person IS NOT NULL AND NOT EXISTS (SELECT FROM people.person p WHERE p.id = e.person)`, nil, nil},
		// People who lost no event keep their era, so that what is cached of them stays valid.
		{`
			UPDATE people.person p SET era = nextval('people.era'),
				position = (SELECT coalesce(max(position), 0) FROM risk.event e WHERE e.person = p.id)
			WHERE p.position > $1`, at, nil},
	}
}

func deletePeople(ids []string) deletions {
	of := []any{ids}
	return deletions{
		{`DELETE FROM risk.event WHERE person = ANY ($1)`, of, countEvents},
		{`DELETE FROM risk.score WHERE person = ANY ($1)`, of, nil},
		{`DELETE FROM people.person WHERE id = ANY ($1)`, of, countPeople},
	}
}

func (list deletions) run(ctx context.Context, tx pgx.Tx) (scorerapi.ResetAnswer, error) {
	var answer scorerapi.ResetAnswer
	for _, d := range list {
		tag, err := tx.Exec(ctx, d.text, d.args...)
		if err != nil {
			return answer, fmt.Errorf("reset: %w", err)
		}
		if d.count != nil {
			*d.count(&answer) = tag.RowsAffected()
		}
	}
	return answer, nil
}
