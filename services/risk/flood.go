package risk

import (
	"cmp"
	"slices"
	"time"

	"example.org/security-training/services/activity"
)

// FloodLimit is how many events of one person, source and hour count.
const FloodLimit = 200

// span is an hour (UTC) of a source.
type span struct {
	source activity.Source
	hour   int64
}

func spanOf(e *activity.Event) span {
	return span{e.Source, e.At.Unix() / int64(time.Hour/time.Second)}
}

// byTime is the one order of events, by time and id: what counts of a flood, and so what a Ledger and a Book score, depends on it.
func byTime(a, b *activity.Event) int {
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
}

// inTime is byTime for values.
func inTime(a, b activity.Event) int { return byTime(&a, &b) }

// Counted is the events without those of a flood: of each source's events within one hour (UTC) the first FloodLimit by
// time and id stay. It does not depend on their order, and answers events itself when there is no flood.
func Counted(events []activity.Event) []activity.Event {
	if len(events) <= FloodLimit {
		return events
	}
	counts := map[span]int{}
	flood := false
	for _, e := range events {
		s := spanOf(&e)
		counts[s]++
		flood = flood || counts[s] > FloodLimit
	}
	if !flood {
		return events
	}
	sorted := slices.Clone(events)
	slices.SortFunc(sorted, inTime)
	clear(counts)
	return slices.DeleteFunc(sorted, func(e activity.Event) bool {
		s := spanOf(&e)
		counts[s]++
		return counts[s] > FloodLimit
	})
}
