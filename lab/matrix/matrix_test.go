package matrix

import (
	"errors"
	"strings"
	"testing"

	"example.org/security-training/lab"
	"example.org/security-training/lab/labtest"
	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

func TestAMatrixIsNarrowedAndHeldAgainstWhatItIsToldTo(t *testing.T) {
	text := string(manifests.Topology())
	stage := labtest.NewPolicy(t, text)
	labtest.Write(t, stage.Shipped(), text)
	labtest.Write(
		t,
		stage.Topology(),
		strings.Replace(text, "POST /v1/generate: [lms]", "POST /v1/generate: [lms, sim-git]", 1),
	)
	const route topology.Route = "POST /v1/generate"
	for against, want := range map[string][2]topology.Outcome{
		"":             {topology.Refused, topology.Allowed},
		AgainstShipped: {topology.Refused, topology.Allowed},
		AgainstRunning: {topology.Allowed, topology.Allowed},
	} {
		expected, running, err := Options{Against: against}.policies(stage)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]topology.Outcome{
			expected.Decide("sim-git", "llm-gateway", route),
			running.Decide("sim-git", "llm-gateway", route),
		}; got != want {
			t.Errorf("against %q: %v, want %v", against, got, want)
		}
	}
	topo := labtest.Parse(t, []byte(text))
	callers, callees, err := Options{Caller: Forged, Callee: "llm-gateway"}.narrow(topo)
	if err != nil || len(callers) != 1 || callers[0] != Forged || len(callees) != 1 || callees[0].Name != "llm-gateway" {
		t.Errorf("narrowed: %v, %v, %v", callers, callees, err)
	}
	for _, o := range []Options{{Caller: "lsm"}, {Callee: "llmgateway"}, {Callee: "instructor"}} {
		var e *lab.Error
		if _, _, err := o.narrow(topo); !errors.As(err, &e) || e.Code != lab.ExitUsage {
			t.Errorf("%+v: %v, want a usage error", o, err)
		}
	}
	var b strings.Builder
	cells := []Cell{
		{
			Caller:   "sim-git",
			Callee:   "llm-gateway",
			Route:    route,
			Expected: topology.Refused,
			Measured: topology.Allowed,
			Kept:     topology.Allowed,
			Running:  topology.Allowed,
		},
	}
	for name, f := range map[string]func() error{
		"text": func() error { return WriteText(&b, cells) },
		"html": func() error { return WriteHTML(&b, cells) },
	} {
		b.Reset()
		if err := f(); err != nil || !strings.Contains(b.String(), "Refused as it came, Allowed now") {
			t.Errorf("%s has no section for what was edited: %v\n%s", name, err, b.String())
		}
	}
}
