package riskview

import (
	"os"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// badges is a sixth source: the row that its author adds, without the reader of its records.
var badges = activity.Row{
	Source: "badge", Group: activity.Access, Vendor: true,
	Verbs: []activity.VerbRow{{Verb: "badge.lent", Once: "lent a badge", Often: "lent %d badges"}},
}

func TestASixthSourceNeedsARowAndAWeight(t *testing.T) {
	table := activity.Table
	t.Cleanup(func() { activity.Table = table })
	text, err := os.ReadFile("../../risk/profiles/" + risk.Default + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	weighed := strings.Replace(string(text), "\nseverities:\n", "\nseverities:\n  badge.lent: 0.9\n", 1)
	if _, err := risk.ParseProfile([]byte(weighed)); err == nil || !strings.Contains(err.Error(), "badge.lent") {
		t.Errorf("a weight for a verb of no source: %v", err)
	}
	activity.Table = append(append([]activity.Row{}, table...), badges)

	profile, err := risk.ParseProfile([]byte(weighed))
	if err != nil {
		t.Fatal(err)
	}
	var events []activity.Event
	for i := range 3 {
		e := activity.Event{
			ID: "badge:lent/" + string(rune('a'+i)), At: labNow.Add(-time.Duration(i+1) * time.Hour), Person: "mira.keller",
			Source: "badge", Verb: "badge.lent",
		}
		if err := e.Validate(); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	a := profile.Assess("mira.keller", risk.SRE, events, labNow)
	v := Explain(risk.Standing{Person: risk.Person{ID: "mira.keller"}}, a)
	if len(v.Reasons) != 1 || words.Sentence(risk.Words(v.Reasons[0].Verb, v.Reasons[0].Count)) != "Lent 3 badges" {
		t.Fatalf("reasons: %+v", v.Reasons)
	}
	if c := v.Reasons[0].Class; c != GroupClass[activity.Access] {
		t.Errorf("it is drawn as %q", c)
	}
	for _, s := range v.Sources {
		if (s.Part > 0) != (s.Name == words.GroupNames[activity.Access]) {
			t.Errorf("%s holds %d", s.Name, s.Part)
		}
	}
	if vendors := activity.Vendors(); vendors[len(vendors)-1] != "badge" {
		t.Errorf("its silence would not be noticed: %v", vendors)
	}
}
