package scenario

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"example.org/security-training/services/risk"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/world"
)

// Players assigns a person to each member of the cast for this run: an employee where the file says so, else a new
// person, whom the caller adds to the roster. run is the name of the run, so that each run has new people.
func (s *Scenario) Players(run string, company []risk.Person) (map[string]risk.Person, error) {
	players := map[string]risk.Person{}
	taken := map[string]bool{}
	var faults []error
	for _, who := range slices.Sorted(maps.Keys(s.Cast)) {
		m := s.Cast[who]
		if m.From == "" {
			players[who] = person(who, s.Name, run, m)
			continue
		}
		var fit []risk.Person
		for _, p := range company {
			if p.Role == m.Role && p.Left == "" && !taken[p.ID] {
				fit = append(fit, p)
			}
		}
		if len(fit) == 0 {
			faults = append(faults, fmt.Errorf("cast %s: no employee is a free %s", who, m.Role))
			continue
		}
		slices.SortFunc(fit, func(a, b risk.Person) int { return cmp.Compare(a.ID, b.ID) })
		players[who] = fit[s.Seed%uint64(len(fit))]
		taken[players[who].ID] = true
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("cast scenario %s: %w", s.Name, err)
	}
	return players, nil
}

// Fresh are the players who are not in the roster, by id. They must be added to it before the play.
func (s *Scenario) Fresh(players map[string]risk.Person) []risk.Person {
	var list []risk.Person
	for _, who := range slices.Sorted(maps.Keys(players)) {
		if s.Cast[who].From == "" {
			list = append(list, players[who])
		}
	}
	return list
}

func person(who, name, run string, m Member) risk.Person {
	sum := sha256.Sum256([]byte(name + "/" + run + "/" + who))
	suffix := hex.EncodeToString(sum[:3])
	id := who + "." + suffix
	dashed := who + "-" + suffix
	email := id + "@example.org"
	zone := m.Zone
	if zone == "" {
		zone = "Europe/Berlin"
	}
	return risk.Person{
		ID:     id,
		Name:   strings.ToUpper(who[:1]) + who[1:] + " (" + name + ")",
		Email:  email,
		Role:   m.Role,
		Team:   "exercise",
		Joined: "2025-01-01",
		Zone:   zone,
		Run:    run,
		Accounts: []string{
			"github:" + dashed,
			"email:" + email,
			"jira:" + hex.EncodeToString(sum[:12]),
			"okta:" + email,
			"aws:" + dashed,
		},
	}
}

// Step is one time of a scenario: acts, and then expectations, by their index in Expect.
type Step struct {
	At     time.Time
	Offset Offset
	Acts   []routine.Act
	Expect []int
}

// Steps are all steps of the scenario in order, shifted so that it begins at start, the lab's now.
func (s *Scenario) Steps(run string, start time.Time, players map[string]risk.Person) []Step {
	steps := map[Offset]*Step{}
	step := func(o Offset) *Step {
		if steps[o] == nil {
			steps[o] = &Step{At: start.Add(time.Duration(o - s.first())), Offset: o}
		}
		return steps[o]
	}
	for i, m := range s.Timeline {
		t := step(m.At)
		at := t.At
		if zone, err := time.LoadLocation(players[m.Who].Zone); err == nil {
			at = at.In(zone)
		}
		t.Acts = append(t.Acts, m.acts(s.Name+"/"+run, i, at, players[m.Who].ID)...)
	}
	for i, e := range s.Expect {
		t := step(e.At)
		t.Expect = append(t.Expect, i)
	}
	list := make([]Step, 0, len(steps))
	for _, t := range steps {
		list = append(list, *t)
	}
	slices.SortFunc(list, func(a, b Step) int { return cmp.Compare(a.Offset, b.Offset) })
	return list
}

func (s *Scenario) first() Offset {
	first := s.last()
	for _, m := range s.Timeline {
		first = min(first, m.At)
	}
	for _, e := range s.Expect {
		first = min(first, e.At)
	}
	return first
}

// Play is the whole timeline as one play for the simulators. Without a timeline, Acts is empty.
func (s *Scenario) Play(run string, start time.Time, players map[string]risk.Person) world.Play {
	p := world.Play{ID: run, Kind: world.Timeline, Cast: slices.Collect(maps.Values(players))}
	slices.SortFunc(p.Cast, func(a, b risk.Person) int { return cmp.Compare(a.ID, b.ID) })
	for _, step := range s.Steps(run, start, players) {
		p.Acts = append(p.Acts, step.Acts...)
	}
	return p
}
