package riskscorer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

// silentAfter is how long a vendor may send nothing before it counts as missing. It is longer than a weekend.
const silentAfter = 72 * time.Hour

// noteFeeds stores the time of the latest event of each source.
func noteFeeds(ctx context.Context, tx pgx.Tx, lines []*line) error {
	at := map[activity.Source]time.Time{}
	for _, l := range lines {
		if l.receipt.Status == activity.Stored && l.Event.At.After(at[l.Event.Source]) {
			at[l.Event.Source] = l.Event.At
		}
	}
	for _, source := range activity.Sources() {
		if at[source].IsZero() {
			continue
		}
		if _, err := tx.Exec(ctx, `
			INSERT INTO risk.feed AS f (source, latest) VALUES ($1, $2)
			ON CONFLICT (source) DO UPDATE SET latest = greatest(f.latest, excluded.latest)`,
			string(source), at[source]); err != nil {
			return fmt.Errorf("note feed: %w", err)
		}
	}
	return nil
}

// rebuildFeeds computes risk.feed from the events.
func rebuildFeeds(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `DELETE FROM risk.feed`); err != nil {
		return fmt.Errorf("note feeds: %w", err)
	}
	if _, err := tx.Exec(ctx, `
		INSERT INTO risk.feed (source, latest)
		SELECT source, max(at) FROM risk.event GROUP BY source`); err != nil {
		return fmt.Errorf("note feeds: %w", err)
	}
	return nil
}

// silentSources lists the vendors (activity.Vendors) without an event for too long.
func silentSources(ctx context.Context, tx pgx.Tx, now time.Time) ([]activity.Source, error) {
	rows, err := tx.Query(ctx, `SELECT source FROM risk.feed WHERE latest > $1`, now.Add(-silentAfter))
	if err != nil {
		return nil, fmt.Errorf("read feeds: %w", err)
	}
	speaking, err := pgx.CollectRows(rows, pgx.RowTo[activity.Source])
	if err != nil {
		return nil, fmt.Errorf("read feeds: %w", err)
	}
	var missing []activity.Source
	for _, v := range activity.Vendors() {
		if !slices.Contains(speaking, v) {
			missing = append(missing, v)
		}
	}
	return missing, nil
}

// compareProfiles compares two profiles over the same people.
func compareProfiles(active, shadow *risk.Profile, own, other []risk.Standing, at time.Time) *risk.OrganisationShadow {
	o := shadow.Organise(other, at)
	d := &risk.OrganisationShadow{Profile: shadow.Name, Version: shadow.Version, Score: o.Score, Level: o.Level,
		Levels: o.Levels}
	levels := make(map[string]risk.Level, len(other))
	for _, p := range other {
		levels[p.ID] = shadow.Level(p.Score)
	}
	for _, p := range own {
		if level, ok := levels[p.ID]; ok && level != active.Level(p.Score) {
			d.Differ++
		}
	}
	return d
}
