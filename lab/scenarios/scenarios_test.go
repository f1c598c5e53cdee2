package scenarios_test

import (
	"os"
	"testing"
	"time"

	"example.org/security-training/lab/scenarios"
	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/scenario"
	"example.org/security-training/synth/world"
)

type memory map[string][]byte

func (m memory) Get(k string) []byte    { return m[k] }
func (m memory) Put(k string, v []byte) { m[k] = v }
func (m memory) Delete(k string)        { delete(m, k) }

// observe plays a scenario without a lab, with the vendors' payloads, the sources and a profile. The topology, and the
// reasons that the file names, answer its calls.
func observe(t *testing.T, s *scenario.Scenario, profile string, start time.Time) []scenario.Observed {
	t.Helper()
	players, err := s.Players("run-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	roster := s.Fresh(players)
	owner := map[string]string{}
	for _, p := range roster {
		if err := p.Validate(); err != nil {
			t.Error(err)
		}
		for _, a := range p.Accounts {
			owner[a] = p.ID
		}
	}
	text, err := os.ReadFile("../../manifests/chart/topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	topo, err := topology.FromYAML(text)
	if err != nil {
		t.Fatal(err)
	}
	observed := make([]scenario.Observed, len(s.Expect))
	var acts []routine.Act
	for _, step := range s.Steps("run-1", start, players) {
		acts = append(acts, step.Acts...)
		traces, err := world.Traces(roster, acts)
		if err != nil {
			t.Fatal(err)
		}
		events := map[string][]activity.Event{}
		for _, row := range source.Table {
			m := memory{}
			for _, r := range traces[string(row.Source)] {
				list, err := row.Events(r, m)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range list {
					events[owner[e.Accounts[0]]] = append(events[owner[e.Accounts[0]]], e)
				}
			}
		}
		for _, i := range step.Expect {
			e := s.Expect[i]
			if e.Call != "" {
				caller, callee := e.Parties()
				if w, ok := topo.Workload(callee); !ok || w.Serves[e.Route] == nil {
					t.Errorf("%s: line %d: %s does not serve %s", s.Name, e.Line, callee, e.Route)
				}
				if _, ok := topo.Workload(caller); !ok {
					t.Errorf("%s: line %d: there is no caller %s", s.Name, e.Line, caller)
				}
				observed[i] = scenario.Observed{Outcome: topo.Decide(caller, callee, e.Route), Reason: e.Reason}
				if e.As != "" {
					observed[i].Outcome = topology.Refused
				}
				continue
			}
			p := players[e.Who]
			a := risk.MustProfile(profile).Assess(p.ID, p.Role, events[p.ID], step.At)
			observed[i].Level = a.Level
			for _, r := range a.Reasons {
				observed[i].Because = append(observed[i].Because, r.Verb)
			}
			t.Logf("%s: %s at %v: %v %s %s", s.Name, e.Who, e.At, a.Score, a.Level, a.Pattern)
		}
	}
	return observed
}

// The expectations of each scenario come true at any hour and on any weekday at which the lab begins.
func TestExpectationsOfEachScenarioComeTrue(t *testing.T) {
	names := scenarios.Names()
	if len(names) < 3 {
		t.Fatalf("%d scenarios", len(names))
	}
	for _, name := range names {
		s, err := scenarios.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, start := range []time.Time{risk.Epoch, risk.Epoch.Add(13 * time.Hour), risk.Epoch.AddDate(0, 0, 2)} {
			for _, m := range scenario.Check(s.Expect, observe(t, s, s.Profile, start)) {
				t.Errorf("%s, begun at %v: %v", name, start, m)
			}
		}
	}
}

func TestEachRunHasFreshPeopleAndItsOwnActs(t *testing.T) {
	s, err := scenarios.Load("leaked-secret")
	if err != nil {
		t.Fatal(err)
	}
	plays := map[string]world.Play{}
	for _, run := range []string{"a", "b"} {
		players, err := s.Players(run, nil)
		if err != nil {
			t.Fatal(err)
		}
		plays[run] = s.Play(run, risk.Epoch, players)
		if err := plays[run].Validate(); err != nil {
			t.Errorf("the simulators would refuse it: %v", err)
		}
		if first := plays[run].Acts[0]; !first.At.Equal(risk.Epoch) {
			t.Errorf("it begins at %v", first.At)
		}
	}
	seen := map[string]bool{}
	for run, p := range plays {
		for _, c := range p.Cast {
			if seen[c.ID] {
				t.Errorf("%s plays in two runs", c.ID)
			}
			seen[c.ID] = true
		}
		for _, a := range p.Acts {
			if seen[a.ID] {
				t.Errorf("act %s of run %s is not its own", a.ID, run)
			}
			seen[a.ID] = true
		}
	}
}
