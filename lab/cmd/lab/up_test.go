package main

import (
	"errors"
	"strings"
	"testing"

	"example.org/security-training/lab"
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
		if err := checkSpec(spec, c.runtime); (err == nil) != c.ok || err != nil && !(errors.Is(err, errUsage) && strings.Contains(err.Error(), "--")) {
			t.Errorf("--identity %s --runtime %s: %v", c.identity, c.runtime, err)
		}
	}
}
