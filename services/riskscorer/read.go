package riskscorer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

// trendDays is the length of a trend, with one point for each day.
const trendDays = 30

// inSnapshot runs read in one read-only snapshot of the database, with the lab's time.
func (s *Scorer) inSnapshot(ctx context.Context, read func(tx pgx.Tx, clock risk.Clock) error) error {
	clock, err := s.clock(ctx)
	if err != nil {
		return s.unavailable(err)
	}
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	return s.unavailable(pgx.BeginTxFunc(ctx, s.pool, snapshot, func(tx pgx.Tx) error { return read(tx, clock) }))
}

// clock is the lab's time. It has a transaction of its own, since the clock may have to be started.
func (s *Scorer) clock(ctx context.Context) (risk.Clock, error) {
	var c risk.Clock
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		var err error
		c, err = now(ctx, tx)
		return err
	})
	return c, err
}

// readPeople reads those people with these ids who exist, and their events, which it adds to the cache.
func (s *Scorer) readPeople(
	ctx context.Context,
	tx pgx.Tx,
	eviction eviction,
	ids ...string,
) ([]employee, map[string]personEvents, error) {
	rows, err := tx.Query(ctx, `SELECT `+employeeColumns+` FROM people.person WHERE id = ANY ($1) ORDER BY id`, ids)
	if err != nil {
		return nil, nil, fmt.Errorf("read people: %w", err)
	}
	people, err := pgx.CollectRows(rows, scanEmployee)
	if err != nil {
		return nil, nil, fmt.Errorf("read people: %w", err)
	}
	read, err := s.cache.eventsOf(ctx, tx, people)
	if err != nil {
		return nil, nil, err
	}
	for id, r := range read {
		if r.counted == nil {
			r.counted = risk.Capped(r.events)
			read[id] = r
		}
	}
	s.cache.keep(read, eviction)
	return people, read, nil
}

// profileOf is the profile that a request names by ?profile=, or the scorer's own.
func (s *Scorer) profileOf(r *http.Request) (*risk.Profile, error) {
	return namedProfile(r, "profile", s.profile)
}

// namedProfile is the profile that a parameter of the query names, or otherwise if the query has no such parameter.
func namedProfile(r *http.Request, parameter string, otherwise *risk.Profile) (*risk.Profile, error) {
	name := r.URL.Query().Get(parameter)
	if name == "" {
		return otherwise, nil
	}
	p, err := risk.ProfileByName(name)
	if err != nil {
		return nil, httpjson.Errorf(http.StatusBadRequest, "unknown_profile", "%v", err)
	}
	return p, nil
}

// days are the times of a trend, oldest first; the last one is at.
func days(at time.Time, points int) []time.Time {
	list := make([]time.Time, points)
	for i := range list {
		list[points-1-i] = at.Add(-time.Duration(i) * trendDays * 24 * time.Hour / time.Duration(max(1, points-1)))
	}
	return list
}

// Risk is GET /v1/people/{person}/risk: the person's risk.Assessment at the lab's now, with a trend of 30 days,
// computed from the events. ?profile= names another profile, and ?at= (RFC 3339) a time in the past. ?as_of= is a
// position of the event log: events that arrived later are ignored, even if they happened earlier. The answer is
// scorerapi.Rescored.
func (s *Scorer) Risk(w http.ResponseWriter, r *http.Request) error {
	profile, err := s.profileOf(r)
	if err != nil {
		return err
	}
	var at time.Time
	if text := r.URL.Query().Get("at"); text != "" {
		if at, err = time.Parse(time.RFC3339, text); err != nil {
			return httpjson.Errorf(http.StatusBadRequest, "bad_time", "at %q: want RFC 3339", text)
		}
	}
	asOf, err := httpjson.Number(r, "as_of", latest)
	if err != nil {
		return err
	}
	var a scorerapi.Rescored
	err = s.inSnapshot(r.Context(), func(tx pgx.Tx, clock risk.Clock) error {
		id := r.PathValue("person")
		people, read, err := s.readPeople(r.Context(), tx, evictOldest, id)
		if err != nil {
			return err
		}
		if len(people) == 0 {
			return httpjson.Errorf(http.StatusNotFound, "unknown_person", "no person in the roster is %q", clip(id))
		}
		p, known := people[0], read[id]
		current := at.IsZero() && asOf == latest
		if at.IsZero() || at.After(clock.Now) {
			at = clock.Now
		}
		events, position := known.counted, known.position
		if asOf != latest {
			if a.Stored, err = stored(r.Context(), tx, id, asOf, profile.Name); err != nil {
				return err
			}
			if a.Stored != nil && a.Stored.Role != "" {
				p.Role = a.Stored.Role
			}
			events, position = risk.Capped(known.until(asOf)), min(position, asOf)
		}
		a.Assessment = profile.Assess(p.ID, p.Role, events, at)
		a.Position = position
		a.Trend = profile.Trend(p.Role, events, days(at, trendDays+1))
		if current {
			a.Missing, err = silentSources(r.Context(), tx, clock.Now)
		}
		return err
	})
	if err != nil {
		return err
	}
	return httpjson.Write(w, http.StatusOK, a)
}

