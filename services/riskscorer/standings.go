package riskscorer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

// The company's figures come from what each person's score was when it was last made, which is stored. It is made again
// where events, role or profile have changed since, and when it is old: a score falls with time alone. So a page of a
// company of thousands costs a row for each person, and the memory for making them is that of a few people at a time.

// keeper makes standings, one company at a time.
type keeper struct {
	turn  chan struct{}
	dirty atomic.Bool // something was stored since standings were last looked through

	mu   sync.Mutex
	took map[string]time.Duration // making everybody's standing, by profile, the last time
}

func newKeeper() *keeper {
	return &keeper{turn: make(chan struct{}, 1), took: map[string]time.Duration{}}
}

// Making standings takes at most this part of the time, until they are as old as that.
const (
	makeRarely = 10 // times what making them takes
	oldest     = 5 * time.Minute
)

// tolerance is how old a standing may be, in the lab's time.
func (k *keeper) tolerance(profile string, pace float64) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Duration(float64(min(makeRarely*k.took[profile], oldest)) * pace)
}

func (k *keeper) note(profile string, took time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.took[profile] = took
}

// kept is a person with their standing by one profile, as it was stored.
type kept struct {
	employee
	known    bool // there is one
	version  int
	by       risk.Role // as which it was made
	at       time.Time
	upTo, in int64 // position of the log and era that it was made with
	score    risk.Score
	level    risk.Level
	due      time.Time // zero: to be found
	days     time.Time // the last midnight of trend; zero: to be found
	trend    []int64   // scores at trendDays midnights, oldest first
}

// outdated says whether a standing is not what its person's events come to.
func (k *kept) outdated(profile *risk.Profile, now time.Time) bool {
	return !k.known || k.version != profile.Version || k.by != k.Role || k.in != k.era || k.upTo != k.position ||
		k.due.IsZero() ||
		!k.days.Equal(midnight(now))
}

// standing is k as it is told at τ.
func (k *kept) standing(at time.Time) risk.Standing {
	f := k.level.Frequency()
	return risk.Standing{
		Person:     k.Person,
		At:         at,
		Score:      k.score,
		Level:      k.level,
		Frequency:  f,
		Due:        k.due,
		Escalation: f.Escalate(k.due, at),
	}
}

func midnight(at time.Time) time.Time { return at.UTC().Truncate(24 * time.Hour) }

// midnights are those of a trend, oldest first.
func midnights(at time.Time) []time.Time {
	list := make([]time.Time, trendDays)
	for i := range list {
		list[i] = midnight(at).AddDate(0, 0, i+1-trendDays)
	}
	return list
}

// keptColumns are the columns of people.person as they are called next to those of a standing.
const keptColumns = `(id, name, email, role, team, manager, joined, gone, zone, accounts, run, position, era)`

// kept reads the people and their stored standings by a profile, in the order of their ids.
func (s *Scorer) kept(ctx context.Context, tx pgx.Tx, profile *risk.Profile) ([]kept, error) {
	rows, err := tx.Query(ctx, `
		SELECT p.*, s.person IS NOT NULL, coalesce(s.version, 0), coalesce(s.role, ''), s.at, coalesce(s.position, 0), coalesce(s.era, 0),
			coalesce(s.score, 0), coalesce(s.level, ''), s.due, s.days, s.trend
		FROM (SELECT `+employeeColumns+` FROM people.person) AS p `+keptColumns+`
		LEFT JOIN risk.standing s ON s.person = p.id AND s.profile = $1 ORDER BY p.id`, profile.Name)
	if err != nil {
		return nil, fmt.Errorf("read standings: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (kept, error) {
		var k kept
		var at, due, days *time.Time
		e := &k.employee
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
			&k.known,
			&k.version,
			&k.by,
			&at,
			&k.upTo,
			&k.in,
			&k.score,
			&k.level,
			&due,
			&days,
			&k.trend,
		)
		if k.known && err == nil {
			k.at = at.UTC()
		}
		if due != nil {
			k.due = due.UTC()
		}
		if days != nil && len(k.trend) == trendDays {
			k.days = days.UTC()
		}
		return k, err
	})
	if err != nil {
		return nil, fmt.Errorf("read standings: %w", err)
	}
	return list, nil
}

