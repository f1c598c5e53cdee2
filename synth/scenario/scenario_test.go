package scenario_test

import (
	"os"
	"regexp"
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
	s, err := scenario.Load(
		"x",
		[]byte(strings.Replace(good, "tomas: {role: sre}", "tomas: {role: sre, from: company}", 1)),
		there,
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Players("r", []risk.Person{{ID: "a", Role: "sre", Left: "2026-01-01"},
		{ID: "b", Role: "data_analyst"}}); err == nil {
		t.Error("a person with another role, or who left, was cast")
	}
	players, err := s.Players("r", []risk.Person{{ID: "b", Role: "data_analyst"}, {ID: "c", Role: "sre"}})
	if err != nil || players["tomas"].ID != "c" || len(s.Fresh(players)) != 1 {
		t.Errorf("%v, %v", players, err)
	}
}

// there is a lab of three workloads and two reasons.
var there = func() scenario.Place {
	topo, err := topology.FromYAML([]byte(`trustDomain: example.org
workloads:
- {name: boss, kind: operator}
- {name: front, kind: dashboard, binary: front, port: 7001, health: 7002, serves: {"POST /x": [boss]}}
- {name: back, kind: scorer, binary: back, port: 7003, health: 7004, serves: {"POST /y": [front], "GET /none": []}}
`))
	if err != nil {
		panic(err)
	}
	return scenario.Place{Topology: topo, Reasons: []string{"not_listed", "unknown_issuer"}}
}()

const good = `title: T
teaches: [policy]
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
	if _, err := scenario.Load("good", []byte(good), there); err != nil {
		t.Fatal(err)
	}
	bad := `title: T
colour: blue
teaches: [policy]
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
- {at: 2h, who: mira, call: front -> back}
- {at: 2h, who: mira, level: HIGH, outcome: Allowed}
`
	_, err := scenario.Load("bad", []byte(bad), there)
	if err == nil {
		t.Fatal("accepted")
	}
	got := err.Error()
	last := 0
	for _, want := range []string{
		"line 1: debrief: missing", "line 2: field colour", "line 4: attack", "line 5: difficulty 9",
		"line 8: cast mira: zone", "line 10: hint 2", "line 12: at \"later\"", "line 13: who \"john\"",
		"line 14: record: no simulator reports event \"levitation\"", "line 15: record: no simulator",
		"line 16: record: a secret is of source git", "line 17: record: want either", "line 17: times 5000",
		"line 18: expect: no line says that a person stays LOW", "line 19: level \"PURPLE\"",
		"line 19: because \"git.commit\"", "line 20: call \"lms\"", "line 20: as \"ghost\"", "line 20: route",
		"line 20: outcome",
		"line 21: want either who or call", "line 22: as, route, outcome",
	} {
		i := strings.Index(got, want)
		if i < 0 {
			t.Errorf("%q is not named in:\n%s", want, got)
		}
		last = max(last, i)
	}
	for _, text := range []string{"", "[]", "a: [", "- x", strings.Repeat("a", 2<<20)} {
		if _, err := scenario.Load("bad", []byte(text), there); err == nil {
			t.Errorf("%.20q was accepted", text)
		}
	}
}

// A name that there is not is a fault of its line, and never proves anything.
func TestEveryNameThatThereIsNotIsAFaultOfItsLine(t *testing.T) {
	const text = `title: T
teaches: [policy, flying, phishin]
attack: [T1552.001, T9999, T1562.001]
difficulty: 1
minutes: 5
cast:
  mira: {role: backend_dev}
  tomas: {role: sre}
brief: b
hints: [{cost: 10, text: h}]
timeline:
- {at: 1h, who: mira, source: git, record: {secret: aws_acess_key}}
- {at: 1h, who: mira, source: iam, record: {event: privilege_escalaton}}
- {at: 1h, who: mira, source: gti, record: {event: commit}}
expect:
- {who: tomas, level: LOW}
- {who: tomas, level: HIGH, because: [iam.privilege_escalaton]}
- {call: frnt -> back, route: POST /y, outcome: Refused}
- {call: front -> bcak, route: POST /y, outcome: Refused}
- {call: front -> back, route: POST /z, outcome: Refused}
- {call: front -> back, as: forgd, route: POST /y, outcome: Refused}
- {call: front -> back, as: forged, route: POST /y, outcome: Refused, reason: unknown_isuer}
- {call: nobody -> back, as: forged, route: POST /y, outcome: Refused}
- {call: front -> back, route: POST /y, outcome: Allowed, reason: not_listed}
# and these are right
- {call: front -> back, route: POST /y, outcome: Allowed}
- {call: front -> back, as: forged, route: GET /none, outcome: Refused, reason: unknown_issuer}
- {call: forged -> back, route: POST /y, outcome: Refused}
- {call: boss -> front, route: POST /x, outcome: Allowed}
debrief: d
`
	_, err := scenario.Load("names", []byte(text), there)
	if err == nil {
		t.Fatal("accepted")
	}
	want := []string{
		`line 2: teaches "flying": there is no such module`,
		`line 2: teaches "phishin": there is no such module; did you mean phishing?`,
		`line 3: attack "T1562.001": it was revoked, and T1685 (Disable or Modify Tools) took its place`,
		`line 3: attack "T9999": ATT&CK has no such technique`,
		`line 7: cast mira: there is no role "backend_dev"; did you mean backend_developer?`,
		`line 12: record: there is no kind of secret "aws_acess_key"; did you mean aws_access_key?`,
		`line 13: record: no simulator reports event "privilege_escalaton" of source "iam"; ` +
			`did you mean privilege_escalation?`,
		`line 14: record: no simulator reports event "commit" of source "gti"`,
		`line 17: because "iam.privilege_escalaton" is not a verb that carries risk; did you mean iam.privilege_escalation?`,
		`line 18: call "frnt -> back": topology lists no workload "frnt"; did you mean front?`,
		`line 19: call "front -> bcak": topology lists no workload "bcak"; did you mean back?`,
		`line 20: route "POST /z": back does not serve it; did you mean POST /y?`,
		`line 21: as "forgd": want one of nobody, stranger, foreign, forged, expired, plaintext, tls12; did you mean forged?`,
		`line 22: reason "unknown_isuer": no refusal has it; did you mean unknown_issuer?`,
		`line 23: call "nobody -> back": as forged shows what "nobody" has, and that is no workload`,
		`line 24: reason "not_listed": what is Allowed has none`,
	}
	got := strings.Split(err.Error(), "\n  ")[1:]
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The table is of one release, whole and in order.
func TestTheTableOfTechniquesIsWhole(t *testing.T) {
	text, err := os.ReadFile("attack.txt")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^(T\d{4}(?:\.\d{3})?) (= )?(\S.*)$`)
	techniques, revoked, last := 0, 0, ""
	for l := range strings.Lines(string(text)) {
		l = strings.TrimSuffix(l, "\n")
		if strings.HasPrefix(l, "#") {
			continue
		}
		m := line.FindStringSubmatch(l)
		switch {
		case m == nil:
			t.Errorf("%q is no line", l)
		case m[2] == "":
			techniques++
			if m[1] <= last || scenario.Technique(m[1]) != m[3] {
				t.Errorf("%s stands out of order, or is not found", m[1])
			}
			if parent, _, sub := strings.Cut(m[1], "."); sub && scenario.Technique(parent) == "" {
				t.Errorf("%s has no parent", m[1])
			}
			last = m[1]
		default:
			revoked++
			if scenario.Technique(m[1]) != "" || scenario.Technique(m[3]) == "" {
				t.Errorf("%s, which was revoked, is one still, or %s is none", m[1], m[3])
			}
		}
	}
	if techniques != 697 || revoked != 17 {
		t.Errorf("%d techniques and %d that were revoked, want the 697 and 17 of release 19.1", techniques, revoked)
	}
}

