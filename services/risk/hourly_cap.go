package risk

import (
	"slices"
	"time"

	"example.org/security-training/services/activity"
)

// HourlyCap is how many events of one person, source and hour count.
const HourlyCap = 200

// sourceHour is one hour (UTC) of a source.
type sourceHour struct {
	source activity.Source
	hour   int64
}

func sourceHourOf(e *activity.Event) sourceHour {
	return sourceHour{e.Source, e.At.Unix() / int64(time.Hour/time.Second)}
}

// Capped is the events without those over the hourly cap: of each source's events in one hour (UTC), the first
// HourlyCap by time and id. The result does not depend on the order of events; it is events itself when no hour is over
// the cap.
func Capped(events []activity.Event) []activity.Event {
	if len(events) <= HourlyCap {
		return events
	}
	counts := map[sourceHour]int{}
	flood := false
	for _, e := range events {
		hour := sourceHourOf(&e)
		counts[hour]++
		flood = flood || counts[hour] > HourlyCap
	}
	if !flood {
		return events
	}
	sorted := slices.Clone(events)
	slices.SortFunc(sorted, byTimeValue)
	clear(counts)
	return slices.DeleteFunc(sorted, func(e activity.Event) bool {
		hour := sourceHourOf(&e)
		counts[hour]++
		return counts[hour] > HourlyCap
	})
}
