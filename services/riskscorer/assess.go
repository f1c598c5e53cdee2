package riskscorer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

// news is what a batch stored about one person.
type news struct {
	events []string // ids
	oldest time.Time
	passed bool // a module
}

// newsOf is what the lines stored, by person.
func newsOf(lines []*line) map[string]*news {
	all := map[string]*news{}
	for _, l := range lines {
		if l.person == "" || l.receipt.Status != activity.Stored {
			continue
		}
		n := all[l.person]
		if n == nil {
			n = &news{oldest: l.Event.At}
			all[l.person] = n
		}
		n.events = append(n.events, l.Event.ID)
		if l.Event.At.Before(n.oldest) {
			n.oldest = l.Event.At
		}
		n.passed = n.passed || l.Event.Verb == activity.TrainingPassed
	}
	return all
}

// scoreRows are the scores of people by one profile, as columns for unnest.
type scoreRows struct {
	people            []string
	positions, scores []int64
	roles, levels     []string
	eras              []int64
	// unchanged is the last midnight if everything new is after it and no module was passed, else NULL: then the scores
	// at midnights and the due date may stay.
	unchanged []*time.Time
}

func rowsOf(
	profile *risk.Profile, people []employee, scores func(person string) risk.Score,
	states map[string]*personState, stored map[string]*news, midnight time.Time,
) scoreRows {
	var r scoreRows
	for _, p := range people {
		score := scores(p.ID)
		r.people = append(r.people, p.ID)
		r.positions = append(r.positions, states[p.ID].position)
		r.eras = append(r.eras, p.era)
		r.roles = append(r.roles, string(p.Role))
		r.scores = append(r.scores, int64(score))
		r.levels = append(r.levels, string(profile.Level(score)))
		var unchanged *time.Time
		if n := stored[p.ID]; !n.passed && n.oldest.After(midnight) {
			unchanged = &midnight
		}
		r.unchanged = append(r.unchanged, unchanged)
	}
	return r
}

// assess scores the people about whom the lines stored something new. It returns their audit rows, which name the new
// events, and their states for the cache.
func (s *Scorer) assess(
	ctx context.Context,
	tx pgx.Tx,
	people []employee,
	lines []*line,
	clock risk.Clock,
) ([]audited.Row, map[string]*personState, error) {
	stored := newsOf(lines)
	people = slices.DeleteFunc(people, func(p employee) bool { return stored[p.ID] == nil })
	if len(people) == 0 {
		return nil, nil, nil
	}
	states, scores, err := s.cache.statesOf(ctx, tx, s.profiles(), people, clock.Now)
	if err != nil {
		return nil, nil, err
	}
	var entries []audited.Row
	for which, profile := range s.profiles() {
		of := func(person string) risk.Score { return scores[person][which] }
		rows := rowsOf(profile, people, of, states, stored, midnight(clock.Now))
		if err := rows.store(ctx, tx, profile, clock.Now); err != nil {
			return nil, nil, err
		}
		if profile != s.profile {
			continue
		}
		if err := rows.storePositions(ctx, tx); err != nil {
			return nil, nil, err
		}
		for i, id := range rows.people {
			events := stored[id].events
			entries = append(entries, audited.Note(scorerapi.KindAssessment, id, events[0], scorerapi.Assessed{
				Profile: profile.Name, Score: of(id), Level: risk.Level(rows.levels[i]),
				Position: rows.positions[i], At: clock.Now, Events: events,
			}))
		}
	}
	return entries, states, nil
}

// store stores the scores and the standings that they make. A due date and the scores at midnights stay valid unless
// something happened before the last midnight, the level changed, or a module was passed. Otherwise the standing loses
// its due date, which marks it as outdated, and is computed again.
func (r scoreRows) store(ctx context.Context, tx pgx.Tx, profile *risk.Profile, now time.Time) error {
	if _, err := tx.Exec(ctx, `
		INSERT INTO risk.score (person, at, position, profile, version, role, score, level)
		SELECT person, $1, position, $2, $3, role, score, level
		FROM unnest($4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::text[])
			AS s (person, position, role, score, level)
		ON CONFLICT DO NOTHING`,
		now, profile.Name, profile.Version, r.people, r.positions, r.roles, r.scores, r.levels); err != nil {
		return fmt.Errorf("store scores: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO risk.standing AS s (person, profile, version, role, at, position, era, score, level, days)
		SELECT person, $2, $3, role, $1, position, era, score, level, days
		FROM unnest($4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::bigint[], $10::timestamptz[])
			AS n (person, position, role, score, level, era, days)
		ON CONFLICT (person, profile) DO UPDATE SET version = excluded.version, role = excluded.role,
			at = excluded.at, position = excluded.position, era = excluded.era,
			score = excluded.score, level = excluded.level, due = CASE
				WHEN excluded.days <= s.at AND (s.version, s.role, s.era, s.level) =
					(excluded.version, excluded.role, excluded.era, excluded.level) THEN s.due END`,
		now, profile.Name, profile.Version, r.people, r.positions, r.roles, r.scores, r.levels, r.eras,
		r.unchanged); err != nil {
		return fmt.Errorf("store standings: %w", err)
	}
	return nil
}

// storePositions notes how far in the event log each person's state reaches.
func (r scoreRows) storePositions(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `
		UPDATE people.person p SET position = s.position
		FROM unnest($1::text[], $2::bigint[]) AS s (person, position) WHERE p.id = s.person`,
		r.people, r.positions); err != nil {
		return fmt.Errorf("store positions: %w", err)
	}
	return nil
}
