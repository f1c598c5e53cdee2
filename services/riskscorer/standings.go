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

// The organisation's figures are made of stored standings, one for each person and profile. A standing is computed
// again when the person's events, role or profile have changed, and when it is old, since a score falls with time. So a
// page of thousands of people costs one row each, and computing standings needs the memory of a few people at a time.

// standings computes, stores and reads standings. It refreshes those of one profile at a time.
type standings struct {
	scorer *Scorer
	lock   chan struct{} // of capacity 1
	dirty  atomic.Bool   // something was stored since the last refresh

	mu       sync.Mutex
	duration map[string]time.Duration // of the last refresh of most standings, by profile
}

func newStandings(s *Scorer) *standings {
	return &standings{scorer: s, lock: make(chan struct{}, 1), duration: map[string]time.Duration{}}
}

// Standings may be refreshFactor times as old as it takes to compute them, up to maxAge.
const (
	refreshFactor = 10
	maxAge        = 5 * time.Minute
)

// tolerance is how old a standing may be, in the lab's time.
func (k *standings) tolerance(profile string, pace float64) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Duration(float64(min(refreshFactor*k.duration[profile], maxAge)) * pace)
}

func (k *standings) recordDuration(profile string, duration time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.duration[profile] = duration
}

// storedStanding is a person with their stored standing by one profile.
type storedStanding struct {
	employee
	known    bool // a standing is stored
	version  int
	by       risk.Role // that it was computed for
	at       time.Time
	upTo, in int64 // the position of the log and the era that it was computed for
	score    risk.Score
	level    risk.Level
	due      time.Time // zero: unknown
	days     time.Time // the last midnight of trend; zero: unknown
	trend    []int64   // scores at trendDays midnights, oldest first
}

// outdated says whether a standing does not match its person's events.
func (k *storedStanding) outdated(profile *risk.Profile, now time.Time) bool {
	return !k.known || k.version != profile.Version || k.by != k.Role || k.in != k.era || k.upTo != k.position ||
		k.due.IsZero() || !k.days.Equal(midnight(now))
}

// standing is k at τ, in the form of the wire.
func (k *storedStanding) standing(at time.Time) risk.Standing {
	f := k.level.Frequency()
	return risk.Standing{
		Person: k.Person, At: at, Score: k.score, Level: k.level,
		Frequency: f, Due: k.due, Escalation: f.Escalate(k.due, at),
	}
}

func midnight(at time.Time) time.Time { return at.UTC().Truncate(24 * time.Hour) }

// midnights are the UTC midnights of a trend, oldest first.
func midnights(at time.Time) []time.Time {
	list := make([]time.Time, trendDays)
	for i := range list {
		list[i] = midnight(at).AddDate(0, 0, i+1-trendDays)
	}
	return list
}

// personColumns name employeeColumns in a query that also reads standings.
const personColumns = `(id, name, email, role, team, manager, joined, gone, zone, accounts, run, position, era)`

