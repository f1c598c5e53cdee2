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

// memory is what the scorer knows of people without asking the database: their events as they were committed, and
// books. It is bounded by bytes: what was not used for longest goes first. It is right for a person while the era is
// the same and the events reach to the position; it is read on from there.
type memory struct {
	mu     sync.Mutex
	most   int // bytes
	bytes  int
	recent *list.List // of *held, the last used first
	people map[string]*list.Element
	books  map[string]*list.Element
}

// mostRemembered leaves a scorer with a limit of 256 MiB room for its batches and for the garbage collector.
const mostRemembered = 56 << 20

// held is one thing that is remembered of a person: events or a book.
type held struct {
	id     string
	events *remembered
	book   *book
	bytes  int
}

func newMemory(most int) *memory {
	return &memory{most: most, recent: list.New(), people: map[string]*list.Element{}, books: map[string]*list.Element{}}
}

// of is the map that h is found in.
func (m *memory) of(h *held) map[string]*list.Element {
	if h.book != nil {
		return m.books
	}
	return m.people
}

// hold remembers h in the place of what there was, and forgets what there is no room for any more. m.mu is held.
func (m *memory) hold(h *held) {
	in := m.of(h)
	if old := in[h.id]; old != nil {
		m.forget(old)
	}
	in[h.id] = m.recent.PushFront(h)
	for m.bytes += h.bytes; m.bytes > m.most && m.recent.Len() > 0; {
		m.forget(m.recent.Back())
	}
}

func (m *memory) forget(e *list.Element) {
	h := m.recent.Remove(e).(*held)
	delete(m.of(h), h.id)
	m.bytes -= h.bytes
}

// book is what scores one person's next event without reading all the others. Who stores an event takes it out of the memory,
// under the lock of the person's row, and puts it back when its transaction is committed: until then nobody else has it, and
// after a transaction that came to nothing it is gone and made anew.
type book struct {
	*risk.PersonState
	era      int64
	position int64 // of the log, of the last event in it
}

// take takes the person's book of this era out; nil if there is none.
func (m *memory) take(id string, era int64) *book {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.books[id]
	if e == nil {
		return nil
	}
	m.forget(e)
	if b := e.Value.(*held).book; b.era == era {
		return b
	}
	return nil
}

// put puts books back, unless somebody has put a newer one there.
func (m *memory) put(books map[string]*book) {
	sizes := make(map[string]int, len(books))
	for id, b := range books {
		sizes[id] = b.Bytes()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, b := range books {
		if e := m.books[id]; e != nil {
			if old := e.Value.(*held).book; old.era > b.era || old.era == b.era && old.position >= b.position {
				continue
			}
		}
		m.hold(&held{id: id, book: b, bytes: sizes[id]})
	}
}

type remembered struct {
	era      int64
	position int64
	events   []activity.Event // never changed in place: readers hold it too
	counted  []activity.Event // those of events that count, when a reader has asked for them
	since    []int64          // the position of the log from which each event is this person's
}

// size is about how many bytes r takes.
func (r remembered) size() int {
	n := 256 + 8*cap(r.since) + int(unsafe.Sizeof(activity.Event{}))*cap(r.events)
	for i := range r.events {
		e := &r.events[i]
		n += len(e.ID) + len(e.Verb) + len(e.Source) + len(e.Detail) + len(e.Module) + len(e.Ticket) + len(e.Resource)
		for _, a := range e.Accounts {
			n += 16 + len(a)
		}
	}
	if len(r.counted) < len(r.events) { // of a flood: a slice of its own
		n += int(unsafe.Sizeof(activity.Event{})) * len(r.counted)
	}
	return n
}

// until is the person's events as they were known at a position of the log.
func (r remembered) until(position int64) []activity.Event {
	var list []activity.Event
	for i, e := range r.events {
		if r.since[i] <= position {
			list = append(list, e)
		}
	}
	return list
}

func (m *memory) get(id string, era int64) remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.people[id]
	if e == nil {
		return remembered{era: era}
	}
	r := e.Value.(*held).events
	if r.era != era {
		return remembered{era: era}
	}
	m.recent.MoveToFront(e)
	return *r
}

// room says what may be forgotten for what is remembered.
type room int

const (
	makeRoom      room = iota // what was not used for longest
	ifThereIsRoom             // nothing: who looks through everybody would drive out what is used
)

// keep remembers what a committed transaction has read or written, unless more is known already.
func (m *memory) keep(read map[string]remembered, room room) {
	for id, r := range read {
		h := &held{id: id, events: &r, bytes: r.size()}
		m.mu.Lock()
		e := m.people[id]
		if (e == nil || newer(*e.Value.(*held).events, r)) && (room == makeRoom || m.bytes+h.bytes <= m.most) {
			m.hold(h)
		}
		m.mu.Unlock()
	}
}

