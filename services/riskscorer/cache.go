package riskscorer

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

// cache holds what was read of people: their events as they were committed, and their states. Its size is limited in
// bytes; the least recently used entry is removed first. An entry is valid for one era of its person, up to a position
// of the event log; later events are read from there.
type cache struct {
	mu     sync.Mutex
	most   int // bytes
	bytes  int
	recent *list.List // of *held, the last used first
	people map[string]*list.Element
	states map[string]*list.Element
}

// cacheBytes leaves a scorer with a limit of 256 MiB enough memory for its batches and for the garbage collector.
const cacheBytes = 56 << 20

// cacheEntry is either the events of a person or their state.
type cacheEntry struct {
	id     string
	events *personEvents
	state  *personState
	bytes  int
}

func newCache(most int) *cache {
	return &cache{most: most, recent: list.New(), people: map[string]*list.Element{}, states: map[string]*list.Element{}}
}

// of is the map that holds h.
func (m *cache) of(h *cacheEntry) map[string]*list.Element {
	if h.state != nil {
		return m.states
	}
	return m.people
}

// hold adds h in place of an older entry, and removes entries until the cache is within its limit. m.mu is held.
func (m *cache) insert(h *cacheEntry) {
	in := m.of(h)
	if old := in[h.id]; old != nil {
		m.forget(old)
	}
	in[h.id] = m.recent.PushFront(h)
	for m.bytes += h.bytes; m.bytes > m.most && m.recent.Len() > 0; {
		m.forget(m.recent.Back())
	}
}

func (m *cache) forget(e *list.Element) {
	h := m.recent.Remove(e).(*cacheEntry)
	delete(m.of(h), h.id)
	m.bytes -= h.bytes
}

// personState scores a person's next event without reading all the others. A transaction that stores an event takes the
// state out of the cache, under the lock of the person's row, and puts it back after its commit. Until then no other
// transaction has it. After a rollback it is rebuilt.
type personState struct {
	*risk.PersonState
	era      int64
	position int64 // of its last event in the log
}

// take removes and returns the person's state of this era; nil if there is none.
func (m *cache) take(id string, era int64) *personState {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.states[id]
	if e == nil {
		return nil
	}
	m.forget(e)
	if b := e.Value.(*cacheEntry).state; b.era == era {
		return b
	}
	return nil
}

