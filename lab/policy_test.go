package lab

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

func TestAFaultInThePolicyIsToldWithItsLine(t *testing.T) {
	text := string(manifests.Topology())
	line := func(of string) int {
		before, _, _ := strings.Cut(text, of)
		return strings.Count(before, "\n") + 1
	}
	c, path := editor(t, text)
	stage := c.stage.(fileStage)
	write(t, stage.Shipped(), text)
	if topo, err := RunningPolicy(stage); err != nil || topo == nil {
		t.Fatalf("without a fault: %v", err)
	}
	for name, x := range map[string]struct{ from, to, of, says string }{
		"a caller that there is not": {"POST /v1/generate: [lms]", "POST /v1/generate: [lsm]", "POST /v1/generate:", `caller "lsm"`},
		"no YAML":                    {"    POST /v1/generate: [lms]", "    POST /v1/generate: [lms", "POST /v1/generate:", "yaml"},
		"an unknown key":             {"  binary: llmgateway", "  binary: llmgateway\n  public: true", "  port: 8520", `"public"`},
		"another shape":              {"port: 8520", "port: 8521", "- name: llm-gateway", "workload llm-gateway changes a port"},
	} {
		edited := strings.Replace(text, x.from, x.to, 1)
		if edited == text {
			t.Fatalf("%s: the edit changes nothing", name)
		}
		write(t, path, edited)
		_, err := RunningPolicy(stage)
		var e *Error
		if !errors.As(err, &e) || e.Code != ExitPartly {
			t.Errorf("%s: %v", name, err)
			continue
		}
		said := e.Error()
		if name == "no YAML" { // which YAML's parser notices at the line after, or at the one before
			if !strings.Contains(said, "line ") {
				t.Errorf("%s: no line in %s", name, said)
			}
		} else if want := line(x.of); !strings.Contains(said, "line "+strconv.Itoa(want)+":") {
			t.Errorf("%s: want line %d in %s", name, want, said)
		}
		for _, want := range []string{path, x.says, "cp " + Quoted(stage.Shipped()) + " " + Quoted(path)} {
			if !strings.Contains(said, want) {
				t.Errorf("%s: %q is not said in %s", name, want, said)
			}
		}
		if topo, err := PolicyInForce(
			stage,
		); err != nil ||
			topo.Decide("lms", "llm-gateway", "POST /v1/generate") != topology.Allowed {
			t.Errorf("%s: without the running policy: %v", name, err)
		}
	}
}

func TestAMatrixIsNarrowedAndHeldAgainstWhatItIsToldTo(t *testing.T) {
	text := string(manifests.Topology())
	c, path := editor(t, text)
	stage := c.stage.(fileStage)
	write(t, stage.Shipped(), text)
	write(t, path, strings.Replace(text, "POST /v1/generate: [lms]", "POST /v1/generate: [lms, sim-git]", 1))
	const route topology.Route = "POST /v1/generate"
	for against, want := range map[string][2]topology.Outcome{
		"": {topology.Refused, topology.Allowed}, AgainstShipped: {topology.Refused, topology.Allowed}, AgainstRunning: {topology.Allowed, topology.Allowed},
	} {
		expected, running, err := MatrixOptions{Against: against}.policies(stage)
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
	topo := lived(t, []byte(text))
	callers, callees, err := MatrixOptions{Caller: Forged, Callee: "llm-gateway"}.narrow(topo)
	if err != nil || len(callers) != 1 || callers[0] != Forged || len(callees) != 1 || callees[0].Name != "llm-gateway" {
		t.Errorf("narrowed: %v, %v, %v", callers, callees, err)
	}
	for _, o := range []MatrixOptions{{Caller: "lsm"}, {Callee: "llmgateway"}, {Callee: "instructor"}} {
		var e *Error
		if _, _, err := o.narrow(topo); !errors.As(err, &e) || e.Code != ExitUsage {
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
	for name, f := range map[string]func() error{"text": func() error { return WriteMatrixText(&b, cells) }, "html": func() error { return WriteMatrixHTML(&b, cells) }} {
		b.Reset()
		if err := f(); err != nil || !strings.Contains(b.String(), "Refused as it came, Allowed now") {
			t.Errorf("%s has no section for what was edited: %v\n%s", name, err, b.String())
		}
	}
}