// storedStandings reads the people and their stored standings by a profile, in the order of their ids.
func storedStandings(ctx context.Context, tx pgx.Tx, profile *risk.Profile) ([]storedStanding, error) {
	rows, err := tx.Query(ctx, `
		SELECT p.*, s.person IS NOT NULL, coalesce(s.version, 0), coalesce(s.role, ''), s.at,
			coalesce(s.position, 0), coalesce(s.era, 0), coalesce(s.score, 0), coalesce(s.level, ''),
			s.due, s.days, s.trend
		FROM (SELECT `+employeeColumns+` FROM people.person) AS p `+personColumns+`
		LEFT JOIN risk.standing s ON s.person = p.id AND s.profile = $1 ORDER BY p.id`, profile.Name)
	if err != nil {
		return nil, fmt.Errorf("read standings: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (storedStanding, error) {
		var k storedStanding
		var at, due, days *time.Time
		err := row.Scan(append(k.columns(),
			&k.known, &k.version, &k.by, &at, &k.upTo, &k.in, &k.score, &k.level, &due, &days, &k.trend,
		)...)
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

// refresh computes and stores every standing by profile that is outdated or, if old is set, too old.
func (k *standings) refresh(ctx context.Context, profile *risk.Profile, old bool) error {
	select {
	case k.lock <- struct{}{}:
		defer func() { <-k.lock }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var list []storedStanding
	var clock risk.Clock
	if err := k.scorer.inSnapshot(ctx, func(tx pgx.Tx, c risk.Clock) (err error) {
		clock = c
		list, err = storedStandings(ctx, tx, profile)
		return err
	}); err != nil {
		return err
	}
	before := clock.Now.Add(-k.tolerance(profile.Name, clock.Pace))
	var ids []string
	earlier := map[string]*storedStanding{}
	for i := range list {
		if was := &list[i]; was.outdated(profile, clock.Now) || old && was.at.Before(before) {
			ids = append(ids, was.ID)
			earlier[was.ID] = was
		}
	}
	if len(ids) == 0 {
		return nil
	}
	begun := time.Now()
	if err := k.compute(ctx, profile, clock.Now, ids, earlier, k.store); err != nil {
		return err
	}
	if 2*len(ids) > len(list) {
		k.recordDuration(profile.Name, time.Since(begun))
	}
	return nil
}

// computeChunk people are read at a time, by computeWorkers goroutines.
const (
	computeChunk   = 16
	computeWorkers = 2
)

// compute computes the standings of people at τ, a few at a time, and passes them to do, which is called
// concurrently. earlier are the stored standings, by person, of those who have one.
func (k *standings) compute(
	ctx context.Context,
	profile *risk.Profile,
	at time.Time,
	ids []string,
	earlier map[string]*storedStanding,
	do func(context.Context, *risk.Profile, []storedStanding) error,
) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(computeWorkers)
	for chunk := range slices.Chunk(ids, computeChunk) {
		group.Go(func() error {
			var list []storedStanding
			if err := k.scorer.inSnapshot(ctx, func(tx pgx.Tx, _ risk.Clock) error {
				people, read, err := k.scorer.readPeople(ctx, tx, evictNothing, chunk...)
				for _, p := range people {
					list = append(list, computeStanding(profile, p, read[p.ID].counted, at, earlier[p.ID]))
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

// computeStanding computes a person's standing at τ from their events. Scores at midnights are taken from an earlier
// standing of the same events, role and profile; earlier may be nil.
func computeStanding(profile *risk.Profile, p employee, counted []activity.Event, at time.Time,
	earlier *storedStanding) storedStanding {
	k := storedStanding{
		employee: p, known: true, version: profile.Version, by: p.Role,
		at: at, upTo: p.position, in: p.era, days: midnight(at),
	}
	times := midnights(at)
	trend := earlier.pointsOf(&k)
	// The known scores are the beginning of the trend, or none; the rest is computed.
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

// pointsOf is the trend of k if k and later have the same events, role and profile; else nil. It is also nil if k has
// no due date. k may be nil.
func (k *storedStanding) pointsOf(later *storedStanding) []risk.Point {
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

// store stores standings, except where a newer one is stored already. A newer one may be of the same events:
// some of them may have been ahead of the time of the older one.
func (k *standings) store(ctx context.Context, profile *risk.Profile, list []storedStanding) error {
	batch := &pgx.Batch{}
	for _, one := range list {
		batch.Queue(`
			INSERT INTO risk.standing AS s
				(person, profile, version, role, at, position, era, score, level, due, days, trend)
			SELECT id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM people.person WHERE id = $1
			ON CONFLICT (person, profile) DO UPDATE SET version = excluded.version, role = excluded.role,
				at = excluded.at, position = excluded.position, era = excluded.era, score = excluded.score,
				level = excluded.level, due = excluded.due, days = excluded.days, trend = excluded.trend
			WHERE (s.era, s.position, s.at) <= (excluded.era, excluded.position, excluded.at)`,
			one.ID, profile.Name, one.version, string(one.by), one.at, one.upTo, one.in,
			int64(one.score), string(one.level), one.due, one.days, one.trend)
	}
	if err := k.scorer.pool.SendBatch(ctx, batch).Close(); err != nil {
		return k.scorer.unavailable(fmt.Errorf("store standings: %w", err))
	}
	return nil
}

// all are those of all people by profile, in the order of their ids. They are stored for the scorer's own
// profiles, and computed for others.
func (k *standings) all(ctx context.Context, profile *risk.Profile) ([]storedStanding, risk.Clock, error) {
	var list []storedStanding
	var clock risk.Clock
	read := func() error {
		return k.scorer.inSnapshot(ctx, func(tx pgx.Tx, c risk.Clock) (err error) {
			clock = c
			list, err = storedStandings(ctx, tx, profile)
			return err
		})
	}
	if slices.Contains(k.scorer.profiles(), profile) {
		if err := k.refresh(ctx, profile, true); err != nil {
			return nil, clock, err
		}
		if err := read(); err != nil {
			return nil, clock, err
		}
		// A person who was added after the refresh has none yet.
		list = slices.DeleteFunc(list, func(one storedStanding) bool { return !one.known })
		return list, clock, k.complete(ctx, profile, clock.Now, list)
	}
	if err := read(); err != nil {
		return nil, clock, err
	}
	ids := make([]string, len(list))
	for i, one := range list {
		ids[i] = one.ID
	}
	list = list[:0]
	var mu sync.Mutex
	err := k.compute(ctx, profile, clock.Now, ids, nil, func(_ context.Context, _ *risk.Profile,
		some []storedStanding) error {
		mu.Lock()
		defer mu.Unlock()
		list = append(list, some...)
		return nil
	})
	slices.SortFunc(list, func(a, b storedStanding) int { return cmp.Compare(a.ID, b.ID) })
	return list, clock, err
}

// complete computes those standings in list again whose due date is unknown because events came after the
// refresh.
func (k *standings) complete(ctx context.Context, profile *risk.Profile, at time.Time,
	list []storedStanding) error {
	var ids []string
	places := map[string]int{}
	for i := range list {
		if one := &list[i]; one.due.IsZero() {
			ids, places[one.ID] = append(ids, one.ID), i
		}
	}
	var mu sync.Mutex
	return k.compute(ctx, profile, at, ids, nil, func(_ context.Context, _ *risk.Profile,
		some []storedStanding) error {
		mu.Lock()
		defer mu.Unlock()
		for _, one := range some {
			list[places[one.ID]] = one
		}
		return nil
	})
}

// keepFresh refreshes standings after batches have been stored, so that the next request does not wait for it. It
// runs until ctx ends.
func (k *standings) keepFresh(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if len(k.scorer.slots) > 0 || !k.dirty.CompareAndSwap(true, false) {
			continue
		}
		for _, p := range k.scorer.profiles() {
			if err := k.refresh(ctx, p, false); err != nil && ctx.Err() == nil {
				k.scorer.log.Warn("standings could not be computed", "profile", p.Name, "error", err.Error())
				k.dirty.Store(true)
			}
		}
	}
}
