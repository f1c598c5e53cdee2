package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"example.org/security-training/lab"
	"example.org/security-training/services/activity"
)

func TestAnIssuerThatARuntimeDoesNotHaveIsRefused(t *testing.T) {
	spec := lab.Spec{Name: "lab", People: 50, Seed: 42, Days: 30, Pace: 10}
	for _, c := range []struct {
		identity, runtime string
		ok                bool
	}{
		{"embedded", "kind", false}, {"embedded", "cluster", false}, {"embedded", "local", true}, {"embedded", "auto", true},
		{"spire", "kind", true}, {"auto", "cluster", true}, {"other", "local", false}, {"auto", "other", false},
	} {
		spec.Identity = c.identity
		if err := checkSpec(spec, c.runtime); (err == nil) != c.ok ||
			err != nil && !(errors.Is(err, errUsage) && strings.Contains(err.Error(), "--")) {
			t.Errorf("--identity %s --runtime %s: %v", c.identity, c.runtime, err)
		}
	}
}

func TestStatusSaysWhatCollectorsGaveUpAndWhy(t *testing.T) {
	st := lab.Status{
		Name: "lab",
		Counts: &lab.Counts{
			Events:  7,
			GivenUp: map[string]map[string]uint64{"git-collector": {activity.TooFarAhead: 3, "other": 1}},
		},
	}
	var out strings.Builder
	if err := writeStatus(&out, st, "text"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"git-collector gave up 3 events: they are dated too far ahead of the lab's clock",
		"git-collector gave up 1 events: other",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status does not say %q:\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := writeStatus(&out, st, "json"); err != nil || !strings.Contains(out.String(), `"too_far_ahead": 3`) {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// A developer who builds for the first time is told that it takes a while, and what is being done.
func TestMakeSaysThatItCompilesAndHowLongThatTakes(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "make", "-n", "build")
	cmd.Dir = "../../.."
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	said, compiled, both := strings.Cut(string(out), "go build ")
	if !both || !strings.Contains(said, "compiling") || !strings.Contains(said, "the first time") ||
		!strings.Contains(compiled, "./lab/cmd/...") {
		t.Errorf("before it compiles it says nothing of it:\n%s", out)
	}
}
