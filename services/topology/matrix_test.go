package topology_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

var update = flag.Bool("update", false, "rewrite golden files")

func product(t *testing.T) *topology.Topology {
	t.Helper()
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

// cells calls f for every caller on every route of every callee.
func cells(topo *topology.Topology, f func(caller, callee topology.Workload, route topology.Route,
	outcome topology.Outcome)) {
	for _, caller := range topo.Workloads {
		for _, callee := range topo.Workloads {
			for _, route := range callee.Routes() {
				f(caller, callee, route, topo.Decide(caller.Name, callee.Name, route))
			}
		}
	}
}

// TestMatrixGoldenIsReviewed pins who may call whom: what is not in the file is Refused.
func TestMatrixGoldenIsReviewed(t *testing.T) {
	topo := product(t)
	var b strings.Builder
	b.WriteString("# caller callee method path outcome; every other call is Refused. " +
		"Written by `make golden`, read by people.\n")
	cells(topo, func(caller, callee topology.Workload, route topology.Route, outcome topology.Outcome) {
		if outcome != topology.Refused {
			fmt.Fprintf(&b, "%s %s %s %s\n", caller.Name, callee.Name, route, outcome)
		}
	})
	for _, w := range topo.Workloads {
		for _, db := range topo.OfKind(topology.KindDatabase) {
			if topo.Admits(w.Name, db.Name) {
				fmt.Fprintf(&b, "%s %s schemas %s Allowed\n", w.Name, db.Name, strings.Join(w.Database, ","))
			}
		}
	}
	golden := filepath.Join("..", "..", "manifests", "testdata", "matrix.golden")
	if *update {
		if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("the matrix changed; if that is meant, `make golden` and "+
			"have the difference reviewed (-golden +topology):\n%s", diff)
	}
}

// The invariants below say what the matrix is for. They hold for any rows and routes that are added.

func TestOnlyTheDashboardMayHaveTextGenerated(t *testing.T) {
	topo := product(t)
	cells(topo, func(caller, callee topology.Workload, route topology.Route, outcome topology.Outcome) {
		if callee.Kind == topology.KindGateway && outcome != topology.Refused && caller.Kind != topology.KindDashboard {
			t.Errorf("%s -> %s %s is %s", caller.Name, callee.Name, route, outcome)
		}
		if callee.Kind == topology.KindModel && outcome != topology.Refused && caller.Kind != topology.KindGateway {
			t.Errorf("%s -> %s %s is %s: only the gateway speaks to a model", caller.Name, callee.Name, route, outcome)
		}
	})
}

func TestNoCollectorReachesAnother(t *testing.T) {
	cells(product(t), func(caller, callee topology.Workload, route topology.Route, outcome topology.Outcome) {
		if caller.Kind == topology.KindCollector && callee.Kind == topology.KindCollector && outcome != topology.Refused {
			t.Errorf("%s -> %s %s is %s", caller.Name, callee.Name, route, outcome)
		}
	})
}

func TestEachSimulatorFeedsTheOneCollectorOfItsSource(t *testing.T) {
	topo := product(t)
	fed := map[string]string{} // collector → simulator
	cells(topo, func(caller, callee topology.Workload, route topology.Route, outcome topology.Outcome) {
		if caller.Kind != topology.KindSimulator || callee.Kind != topology.KindCollector || outcome == topology.Refused {
			return
		}
		if caller.Source != callee.Source || caller.Source == "" {
			t.Errorf("%s of source %s -> %s of source %s is %s", caller.Name, caller.Source, callee.Name, callee.Source, outcome)
		}
		fed[callee.Name] = caller.Name
	})
	for _, c := range topo.OfKind(topology.KindCollector) {
		if fed[c.Name] == "" {
			t.Errorf("no one feeds %s", c.Name)
		}
	}
	if len(topo.OfKind(topology.KindSimulator)) != len(fed) {
		t.Errorf("%d simulators feed %d collectors", len(topo.OfKind(topology.KindSimulator)), len(fed))
	}
}

func TestOnlyOwnersOfSchemasReachTheDatabaseAndNoSchemaHasTwo(t *testing.T) {
	topo := product(t)
	owner := map[string]string{}
	for _, w := range topo.Workloads {
		for _, db := range topo.OfKind(topology.KindDatabase) {
			if got, want := topo.Admits(w.Name, db.Name), len(w.Database) > 0; got != want {
				t.Errorf("%s reaches %s: %v, want %v", w.Name, db.Name, got, want)
			}
		}
		for _, s := range w.Database {
			if owner[s] != "" {
				t.Errorf("schema %s belongs to %s and to %s", s, owner[s], w.Name)
			}
			owner[s] = w.Name
		}
	}
	for _, kind := range []string{topology.KindGateway, topology.KindCollector, topology.KindSimulator, topology.KindModel,
		topology.KindOperator} {
		for _, w := range topo.OfKind(kind) {
			if len(w.Database) > 0 {
				t.Errorf("%s, a %s, owns schemas", w.Name, kind)
			}
		}
	}
}

func TestOnlyTheInstructorChangesRosterClockAndData(t *testing.T) {
	cells(product(t), func(caller, callee topology.Workload, route topology.Route, outcome topology.Outcome) {
		power := route.Method() == "PUT" || route.Method() == "DELETE" || strings.HasSuffix(route.Path(), "/reset") ||
			strings.HasSuffix(route.Path(), "/plays")
		if power && outcome == topology.Allowed && caller.Kind != topology.KindOperator {
			t.Errorf("%s may %s at %s", caller.Name, route, callee.Name)
		}
	})
}

func TestWhatTheSimulatedWorldKnowsOfTheProduct(t *testing.T) {
	for _, caller := range product(t).OfKind(topology.KindSimulator) {
		cells(product(t), func(from, callee topology.Workload, route topology.Route, outcome topology.Outcome) {
			if from.Name != caller.Name || outcome != topology.Allowed || callee.Kind == topology.KindCollector {
				return
			}
			if callee.Kind != topology.KindScorer || route != "GET /v1/clock" {
				t.Errorf("%s may %s at %s: the world outside delivers to its collector and reads the clock", from.Name, route,
					callee.Name)
			}
		})
	}
}

func TestNobodyCallsItself(t *testing.T) {
	topo := product(t)
	for _, w := range topo.Workloads {
		if topo.Admits(w.Name, w.Name) && w.Kind != topology.KindDatabase {
			t.Errorf("%s admits itself", w.Name)
		}
	}
	if slices.ContainsFunc(topo.OfKind(topology.KindOperator),
		func(w topology.Workload) bool { return len(w.Serves) > 0 }) {
		t.Error("an operator serves routes")
	}
}
