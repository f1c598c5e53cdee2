package routine_test

import (
	"math"
	"slices"
	"testing"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/world"
)

// joins is what a collector remembers between records.
type joins map[string][]byte

func (j joins) Get(k string) []byte    { return j[k] }
func (j joins) Put(k string, v []byte) { j[k] = v }
func (j joins) Delete(k string)        { delete(j, k) }

// TestScoresOfVendorsRecordsAreThoseOfTheActs goes the long way round: acts to vendors' payloads, payloads to events,
// the person found by account; and demands the scores that the acts have by themselves.
func TestScoresOfVendorsRecordsAreThoseOfTheActs(t *testing.T) {
	needtest.Unhurried(t, "all records of 50 people and 30 days are written and read")
	staff := people.Company(42, 50, people.Published)
	roster := people.Roster(staff)
	acts := routine.Recorded(42, routine.Month(staff, 30))
	direct, reported := map[string][]activity.Event{}, map[string][]activity.Event{}
	for _, a := range acts {
		direct[a.Person] = append(direct[a.Person], a.Event())
	}
	for _, e := range routine.TrainingEvents(acts) {
		reported[e.Person] = append(reported[e.Person], e)
	}
	owner := map[string]string{}
	for _, p := range roster {
		for _, a := range p.Accounts {
			owner[a] = p.ID
		}
	}
	traces, err := world.Traces(roster, slices.DeleteFunc(slices.Clone(acts),
		func(a routine.Act) bool { return a.Source == activity.Training }))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range source.Table {
		j := joins{}
		for _, r := range traces[string(row.Source)] {
			r.Body = source.Scrub(r.Body)
			events, err := row.Events(r, j)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				for _, a := range e.Accounts {
					if who := owner[a]; who != "" {
						reported[who] = append(reported[who], e)
						break
					}
				}
			}
		}
	}
	p := risk.MustProfile(risk.Default)
	for _, person := range staff {
		want, got := p.Assess(person.ID, person.Role, direct[person.ID], risk.Epoch), p.Assess(person.ID, person.Role,
			reported[person.ID], risk.Epoch)
		if math.Abs(want.Score.Float()-got.Score.Float()) > .002 || want.Pattern != got.Pattern {
			t.Errorf("%s (%s): %v %q by what vendors say, %v %q by what was done", person.ID, person.Story, got.Score,
				got.Pattern, want.Score, want.Pattern)
		}
	}
}
