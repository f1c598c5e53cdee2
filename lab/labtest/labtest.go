// Package labtest has helpers for the tests of several packages of lab: files, and a policy with its shipped and its
// running file.
package labtest

import (
	"os"
	"path/filepath"
	"testing"

	"example.org/security-training/services/topology"
)

// Policy is a lab's policy in a folder of the test: a shipped file, and a running file that can be edited.
type Policy struct{ path string }

// NewPolicy writes text as the running policy. There is no shipped policy until a test writes it.
func NewPolicy(t *testing.T, text string) Policy {
	t.Helper()
	p := Policy{filepath.Join(t.TempDir(), "topology.yaml")}
	Write(t, p.path, text)
	return p
}

// Topology is the path of the running policy.
func (p Policy) Topology() string { return p.path }

// Shipped is the path of the shipped policy.
func (p Policy) Shipped() string { return p.path + ".shipped" }

// Parse parses a topology that must be valid.
func Parse(t *testing.T, text []byte) *topology.Topology {
	t.Helper()
	topo, err := topology.FromYAML(text)
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

// Write writes a file, readable to all.
func Write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Read reads a file.
func Read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
