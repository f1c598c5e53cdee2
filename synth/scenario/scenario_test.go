package scenario_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/scenario"
)

func TestPlayersFromTheCompanyAreOfTheRole(t *testing.T) {
	s, err := scenario.Load("x", []byte(strings.Replace(good, "tomas: {role: sre}", "tomas: {role: sre, from: company}", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Players("r", []risk.Person{{ID: "a", Role: "sre", Left: "2026-01-01"}, {ID: "b", Role: "data_analyst"}}); err == nil {
		t.Error("somebody of another role, or who left, was cast")
	}
	players, err := s.Players("r", []risk.Person{{ID: "b", Role: "data_analyst"}, {ID: "c", Role: "sre"}})
	if err != nil || players["tomas"].ID != "c" || len(s.Fresh(players)) != 1 {
		t.Errorf("%v, %v", players, err)
	}
}

const good = `title: T
teaches: [x]
difficulty: 1
minutes: 5
cast:
  mira: {role: sre}
  tomas: {role: sre}
brief: b
hints: [{cost: 10, text: h}]
timeline:
- {at: 1h, who: mira, source: git, record: {event: commit}}
expect:
- {who: tomas, level: LOW}
debrief: d
`

func TestEveryFaultIsNamedWithItsLine(t *testing.T) {
	if _, err := scenario.Load("good", []byte(good)); err != nil {
		t.Fatal(err)
	}
	bad := `title: T
colour: blue
teaches: [x]
attack: [1552]
difficulty: 9
minutes: 5
cast:
  mira: {role: sre, zone: Mars/Base}
brief: b
hints: [{cost: 60, text: h}, {cost: 60, text: h}]
timeline:
- {at: later, who: mira, source: git, record: {event: commit}}
- {at: 1h, who: john, source: git, record: {event: commit}}
- {at: 1h, who: mira, source: git, record: {event: levitation}}
- {at: 1h, who: mira, source: training, record: {event: passed}}
- {at: 1h, who: mira, source: siem, record: {secret: x}}
- {at: 1h, who: mira, source: git, record: {}, times: 5000}
expect:
- {at: 2h, who: mira, level: PURPLE, because: [git.commit]}
- {call: lms, route: generate, outcome: Maybe, as: ghost}
- {at: 2h, who: mira, call: a -> b}
- {at: 2h, who: mira, level: HIGH, outcome: Allowed}
`
	_, err := scenario.Load("bad", []byte(bad))
	if err == nil {
		t.Fatal("accepted")
	}
	got := err.Error()
	last := 0
	for _, want := range []string{
		"line 1: debrief: missing", "line 2: field colour", "line 4: attack", "line 5: difficulty 9", "line 8: cast mira: zone", "line 10: hint 2", "line 12: at \"later\"", "line 13: who \"john\"",
		"line 14: record: no simulator reports event \"levitation\"", "line 15: record: no simulator", "line 16: record: a secret is of source git", "line 17: record: want either", "line 17: times 5000",
		"line 18: expect: no line says that somebody stays LOW", "line 19: level \"PURPLE\"", "line 19: because \"git.commit\"", "line 20: call \"lms\"", "line 20: as \"ghost\"", "line 20: route", "line 20: outcome",
		"line 21: want either who or call", "line 22: as, route, outcome",
	} {
		i := strings.Index(got, want)
		if i < 0 {
			t.Errorf("%q is not named in:\n%s", want, got)
		}
		last = max(last, i)
	}
	for _, text := range []string{"", "[]", "a: [", "- x", strings.Repeat("a", 2<<20)} {
		if _, err := scenario.Load("bad", []byte(text)); err == nil {
			t.Errorf("%.20q was accepted", text)
		}
	}
}

func TestCheckNamesWhatDidNotComeTrue(t *testing.T) {
	expect := []scenario.Expectation{
		{At: scenario.Offset(90 * time.Minute), Who: "mira", Level: risk.Medium, Because: []activity.Verb{activity.SecretCommitted, activity.MalwareDetected}, Line: 7},
		{Call: "a -> b", As: "expired", Route: "POST /x", Outcome: topology.Refused, Reason: "expired", Line: 8},
		{Who: "tomas", Level: risk.Low, Line: 9},
	}
	right := []scenario.Observed{{Level: risk.Medium, Because: []activity.Verb{activity.MalwareDetected, activity.SecretCommitted, activity.LargeFile}}, {Outcome: topology.Refused, Reason: "expired"}, {Level: risk.Low}}
	if got := scenario.Check(expect, right); len(got) != 0 {
		t.Errorf("what came true was complained about: %v", got)
	}
	wrong := []scenario.Observed{{Level: risk.Medium, Because: []activity.Verb{activity.MalwareDetected}}, {Outcome: topology.Refused, Reason: "not_listed"}}
	want := []string{
		"line 7: mira at 1h30m: want MEDIUM because of git.secret_committed, siem.malware_detected, got MEDIUM because of siem.malware_detected",
		"line 8: a -> b (expired) POST /x: want Refused, expired, got Refused, not_listed",
		"line 9: tomas at 0s: want LOW, got nothing was observed",
	}
	var got []string
	for _, m := range scenario.Check(expect, wrong) {
		got = append(got, m.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
