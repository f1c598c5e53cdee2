package risk

import (
	"fmt"
	"slices"
	"time"

	"example.org/security-training/services/activity"
)

// Chain is a course of events that means more than its parts: one event that may open it, and what must follow. While it
// lies in the window, a person's score is at least its floor.
type Chain struct {
	Name  string `json:"name"`
	Words string `json:"words"` // in plain English, a sentence
	Floor Micro  `json:"floor"`
	// Quiet is how long before the opening event the person must not have done any ordinary work; zero: no matter.
	Quiet Duration `json:"quiet"`
	// Steps: an event of the first one's verbs opens the chain; every step then needs its count of events in
	// [opening, opening + within], the opening itself among them. No two steps share a verb.
	Steps []Step `json:"steps"`
}

// Step is a part of a Chain.
type Step struct {
	Verbs  []activity.Verb `json:"verbs"`
	Count  int             `json:"count"` // 0 means 1
	Within Duration        `json:"within"`
	Bytes  int64           `json:"bytes"` // of an event at least
}

func (s Step) takes(e *activity.Event) bool {
	return e.Bytes >= s.Bytes && slices.Contains(s.Verbs, e.Verb)
}

func (c Chain) validate() error {
	seen := map[activity.Verb]bool{}
	if c.Name == "" || c.Words == "" || c.Floor <= 0 || c.Floor > 1e6 || c.Quiet < 0 || len(c.Steps) == 0 {
		return fmt.Errorf("chain %q: want a name, words, steps, and a floor up to 1", c.Name)
	}
	for i, s := range c.Steps {
		if len(s.Verbs) == 0 || s.Count < 0 || s.Within < 0 || s.Bytes < 0 || i > 0 && s.Within == 0 {
			return fmt.Errorf("chain %q: step %d needs verbs and a time", c.Name, i+1)
		}
		for _, v := range s.Verbs {
			if seen[v] || v.Source().Group() == activity.Groups {
				return fmt.Errorf("chain %q: %s is in two steps, or has no source", c.Name, v)
			}
			seen[v] = true
		}
	}
	return nil
}

// ordinary says whether a verb is a working day's: its absence is what makes an account dormant.
func ordinary(v activity.Verb) bool {
	switch v {
	case activity.Commit, activity.ReviewSubmitted, activity.SignIn: // tickets change by themselves
		return true
	}
	return false
}

// find answers the events of the first course of the chain among a window's events, which are in order of time and id;
// nothing if there is none. Risky events make courses and never unmake one. Whether it was quiet before is asked of all events:
// ordinary work does not cease to have been done when it leaves the window.
func (c Chain) find(window, all []*activity.Event) []*activity.Event {
	for i, opening := range window {
		if !c.Steps[0].takes(opening) {
			continue
		}
		// Events of the opening's own moment count, whatever their ids are.
		from := i
		for from > 0 && window[from-1].At.Equal(opening.At) {
			from--
		}
		if found := c.follow(window[from:], opening.At); found != nil && !c.busy(all, opening.At) {
			return found
		}
	}
	return nil
}

func (c Chain) follow(rest []*activity.Event, from time.Time) []*activity.Event {
	var found []*activity.Event
	for _, s := range c.Steps {
		end, left := from.Add(time.Duration(s.Within)), max(1, s.Count)
		for _, e := range rest {
			if left == 0 || e.At.After(end) {
				break
			}
			if s.takes(e) {
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

func (c Chain) busy(all []*activity.Event, opening time.Time) bool {
	if c.Quiet == 0 {
		return false
	}
	begin := opening.Add(-time.Duration(c.Quiet))
	return slices.ContainsFunc(all, func(e *activity.Event) bool {
		return ordinary(e.Verb) && e.At.Before(opening) && !e.At.Before(begin)
	})
}

// inOrder is events by time and id.
func inOrder(events []*activity.Event) []*activity.Event {
	slices.SortFunc(events, byTime)
	return events
}

// PatternWords says in plain English what a pattern of the profile means, "" for a name that it does not know.
func (p *Profile) PatternWords(name string) string {
	for _, c := range p.Patterns.Chains {
		if c.Name == name {
			return c.Words
		}
	}
	return map[string]string{
		"compromised": "Many access events and alerts but no commits look like an account that somebody else uses.",
		"insider":     "Off-hours access and a large export without an approved ticket came together.",
		"burnout":     "Forced pushes, overdue tickets and weekend work came together. It is also a reason to talk about workload.",
	}[name]
}
