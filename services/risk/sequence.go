package risk

import (
	"fmt"
	"slices"
	"time"

	"example.org/security-training/services/activity"
)

// Sequence is a series of events that means more than its parts: one event that opens it, and events that must follow.
// While it lies in the window, a person's score is at least its floor.
type Sequence struct {
	Name  string `json:"name"`
	Words string `json:"words"` // one sentence in plain English
	Floor Micro  `json:"floor"`
	// Quiet is how long before the opening event the person must not have done any routine work; zero for no such
	// condition.
	Quiet Duration `json:"quiet"`
	// Steps: an event of the first step's verbs opens the sequence. Every step then needs its count of events in
	// [opening, opening + within], the opening event included. No two steps share a verb.
	Steps []Step `json:"steps"`
}

// Step is one part of a Sequence.
type Step struct {
	Verbs  []activity.Verb `json:"verbs"`
	Count  int             `json:"count"` // 0 means 1
	Within Duration        `json:"within"`
	Bytes  int64           `json:"bytes"` // an event must have at least this many
}

func (s Step) matches(e *activity.Event) bool {
	return e.Bytes >= s.Bytes && slices.Contains(s.Verbs, e.Verb)
}

func (q Sequence) validate() error {
	seen := map[activity.Verb]bool{}
	if q.Name == "" || q.Words == "" || q.Floor <= 0 || q.Floor > 1e6 || q.Quiet < 0 || len(q.Steps) == 0 {
		return fmt.Errorf("chains: %q: want a name, words, steps, and a floor up to 1", q.Name)
	}
	for i, s := range q.Steps {
		if len(s.Verbs) == 0 || s.Count < 0 || s.Within < 0 || s.Bytes < 0 || i > 0 && s.Within == 0 {
			return fmt.Errorf("chains: %q: step %d needs verbs and a time", q.Name, i+1)
		}
		for _, v := range s.Verbs {
			if seen[v] || v.Source().Group() == activity.Groups {
				return fmt.Errorf("chains: %q: %s is in two steps, or has no source", q.Name, v)
			}
			seen[v] = true
		}
	}
	return nil
}

// isRoutineWork says whether a verb is part of a normal working day. An account without it is dormant. Ticket updates
// are not, since tickets change by themselves.
func isRoutineWork(v activity.Verb) bool {
	switch v {
	case activity.Commit, activity.ReviewSubmitted, activity.SignIn:
		return true
	}
	return false
}

// find returns the events of the first occurrence of the sequence in a window, whose events are in order of time and
// id; nil if there is none. Risky events can complete a sequence and never break one. Whether the time before was quiet
// is decided by all events: routine work still happened after it has left the window.
func (q Sequence) find(window, all []*activity.Event) []*activity.Event {
	for i, opening := range window {
		if !q.Steps[0].matches(opening) {
			continue
		}
		// Events at the same time as the opening one count, regardless of their ids.
		from := i
		for from > 0 && window[from-1].At.Equal(opening.At) {
			from--
		}
		if found := q.match(window[from:], opening.At); found != nil && !q.precededByWork(all, opening.At) {
			return found
		}
	}
	return nil
}

// match returns the events that fulfil all steps, nil if one step is not fulfilled.
func (q Sequence) match(rest []*activity.Event, from time.Time) []*activity.Event {
	var found []*activity.Event
	for _, s := range q.Steps {
		end, left := from.Add(time.Duration(s.Within)), max(1, s.Count)
		for _, e := range rest {
			if left == 0 || e.At.After(end) {
				break
			}
			if s.matches(e) {
				found = append(found, e)
				left--
			}
		}
		if left > 0 {
			return nil
		}
	}
	return found
}

// precededByWork says whether there was routine work in the quiet time before the opening event.
func (q Sequence) precededByWork(all []*activity.Event, opening time.Time) bool {
	if q.Quiet == 0 {
		return false
	}
	begin := opening.Add(-time.Duration(q.Quiet))
	return slices.ContainsFunc(all, func(e *activity.Event) bool {
		return isRoutineWork(e.Verb) && e.At.Before(opening) && !e.At.Before(begin)
	})
}