// fresh has every standing by profile made that is outdated or, where old is wanted, too old.
func (s *Scorer) fresh(ctx context.Context, profile *risk.Profile, old bool) error {
	select {
	case s.company.turn <- struct{}{}:
		defer func() { <-s.company.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var list []kept
	var clock risk.Clock
	if err := s.look(ctx, func(tx pgx.Tx, c risk.Clock) (err error) {
		clock = c
		list, err = s.kept(ctx, tx, profile)
		return err
	}); err != nil {
		return err
	}
	before := clock.Now.Add(-s.company.tolerance(profile.Name, clock.Pace))
	var ids []string
	earlier := map[string]*kept{}
	for i := range list {
		if k := &list[i]; k.outdated(profile, clock.Now) || old && k.at.Before(before) {
			ids = append(ids, k.ID)
			earlier[k.ID] = k
		}
	}
	if len(ids) == 0 {
		return nil
	}
	begun := time.Now()
	if err := s.eachMade(ctx, profile, clock.Now, ids, earlier, s.keep); err != nil {
		return err
	}
	if 2*len(ids) > len(list) {
		s.company.note(profile.Name, time.Since(begun))
	}
	return nil
}

// Standings are made of so many people at a time, by so many at once.
const (
	madeAtATime = 16
	makers      = 2
)

// eachMade makes the standings of people at τ, a few at a time, and hands them to do, which is called by several at
// once. Earlier are standings that are stored, by person, as far as there are any.
func (s *Scorer) eachMade(
	ctx context.Context,
	profile *risk.Profile,
	at time.Time,
	ids []string,
	earlier map[string]*kept,
	do func(context.Context, *risk.Profile, []kept) error,
) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(makers)
	for chunk := range slices.Chunk(ids, madeAtATime) {
		group.Go(func() error {
			var list []kept
			if err := s.look(ctx, func(tx pgx.Tx, _ risk.Clock) error {
				people, read, err := s.known(ctx, tx, ifThereIsRoom, chunk...)
				for _, p := range people {
					list = append(list, made(profile, p, read[p.ID].counted, at, earlier[p.ID]))
				}
				return err
			}); err != nil {
				return err
			}
			return do(ctx, profile, list)
		})
	}
	return group.Wait()
}

// made is a person's standing at τ, made of their events. Scores at midnights are taken over from an earlier standing
// that was made of the same events, role and profile; earlier may be nil.
func made(profile *risk.Profile, p employee, counted []activity.Event, at time.Time, earlier *kept) kept {
	k := kept{
		employee: p,
		known:    true,
		version:  profile.Version,
		by:       p.Role,
		at:       at,
		upTo:     p.position,
		in:       p.era,
		days:     midnight(at),
	}
	times := midnights(at)
	trend := earlier.pointsOf(&k)
	// What is known is the beginning of the trend, or nothing: the rest is computed.
	for len(trend) > 0 && trend[0].At.Before(times[0]) {
		trend = trend[1:]
	}
	if len(trend) > trendDays || len(trend) > 0 && !trend[0].At.Equal(times[0]) {
		trend = nil
	}
	rest := times[len(trend):]
	scores := profile.Scores(p.Role, counted, append(rest, at))
	for i, then := range rest {
		trend = append(trend, risk.Point{At: then, Score: scores[i]})
	}
	for _, point := range trend {
		k.trend = append(k.trend, int64(point.Score))
	}
	k.score = scores[len(rest)]
	k.level = profile.Level(k.score)
	k.due, _ = profile.Due(p.Role, counted, k.level, at, trend...)
	return k
}

// pointsOf is the trend of k, if it is made of the same as that of later; else nil: without a due date, too, the trend
// is not known. k may be nil.
func (k *kept) pointsOf(later *kept) []risk.Point {
	if k == nil || !k.known || k.due.IsZero() || k.days.IsZero() || k.days.After(later.days) ||
		k.version != later.version || k.by != later.by || k.in != later.in || k.upTo != later.upTo {
		return nil
	}
	points := make([]risk.Point, trendDays)
	for i, then := range midnights(k.days) {
		points[i] = risk.Point{At: then, Score: risk.Score(k.trend[i])}
	}
	return points
}

// keep stores standings, unless newer ones are stored already: of the same events, too, as some were ahead of the older
// one's time.
func (s *Scorer) keep(ctx context.Context, profile *risk.Profile, list []kept) error {
	batch := &pgx.Batch{}
	for _, k := range list {
		batch.Queue(`
			INSERT INTO risk.standing AS s (person, profile, version, role, at, position, era, score, level, due, days, trend)
			SELECT id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM people.person WHERE id = $1
			ON CONFLICT (person, profile) DO UPDATE SET version = excluded.version, role = excluded.role, at = excluded.at, position = excluded.position, era = excluded.era,
				score = excluded.score, level = excluded.level, due = excluded.due, days = excluded.days, trend = excluded.trend
			WHERE (s.era, s.position, s.at) <= (excluded.era, excluded.position, excluded.at)`,
			k.ID,
			profile.Name,
			k.version,
			string(k.by),
			k.at,
			k.upTo,
			k.in,
			int64(k.score),
			string(k.level),
			k.due,
			k.days,
			k.trend,
		)
	}
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return s.away(fmt.Errorf("store standings: %w", err))
	}
	return nil
}

