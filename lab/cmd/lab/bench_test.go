package main

import (
	"os"
	"path/filepath"
	"testing"

	"example.org/security-training/lab"
	"example.org/security-training/services/env/needtest"
)

func TestBenchRefusesWhatItDoesNotKnowAndWritesNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, args := range [][]string{
		{"luck"}, {"handshake", "luck"}, {"handshake", "--rounds", "0"}, {"handshake", "-o", "yaml"},
	} {
		if got := run(t.Context(), append([]string{"bench", "--quiet"}, args...)); got != lab.ExitUsage {
			t.Errorf("bench %v: exit code %d, want %d", args, got, lab.ExitUsage)
		}
	}
	if _, err := os.Stat("bench.json"); err == nil {
		t.Error("bench.json was written")
	}
}

func TestBenchWritesItsReportWhereItIsTold(t *testing.T) {
	needtest.Unhurried(t, "a benchmark is measured")
	to := filepath.Join(t.TempDir(), "report.json")
	if got := run(t.Context(), []string{"bench", "--quiet", "synth", "--rounds", "1", "--to", to}); got != 0 {
		t.Fatalf("exit code %d, want 0", got)
	}
	if fi, err := os.Stat(to); err != nil || fi.Size() == 0 {
		t.Errorf("the report: %v, %v", fi, err)
	}
}
