package routine

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

func TestCommandPrintsWhatTheScorerReads(t *testing.T) {
	var roster, training bytes.Buffer
	if err := Print([]string{"roster", "-people", "60"}, &roster, io.Discard); err != nil {
		t.Fatal(err)
	}
	var people []risk.Person
	if err := json.Unmarshal(roster.Bytes(), &people); err != nil || len(people) != 60 {
		t.Fatalf("%d people, %v", len(people), err)
	}
	if err := Print([]string{"training"}, &training, io.Discard); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(training.String()) {
		var e activity.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Event == nil || e.Event.Source != activity.Training ||
			e.Event.Validate() != nil {
			t.Fatalf("line %s: %v", line, err)
		}
	}
	var gaps bytes.Buffer
	if err := Print([]string{"gaps"}, &gaps, io.Discard); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for line := range strings.Lines(gaps.String()) {
		var l Loss
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Source == "" || !l.To.After(l.From) {
			t.Fatalf("line %s: %v", line, err)
		}
		lost += l.Acts
	}
	if lost == 0 {
		t.Errorf("nothing is lost: %s", gaps.String())
	}
	for _, bad := range [][]string{nil, {"poem"}, {"acts", "-people", "0"}, {"acts", "-mix", "wild"}, {"acts", "-color"},
		{"acts", "more"}} {
		if err := Print(bad, io.Discard, io.Discard); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