func TestCheckNamesWhatDidNotComeTrue(t *testing.T) {
	expect := []scenario.Expectation{
		{At: scenario.Offset(90 * time.Minute), Who: "mira", Level: risk.Medium,
			Because: []activity.Verb{activity.SecretCommitted, activity.MalwareDetected}, Line: 7},
		{Call: "a -> b", As: "expired", Route: "POST /x", Outcome: topology.Refused, Reason: "expired", Line: 8},
		{Who: "tomas", Level: risk.Low, Line: 9},
	}
	right := []scenario.Observed{{Level: risk.Medium, Because: []activity.Verb{activity.MalwareDetected,
		activity.SecretCommitted, activity.LargeFile}}, {Outcome: topology.Refused, Reason: "expired"}, {Level: risk.Low}}
	if got := scenario.Check(expect, right); len(got) != 0 {
		t.Errorf("what came true was complained about: %v", got)
	}
	wrong := []scenario.Observed{{Level: risk.Medium, Because: []activity.Verb{activity.MalwareDetected}},
		{Outcome: topology.Refused, Reason: "not_listed"}}
	want := []string{
		"line 7: mira at 1h30m: want MEDIUM because of git.secret_committed, siem.malware_detected, " +
			"got MEDIUM because of siem.malware_detected",
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