// standings are everybody's by profile, in the order of their ids: stored ones of the scorer's own profiles, made ones
// of others.
func (s *Scorer) standings(ctx context.Context, profile *risk.Profile) ([]kept, risk.Clock, error) {
	var list []kept
	var clock risk.Clock
	read := func() error {
		return s.look(ctx, func(tx pgx.Tx, c risk.Clock) (err error) {
			clock = c
			list, err = s.kept(ctx, tx, profile)
			return err
		})
	}
	if slices.Contains(s.profiles(), profile) {
		if err := s.fresh(ctx, profile, true); err != nil {
			return nil, clock, err
		}
		if err := read(); err != nil {
			return nil, clock, err
		}
		// Who came into the roster a moment ago has none yet, and is there the next time.
		list = slices.DeleteFunc(list, func(k kept) bool { return !k.known })
		return list, clock, s.complete(ctx, profile, clock.Now, list)
	}
	if err := read(); err != nil {
		return nil, clock, err
	}
	ids := make([]string, len(list))
	for i, k := range list {
		ids[i] = k.ID
	}
	list = list[:0]
	var mu sync.Mutex
	err := s.eachMade(ctx, profile, clock.Now, ids, nil, func(_ context.Context, _ *risk.Profile, some []kept) error {
		mu.Lock()
		defer mu.Unlock()
		list = append(list, some...)
		return nil
	})
	slices.SortFunc(list, func(a, b kept) int { return cmp.Compare(a.ID, b.ID) })
	return list, clock, err
}

// complete makes those of list again for whom events came a moment ago, so that it is not known when their training
// falls due.
func (s *Scorer) complete(ctx context.Context, profile *risk.Profile, at time.Time, list []kept) error {
	var ids []string
	places := map[string]int{}
	for i := range list {
		if k := &list[i]; k.due.IsZero() {
			ids, places[k.ID] = append(ids, k.ID), i
		}
	}
	var mu sync.Mutex
	return s.eachMade(ctx, profile, at, ids, nil, func(_ context.Context, _ *risk.Profile, some []kept) error {
		mu.Lock()
		defer mu.Unlock()
		for _, k := range some {
			list[places[k.ID]] = k
		}
		return nil
	})
}

// keepCompany makes standings after batches have been stored, so that who looks next does not wait for it, until ctx
// ends.
func (s *Scorer) keepCompany(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if len(s.turns) > 0 || !s.company.dirty.CompareAndSwap(true, false) {
			continue
		}
		for _, p := range s.profiles() {
			if err := s.fresh(ctx, p, false); err != nil && ctx.Err() == nil {
				s.log.Warn("standings could not be made", "profile", p.Name, "error", err.Error())
				s.company.dirty.Store(true)
			}
		}
	}
}
