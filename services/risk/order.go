package risk

import (
	"cmp"
	"slices"

	"example.org/security-training/services/activity"
)

// compareByTime is the order of events, by time and id. The hourly cap depends on it, and so do the scores of an
// Accumulator and a PersonState.
func compareByTime(a, b *activity.Event) int {
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
}

// byTimeValue is compareByTime for values.
func byTimeValue(a, b activity.Event) int { return compareByTime(&a, &b) }

// sortByTime sorts events by time and id, in place.
func sortByTime(events []*activity.Event) []*activity.Event {
	slices.SortFunc(events, compareByTime)
	return events
}