// put puts states back, except where the cache has a newer one.
func (m *cache) put(states map[string]*personState) {
	sizes := make(map[string]int, len(states))
	for id, b := range states {
		sizes[id] = b.Bytes()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, b := range states {
		if e := m.states[id]; e != nil {
			if old := e.Value.(*cacheEntry).state; old.era > b.era || old.era == b.era && old.position >= b.position {
				continue
			}
		}
		m.insert(&cacheEntry{id: id, state: b, bytes: sizes[id]})
	}
}

// personEvents are the events of a person up to a position of the log.
type personEvents struct {
	era      int64
	position int64
	events   []activity.Event // never changed in place: readers share it
	counted  []activity.Event // events under the hourly cap; nil until a reader needs them
	since    []int64          // the position of the log from which each event belongs to this person
}

// size estimates how many bytes r takes.
func (r personEvents) size() int {
	n := 256 + 8*cap(r.since) + int(unsafe.Sizeof(activity.Event{}))*cap(r.events)
	for i := range r.events {
		e := &r.events[i]
		n += len(e.ID) + len(e.Verb) + len(e.Source) + len(e.Detail) + len(e.Module) + len(e.Ticket) + len(e.Resource)
		for _, a := range e.Accounts {
			n += 16 + len(a)
		}
	}
	if len(r.counted) < len(r.events) { // the cap applied, so this is a slice of its own
		n += int(unsafe.Sizeof(activity.Event{})) * len(r.counted)
	}
	return n
}

// until is the person's events as they were known at a position of the log.
func (r personEvents) until(position int64) []activity.Event {
	var list []activity.Event
	for i, e := range r.events {
		if r.since[i] <= position {
			list = append(list, e)
		}
	}
	return list
}

func (m *cache) get(id string, era int64) personEvents {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.people[id]
	if e == nil {
		return personEvents{era: era}
	}
	r := e.Value.(*cacheEntry).events
	if r.era != era {
		return personEvents{era: era}
	}
	m.recent.MoveToFront(e)
	return *r
}

// eviction says which entries may be removed for a new one.
type eviction int

const (
	evictOldest  eviction = iota // the least recently used
	evictNothing                 // none: reading the whole roster must not remove what is in use
)

// keep adds what a committed transaction has read, unless the cache knows more already.
func (m *cache) keep(read map[string]personEvents, eviction eviction) {
	for id, r := range read {
		h := &cacheEntry{id: id, events: &r, bytes: r.size()}
		m.mu.Lock()
		e := m.people[id]
		if (e == nil || moreRecent(*e.Value.(*cacheEntry).events, r)) && (eviction == evictOldest ||
			m.bytes+h.bytes <= m.most) {
			m.insert(h)
		}
		m.mu.Unlock()
	}
}

// moreRecent says whether r contains more than old.
func moreRecent(old, r personEvents) bool {
	return old.era < r.era || old.era == r.era && (old.position < r.position || old.counted == nil && r.counted != nil)
}

// employee is a row of people.person.
type employee struct {
	risk.Person
	position, era int64
}

const employeeColumns = `id, name, email, role, team, manager, to_char(joined, 'YYYY-MM-DD'),
	coalesce(to_char(gone, 'YYYY-MM-DD'), ''), zone, accounts, run, position, era`

func scanEmployee(row pgx.CollectableRow) (employee, error) {
	var e employee
	return e, row.Scan(e.columns()...)
}

// columns are where employeeColumns are scanned to.
func (e *employee) columns() []any {
	return []any{
		&e.ID, &e.Name, &e.Email, &e.Role, &e.Team, &e.Manager, &e.Joined, &e.Left,
		&e.Zone, &e.Accounts, &e.Run, &e.position, &e.era,
	}
}

// eventsOf returns the people's events up to each one's position. Only those that the cache does not have are read. The
// caller adds the result to the cache after its transaction.
func (m *cache) eventsOf(ctx context.Context, tx pgx.Tx, people []employee) (map[string]personEvents, error) {
	known := make(map[string]personEvents, len(people))
	var ids []string
	var after []int64
	for _, p := range people {
		r := m.get(p.ID, p.era)
		known[p.ID] = r
		if r.position < p.position {
			ids, after = append(ids, p.ID), append(after, r.position)
		}
	}
	fresh := map[string]bool{}
	err := eachEvent(ctx, tx, ids, after, func(person string, position, since int64, e activity.Event) {
		r := known[person]
		if !fresh[person] {
			fresh[person] = true
			r.events, r.since, r.counted = slices.Clone(r.events), slices.Clone(r.since), nil
		}
		r.events, r.since, r.position = append(r.events, e), append(r.since, since), position
		known[person] = r
	})
	return known, err
}

// statesOf returns the people's states with every event that the transaction sees, by person, and their scores at τ by
// each of profiles. The caller holds the locks of the people's rows, and puts the states back into the cache after its
// commit.
func (m *cache) statesOf(
	ctx context.Context, tx pgx.Tx, profiles []*risk.Profile, people []employee, at time.Time,
) (map[string]*personState, map[string][]risk.Score, error) {
	states, scores := map[string]*personState{}, map[string][]risk.Score{}
	stale, err := m.updateStates(ctx, tx, people, at, states)
	if err != nil {
		return nil, nil, err
	}
	var rebuild []employee
	for _, p := range people {
		if state := states[p.ID]; state != nil && !stale[p.ID] {
			if list, ok := state.Scores(p.Role, at); ok {
				scores[p.ID] = list
				continue
			}
		}
		rebuild = append(rebuild, p)
	}
	if err := rebuildStates(ctx, tx, profiles, rebuild, at, states); err != nil {
		return nil, nil, err
	}
	for _, p := range rebuild {
		list, ok := states[p.ID].Scores(p.Role, at)
		if !ok {
			return nil, nil, fmt.Errorf(
				"score %s: the events that are summed up reach beyond %s", p.ID, at.Format(time.RFC3339),
			)
		}
		scores[p.ID] = list
	}
	return states, scores, nil
}

// updateStates takes the people's states out of the cache into states and adds their new events. It returns those
// people whose state has to be rebuilt.
func (m *cache) updateStates(
	ctx context.Context, tx pgx.Tx, people []employee, at time.Time, states map[string]*personState,
) (map[string]bool, error) {
	var ids []string
	var after []int64
	for _, p := range people {
		if state := m.take(p.ID, p.era); state != nil {
			states[p.ID] = state
			ids, after = append(ids, p.ID), append(after, state.position)
		}
	}
	stale := map[string]bool{}
	err := eachEvent(ctx, tx, ids, after, func(person string, position, _ int64, e activity.Event) {
		state := states[person]
		state.position = position
		if !stale[person] && !state.Add(e, at) {
			stale[person] = true
		}
	})
	return stale, err
}

// rebuildStates builds the people's states from all their events.
func rebuildStates(
	ctx context.Context, tx pgx.Tx, profiles []*risk.Profile, people []employee, at time.Time,
	states map[string]*personState,
) error {
	ids, after := make([]string, len(people)), make([]int64, len(people))
	for i, p := range people {
		ids[i] = p.ID
		states[p.ID] = &personState{era: p.era}
	}
	events := map[string][]activity.Event{}
	if err := eachEvent(ctx, tx, ids, after, func(person string, position, _ int64, e activity.Event) {
		states[person].position = position
		events[person] = append(events[person], e)
	}); err != nil {
		return err
	}
	for _, p := range people {
		states[p.ID].PersonState = risk.PersonStateOf(profiles, events[p.ID], at)
	}
	return nil
}

// eachEvent reads each person's events after a position, by person and position; ids and after are parallel. An event
// belongs to its person since a position that may be later than its own.
func eachEvent(
	ctx context.Context, tx pgx.Tx, ids []string, after []int64,
	do func(person string, position, since int64, e activity.Event),
) error {
	if len(ids) == 0 {
		return nil
	}
	// OFFSET 0 makes the planner use the index on (person, position) for each person, for any statistics of the table.
	rows, err := tx.Query(ctx, `
		SELECT p.person, e.position, coalesce(e.owned, e.position), e.event
		FROM unnest($1::text[], $2::bigint[]) AS p (person, after)
		CROSS JOIN LATERAL (
			SELECT position, owned, event FROM risk.event
			WHERE person = p.person AND position > p.after ORDER BY position OFFSET 0
		) e
		ORDER BY p.person, e.position`, ids, after)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	var person string
	var position, since int64
	var text []byte
	if _, err := pgx.ForEachRow(rows, []any{&person, &position, &since, &text}, func() error {
		var e activity.Event
		if err := json.Unmarshal(text, &e); err != nil {
			return fmt.Errorf("at %d: %w", position, err)
		}
		e.Person = person
		do(person, position, since, e)
		return nil
	}); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}

// now is the lab's time. The first call starts the clock at risk.Epoch.
func now(ctx context.Context, tx pgx.Tx) (risk.Clock, error) {
	const read = `SELECT base + (clock_timestamp() - since) * pace, pace FROM people.clock`
	var c risk.Clock
	err := tx.QueryRow(ctx, read).Scan(&c.Now, &c.Pace)
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err := tx.Exec(ctx, `
			INSERT INTO people.clock (base, since, pace) VALUES ($1, clock_timestamp(), 1)
			ON CONFLICT DO NOTHING`, risk.Epoch); err != nil {
			return c, fmt.Errorf("start clock: %w", err)
		}
		err = tx.QueryRow(ctx, read).Scan(&c.Now, &c.Pace)
	}
	if err != nil {
		return c, fmt.Errorf("read clock: %w", err)
	}
	c.Now = c.Now.UTC().Truncate(time.Microsecond)
	return c, nil
}
