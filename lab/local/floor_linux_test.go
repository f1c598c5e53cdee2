package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

func TestTheFloorStartsEveryProgramAndLeavesNothing(t *testing.T) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	bin, want := t.TempDir(), 0
	for _, w := range topo.Workloads {
		if w.Binary == "" {
			continue
		}
		want++
		if err := os.WriteFile(filepath.Join(bin, w.Binary), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	before, err := filepath.Glob(filepath.Join(os.TempDir(), "lab-floor-*"))
	if err != nil {
		t.Fatal(err)
	}
	r := &Runtime{Lookup: env.Process, Binaries: bin}
	programs, took, err := r.Floor(t.Context())
	if err != nil || programs != want || took <= 0 {
		t.Errorf("%d programs in %s, %v; want %d", programs, took, err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := r.Floor(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted one: %v, want %v", err, context.Canceled)
	}
	r.Binaries = t.TempDir()
	if _, _, err := r.Floor(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without programs: %v, want %v", err, os.ErrNotExist)
	}
	after, err := filepath.Glob(filepath.Join(os.TempDir(), "lab-floor-*"))
	if err != nil || len(after) > len(before) {
		t.Errorf("left behind: %v, %v", after, err)
	}
}
