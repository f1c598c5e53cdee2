package lab

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"example.org/security-training/lab/labtest"
	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

func TestAFaultInThePolicyIsToldWithItsLine(t *testing.T) {
	text := string(manifests.Topology())
	line := func(of string) int {
		before, _, _ := strings.Cut(text, of)
		return strings.Count(before, "\n") + 1
	}
	stage := labtest.NewPolicy(t, text)
	path := stage.Topology()
	labtest.Write(t, stage.Shipped(), text)
	if topo, err := RunningPolicy(stage); err != nil || topo == nil {
		t.Fatalf("without a fault: %v", err)
	}
	for name, x := range map[string]struct{ from, to, of, says string }{
		"a caller that there is not": {
			"POST /v1/generate: [lms]", "POST /v1/generate: [lsm]", "POST /v1/generate:", `caller "lsm"`,
		},
		"no YAML":        {"    POST /v1/generate: [lms]", "    POST /v1/generate: [lms", "POST /v1/generate:", "yaml"},
		"an unknown key": {"  binary: llmgateway", "  binary: llmgateway\n  public: true", "  port: 8520", `"public"`},
		"another shape":  {"port: 8520", "port: 8521", "- name: llm-gateway", "workload llm-gateway changes a port"},
	} {
		edited := strings.Replace(text, x.from, x.to, 1)
		if edited == text {
			t.Fatalf("%s: the edit changes nothing", name)
		}
		labtest.Write(t, path, edited)
		_, err := RunningPolicy(stage)
		var e *Error
		if !errors.As(err, &e) || e.Code != ExitPartly {
			t.Errorf("%s: %v", name, err)
			continue
		}
		said := e.Error()
		if name == "no YAML" { // YAML's parser reports it one line early or late
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