// latest stands for the end of the log.
const latest = 1<<63 - 1

// stored is the score that was stored at a position of the log; nil if there is none.
func stored(
	ctx context.Context, tx pgx.Tx, person string, position int64, profile string,
) (*scorerapi.StoredScore, error) {
	var st scorerapi.StoredScore
	var score int64
	err := tx.QueryRow(ctx, `
		SELECT at, position, profile, version, role, score, level FROM risk.score
		WHERE person = $1 AND position = $2 AND profile = $3`, person, position, profile).
		Scan(&st.At, &st.Position, &st.Profile, &st.Version, &st.Role, &score, &st.Level)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read stored score: %w", err)
	}
	st.At, st.Score = st.At.UTC(), risk.Score(score)
	return &st, nil
}

// own says whether a person belongs to the organisation, and was not created for a run of an exercise.
func own(p risk.Person) bool { return p.Run == "" }

// everyone includes people who were created for a run of an exercise.
func everyone(risk.Person) bool { return true }

// employed are the standings of the people who are selected by count and employed at τ.
func employed(list []storedStanding, at time.Time, count func(risk.Person) bool) []risk.Standing {
	out := make([]risk.Standing, 0, len(list))
	for i := range list {
		if k := &list[i]; count(k.Person) && k.Employed(at) {
			out = append(out, k.standing(at))
		}
	}
	return out
}

// shadowOf is the profile that a request compares with, by ?shadow=, or the scorer's own shadow.
func (s *Scorer) shadowOf(r *http.Request) (*risk.Profile, error) {
	return namedProfile(r, "shadow", s.shadow)
}

// People is GET /v1/people: a JSON array of risk.Standing of those who have joined and not left, the highest score
// first. ?shadow= names a second profile whose scores are added. ?runs=all also lists people who were created for a run
// of an exercise; they do not belong to the organisation.
func (s *Scorer) People(w http.ResponseWriter, r *http.Request) error {
	profile, err := s.profileOf(r)
	if err != nil {
		return err
	}
	shadow, err := s.shadowOf(r)
	if err != nil {
		return err
	}
	runs := r.URL.Query().Get("runs")
	if runs != "" && runs != "all" {
		return httpjson.Errorf(http.StatusBadRequest, "bad_runs", "runs %q: want all", runs)
	}
	all, clock, err := s.standings.all(r.Context(), profile)
	if err != nil {
		return err
	}
	count := own
	if runs == "all" {
		count = everyone
	}
	list := employed(all, clock.Now, count)
	if shadow != nil {
		others, _, err := s.standings.all(r.Context(), shadow)
		if err != nil {
			return err
		}
		of := map[string]*storedStanding{}
		for i := range others {
			of[others[i].ID] = &others[i]
		}
		for i := range list {
			if o := of[list[i].ID]; o != nil {
				list[i].Shadow = &risk.Shadow{Profile: shadow.Name, Version: shadow.Version, Score: o.score, Level: o.level}
			}
		}
	}
	slices.SortStableFunc(list, func(a, b risk.Standing) int { return cmp.Compare(b.Score, a.Score) })
	return httpjson.Write(w, http.StatusOK, list)
}

// Organisation is GET /v1/organisation: the risk.Organisation at the lab's now, with a trend of 30 days at UTC
// midnights, from stored standings. ?shadow= names a profile to compare with.
func (s *Scorer) Organisation(w http.ResponseWriter, r *http.Request) error {
	profile, err := s.profileOf(r)
	if err != nil {
		return err
	}
	shadow, err := s.shadowOf(r)
	if err != nil {
		return err
	}
	list, clock, err := s.standings.all(r.Context(), profile)
	if err != nil {
		return err
	}
	o := profile.Organise(employed(list, clock.Now, own), clock.Now)
	if shadow != nil {
		others, _, err := s.standings.all(r.Context(), shadow)
		if err != nil {
			return err
		}
		o.Shadow = compareProfiles(
			profile, shadow, employed(list, clock.Now, own), employed(others, clock.Now, own), clock.Now,
		)
	}
	for i, at := range midnights(clock.Now) {
		then := profile.Organise(employedThen(list, i, at, profile), at)
		o.Trend = append(o.Trend, risk.Point{At: at, Score: then.Score})
	}
	o.Trend = append(o.Trend, risk.Point{At: clock.Now, Score: o.Score})
	for _, k := range list {
		o.Position = max(o.Position, k.upTo)
	}
	if err := s.inSnapshot(r.Context(), func(tx pgx.Tx, clock risk.Clock) error {
		if o.Missing, err = silentSources(r.Context(), tx, clock.Now); err != nil {
			return err
		}
		if err := tx.QueryRow(r.Context(), `SELECT count(*) FROM risk.unknown_account`).Scan(&o.Accounts); err != nil {
			return fmt.Errorf("count unknown accounts: %w", err)
		}
		return nil
	}); err != nil {
		return err
	}
	return httpjson.Write(w, http.StatusOK, o)
}

