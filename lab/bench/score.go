package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
)

// randomSeed is the seed of the companies, so that they are the same on every machine.
const randomSeed = 42

// batchLines is the largest number of events that a collector submits, and the scorer scores, at once.
const batchLines = 1000

// scored is a company whose people are scored event by event, as the risk scorer does between reading and writing.
type scored struct {
	profile *risk.Profile
	roles   map[string]risk.Role
	books   map[string]*risk.PersonState
	whole   map[string][]activity.Event // all events in order, to recompute a person's state from
	next    [][]activity.Event          // one part for each round
	lines   [][]byte                    // the JSON of the part that was scored last
	part    []activity.Event
	decoded []activity.Event
	at      time.Time // the time of the newest event
}

// score compares adding events to people's states and computing their scores after each batch with decoding the JSON of
// the same events. Half of a day is history; the rest is divided into as many parts as there are rounds.
func score(_ context.Context, s *stage) (*contest, error) {
	profile, err := risk.ProfileByName(risk.Default)
	if err != nil {
		return nil, err
	}
	c := &scored{
		profile: profile,
		roles:   map[string]risk.Role{},
		books:   map[string]*risk.PersonState{},
		whole:   map[string][]activity.Event{},
	}
	staff := people.Company(randomSeed, s.size.people, people.Published)
	accounts := map[string][]string{}
	for _, p := range staff {
		c.roles[p.ID] = p.Role
		accounts[p.ID] = p.Accounts[:min(2, len(p.Accounts))]
	}
	var events []activity.Event
	for _, a := range routine.Month(staff, 1) {
		e := a.Event()
		e.Accounts = accounts[a.Person]
		events = append(events, e)
	}
	parts := s.rounds + 1
	each := len(events) / 2 / parts
	if each == 0 {
		return nil, fmt.Errorf("%d events are too few for %d rounds", len(events), s.rounds)
	}
	history := events[:len(events)-parts*each]
	for _, e := range history {
		c.whole[e.Person] = append(c.whole[e.Person], e)
	}
	c.at = history[len(history)-1].At
	for _, p := range staff {
		c.books[p.ID] = risk.PersonStateOf([]*risk.Profile{profile}, c.whole[p.ID], c.at)
	}
	for part := range parts {
		c.next = append(c.next, events[len(history)+part*each:][:each])
	}
	turn := 0
	// The side that goes first in a round opens its part.
	open := func() error {
		if turn++; turn%2 == 0 {
			return nil
		}
		c.part, c.next, c.lines = c.next[0], c.next[1:], nil
		for _, e := range c.part {
			e.Person = "" // a collector does not know it
			b, err := json.Marshal(e)
			if err != nil {
				return err
			}
			c.lines = append(c.lines, b)
		}
		for _, e := range c.part {
			c.whole[e.Person] = append(c.whole[e.Person], e)
		}
		return nil
	}
	return &contest{
		ours: side{each, func(context.Context) (int, float64, error) {
			if err := open(); err != nil {
				return 0, 0, err
			}
			return perCore(c.score)
		}},
		peer: &side{each, func(context.Context) (int, float64, error) {
			if err := open(); err != nil {
				return 0, 0, err
			}
			c.decoded = make([]activity.Event, len(c.lines))
			return perCore(c.decode)
		}},
		check: func(context.Context) (string, error) { return c.missing(), nil },
	}, nil
}

// score scores the current part, batch by batch.
func (c *scored) score() (int, error) {
	n := 0
	for from := 0; from < len(c.part); from += batchLines {
		batch := c.part[from:min(from+batchLines, len(c.part))]
		c.at = batch[len(batch)-1].At
		touched := make(map[string]bool, len(batch)) // true: the person's state must be recomputed
		for _, e := range batch {
			touched[e.Person] = touched[e.Person] || !c.books[e.Person].Add(e, c.at)
		}
		for person, stale := range touched {
			if !stale {
				if _, ok := c.books[person].Scores(c.roles[person], c.at); ok {
					continue
				}
			}
			c.books[person] = risk.PersonStateOf([]*risk.Profile{c.profile}, c.until(person), c.at)
			if _, ok := c.books[person].Scores(c.roles[person], c.at); !ok {
				return n, fmt.Errorf("score %s: the events reach beyond %s", person, c.at)
			}
		}
		n += len(batch)
	}
	return n, nil
}

// until returns the person's events so far.
func (c *scored) until(person string) []activity.Event {
	all := c.whole[person]
	later := slices.IndexFunc(all, func(e activity.Event) bool { return e.At.After(c.at) })
	if later < 0 {
		return all
	}
	return all[:later]
}

// decode decodes the JSON of the current part.
func (c *scored) decode() (int, error) {
	for i, line := range c.lines {
		if err := json.Unmarshal(line, &c.decoded[i]); err != nil {
			return i, err
		}
	}
	return len(c.lines), nil
}

// missing compares the decoded events with the scored ones, and the scores of some people whom the part made riskier
// with scores that are computed from all of their events.
func (c *scored) missing() string {
	for i, e := range c.part {
		if got := c.decoded[i]; got.ID != e.ID || got.Verb != e.Verb || !got.At.Equal(e.At) {
			return fmt.Sprintf("event %s was decoded as %s", e.ID, got.ID)
		}
	}
	at := c.part[len(c.part)-1].At
	if !c.at.Equal(at) {
		return fmt.Sprintf("events were scored up to %s, want %s", c.at, at)
	}
	looked := 0
	for _, e := range c.part {
		if c.profile.Severities[e.Verb] == 0 || looked == 20 {
			continue
		}
		looked++
		want := c.profile.Score(c.roles[e.Person], risk.Capped(c.whole[e.Person]), at)
		if got, ok := c.books[e.Person].Scores(c.roles[e.Person], at); !ok || got[0] != want {
			return fmt.Sprintf("%s is scored %v, want %v", e.Person, got, want)
		}
	}
	return ""
}