// newer says whether r says more than old.
func newer(old, r remembered) bool {
	return old.era < r.era || old.era == r.era && (old.position < r.position || old.counted == nil && r.counted != nil)
}

// employee is a row of people.person.
type employee struct {
	risk.Person
	position, era int64
}

const employeeColumns = `id, name, email, role, team, manager, to_char(joined, 'YYYY-MM-DD'), coalesce(to_char(gone, 'YYYY-MM-DD'), ''), zone, accounts, run, position, era`

func scanEmployee(row pgx.CollectableRow) (employee, error) {
	var e employee
	err := row.Scan(
		&e.ID,
		&e.Name,
		&e.Email,
		&e.Role,
		&e.Team,
		&e.Manager,
		&e.Joined,
		&e.Left,
		&e.Zone,
		&e.Accounts,
		&e.Run,
		&e.position,
		&e.era,
	)
	return e, err
}

// events reads the people's events up to each one's position, those that memory has from there. The caller keeps the
// answer in memory when its transaction is over.
func (s *Scorer) events(ctx context.Context, tx pgx.Tx, people []employee) (map[string]remembered, error) {
	known := make(map[string]remembered, len(people))
	var ids []string
	var after []int64
	for _, p := range people {
		r := s.memory.get(p.ID, p.era)
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

// books are the people's books with everything in them that the transaction sees, by person, and the scores at τ by each profile.
// The caller holds the locks of the people's rows, and puts the books back when its transaction is committed.
func (s *Scorer) books(ctx context.Context, tx pgx.Tx, people []employee, at time.Time) (map[string]*book, map[string][]risk.Score, error) {
	books, scores := map[string]*book{}, map[string][]risk.Score{}
	var anew []employee
	var ids []string
	var after []int64
	for _, p := range people {
		b := s.memory.take(p.ID, p.era)
		if b == nil {
			anew = append(anew, p)
			continue
		}
		books[p.ID] = b
		ids, after = append(ids, p.ID), append(after, b.position)
	}
	stale := map[string]bool{}
	if err := eachEvent(ctx, tx, ids, after, func(person string, position, _ int64, e activity.Event) {
		b := books[person]
		b.position = position
		if !stale[person] && !b.Add(e, at) {
			stale[person] = true
		}
	}); err != nil {
		return nil, nil, err
	}
	for _, p := range people {
		if b := books[p.ID]; b != nil && !stale[p.ID] {
			if list, ok := b.Scores(p.Role, at); ok {
				scores[p.ID] = list
				continue
			}
			stale[p.ID] = true
		}
		if stale[p.ID] {
			anew = append(anew, p)
		}
	}
	ids, after = nil, nil
	for _, p := range anew {
		ids, after = append(ids, p.ID), append(after, 0)
		books[p.ID] = &book{era: p.era}
	}
	whole := map[string][]activity.Event{}
	if err := eachEvent(ctx, tx, ids, after, func(person string, position, _ int64, e activity.Event) {
		books[person].position = position
		whole[person] = append(whole[person], e)
	}); err != nil {
		return nil, nil, err
	}
	for _, p := range anew {
		b := books[p.ID]
		b.PersonState = risk.PersonStateOf(s.profiles(), whole[p.ID], at)
		list, ok := b.Scores(p.Role, at)
		if !ok {
			return nil, nil, fmt.Errorf("score %s: the events that are summed up reach beyond %s", p.ID, at.Format(time.RFC3339))
		}
		scores[p.ID] = list
	}
	return books, scores, nil
}

// eachEvent reads the events of people behind a position each, by person and position. An event is its person's since a position that
// may be later than its own.
func eachEvent(ctx context.Context, tx pgx.Tx, ids []string, after []int64, do func(person string, position, since int64, e activity.Event)) error {
	if len(ids) == 0 {
		return nil
	}
	// OFFSET 0 has each person's events found by the index on (person, position), whatever the planner knows of the table.
	rows, err := tx.Query(ctx, `
		SELECT p.person, e.position, coalesce(e.owned, e.position), e.event
		FROM unnest($1::text[], $2::bigint[]) AS p (person, after)
		CROSS JOIN LATERAL (SELECT position, owned, event FROM risk.event WHERE person = p.person AND position > p.after ORDER BY position OFFSET 0) e
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

// now is the lab's time, started at risk.Epoch by whoever asks first.
func now(ctx context.Context, tx pgx.Tx) (risk.Clock, error) {
	const read = `SELECT base + (clock_timestamp() - since) * pace, pace FROM people.clock`
	var c risk.Clock
	err := tx.QueryRow(ctx, read).Scan(&c.Now, &c.Pace)
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err := tx.Exec(ctx, `INSERT INTO people.clock (base, since, pace) VALUES ($1, clock_timestamp(), 1) ON CONFLICT DO NOTHING`, risk.Epoch); err != nil {
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
