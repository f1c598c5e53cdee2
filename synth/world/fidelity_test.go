package world

import (
	"testing"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/risk"
	"example.org/security-training/synth/routine"
)

// The vendors' records do not change any score: what an act makes in addition to its own verb (a commit, a push, a
// ticket's update) must not touch a pattern, nor may a time lose its offset where that matters.
func TestScoresAreTheSameByWayOfTheVendors(t *testing.T) {
	needtest.Unhurried(t, "all records of 50 people and 30 days are written and read")
	staff, roster := company(42, 50)
	acts := routine.Month(staff, 30)
	owner := map[string]string{}
	for _, p := range roster {
		for _, a := range p.Accounts {
			owner[a] = p.ID
		}
	}
	direct, vendor := map[string][]activity.Event{}, map[string][]activity.Event{}
	for _, a := range acts {
		direct[a.Person] = append(direct[a.Person], a.Event())
		if a.Source == activity.Training {
			vendor[a.Person] = append(vendor[a.Person], a.Event())
		}
	}
	for _, e := range expected(t, roster, vendors(acts)) {
		who := ""
		for _, a := range e.Accounts {
			if who == "" {
				who = owner[a]
			}
		}
		vendor[who] = append(vendor[who], e)
	}
	profile := risk.MustProfile("decay-v1")
	for _, p := range roster {
		want, got := profile.Assess(p.ID, p.Role, direct[p.ID], risk.Epoch), profile.Assess(p.ID, p.Role, vendor[p.ID],
			risk.Epoch)
		if d := want.Score.Float() - got.Score.Float(); d > 1e-5 || d < -1e-5 || want.Pattern != got.Pattern {
			t.Errorf("%s (%s): %v %s by acts, %v %s by vendors", p.ID, p.Role, want.Score, want.Pattern, got.Score, got.Pattern)
		}
	}
}