// employedThen are the standings at midnight i of a trend.
func employedThen(list []storedStanding, i int, at time.Time, profile *risk.Profile) []risk.Standing {
	out := make([]risk.Standing, 0, len(list))
	for _, k := range list {
		if own(k.Person) && k.Employed(at) && len(k.trend) == trendDays {
			score := risk.Score(k.trend[i])
			out = append(out, risk.Standing{Person: k.Person, At: at, Score: score, Level: profile.Level(score)})
		}
	}
	return out
}

// Watermarks is GET /v1/watermarks: how far each collector's events have arrived, as scorerapi.Progress.
func (s *Scorer) Watermarks(w http.ResponseWriter, r *http.Request) error {
	var p scorerapi.Progress
	if err := s.inSnapshot(r.Context(), func(tx pgx.Tx, _ risk.Clock) error {
		if err := tx.QueryRow(r.Context(), `
			SELECT coalesce(max(position), 0), count(*), count(*) FILTER (WHERE late),
				(SELECT count(*) FROM risk.dead_letter)
			FROM risk.event`).Scan(&p.Position, &p.Events, &p.Late, &p.DeadLetters); err != nil {
			return fmt.Errorf("read progress: %w", err)
		}
		rows, err := tx.Query(r.Context(), `SELECT collector, seq, at FROM risk.watermark ORDER BY collector`)
		if err != nil {
			return fmt.Errorf("read watermarks: %w", err)
		}
		if p.Watermarks, err = pgx.CollectRows(rows, pgx.RowToStructByPos[scorerapi.Watermark]); err != nil {
			return fmt.Errorf("read watermarks: %w", err)
		}
		rows, err = tx.Query(r.Context(), `
			SELECT account, events, first, last FROM risk.unknown_account
			ORDER BY events DESC, account LIMIT 100`)
		if err != nil {
			return fmt.Errorf("read unknown accounts: %w", err)
		}
		if p.Unknown, err = pgx.CollectRows(rows, pgx.RowToStructByPos[scorerapi.Account]); err != nil {
			return fmt.Errorf("read unknown accounts: %w", err)
		}
		return nil
	}); err != nil {
		return err
	}
	return httpjson.Write(w, http.StatusOK, p)
}

// assessedWithin is how long after an event was received its assessment can be in the audit. Both are written in one
// transaction.
const assessedWithin = 10 * time.Minute

// Audit is GET /v1/audit?after=SEQ&limit=N: the scorer's chain as NDJSON of audit.Row, by seq, at most 10,000 lines.
// With ?event=ID, and without ?after, it is only the rows about that event.
func (s *Scorer) Audit(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if q.Has("person") || q.Has("since") || q.Has("event") && q.Has("after") {
		return httpjson.Errorf(http.StatusBadRequest, "bad_search", "want after and limit, or event and limit")
	}
	after, err := httpjson.Number(r, "after", 0)
	if err != nil {
		return err
	}
	limit, err := httpjson.Number(r, "limit", 1000)
	if err != nil {
		return err
	}
	var list []audit.Row
	if err := s.inSnapshot(r.Context(), func(tx pgx.Tx, _ risk.Clock) error {
		rows := audited.Export(r.Context(), tx, after, min(limit, 10_000))
		if event := q.Get("event"); event != "" {
			about, err := subjectOf(r.Context(), tx, event)
			if err != nil {
				return err
			}
			rows = audited.Story(r.Context(), tx, about, min(limit, 10_000))
		}
		var err error
		list, err = audited.Collect(rows)
		return err
	}); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	return audit.WriteRows(w, audit.Each(list))
}

// subjectOf selects the audit rows of an event: its own, and those of its person that name it. The latter were written
// about when the event was received.
func subjectOf(ctx context.Context, tx pgx.Tx, event string) (audited.Subject, error) {
	s := audited.Subject{Event: event}
	var received time.Time
	err := tx.QueryRow(
		ctx, `SELECT coalesce(person, ''), received FROM risk.event WHERE id = $1`, event,
	).Scan(&s.Person, &received)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("look up event: %w", err)
	}
	s.Since, s.Until = received.Add(-time.Minute), received.Add(assessedWithin)
	return s, nil
}
