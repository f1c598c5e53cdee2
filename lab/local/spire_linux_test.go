package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// TestMain is also the supervisor of the labs that the tests start, in a process of its own like `lab supervise`.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == endFirstThread {
		endTheFirstThread()
	}
	if len(os.Args) == 3 && os.Args[1] == "supervise" {
		if err := Supervise(context.Background(), os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// sleepers makes a folder of programs that do nothing, and that leave a process behind when they end.
func sleepers(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(
			filepath.Join(dir, name),
			[]byte("#!/bin/sh\necho I am $0\nsetsid sleep 600 &\nexec sleep 600\n"),
			0o755,
		); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// begun makes a lab with a running supervisor. Its SPIRE is two programs that sleep.
func begun(t *testing.T) *control.Lab {
	t.Helper()
	labs := filepath.Join(home(t), "labs")
	if err := os.Mkdir(labs, 0o711); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path, _ := env.Process("PATH")
	lookup := env.Map(
		map[string]string{
			"LAB_HOME":       labs,
			"LAB_SPIRE_DIR":  sleepers(t, spireServer, spireAgent),
			"PATH":           path,
			"XDG_CACHE_HOME": home(t),
		},
	)
	r := &Runtime{Lookup: lookup, Self: []string{self, "supervise"}, Binaries: programsOf(t)}
	f, err := r.folder("asleep")
	if err != nil {
		t.Fatal(err)
	}
	var l *control.Lab
	await(t, "an address that no other lab is about to leave", func() bool {
		l, _, err = r.prepare(t.Context(), f, lab.Spec{Name: "asleep", Identity: identitySPIRE})
		var e *lab.Error
		return !errors.As(err, &e) || e.Code != lab.ExitConflict
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := endStrays(f); err != nil {
			t.Error(err)
		}
	})
	if err := l.Spawn(t.Context(), r.Self); err != nil {
		t.Fatal(err)
	}
	return l
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	patience := time.After(20 * time.Second)
	for !is() {
		select {
		case <-patience:
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// programsOf makes a folder with a program for each row of the topology; they are never started.
func programsOf(t *testing.T) string {
	t.Helper()
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, w := range topo.Workloads {
		if w.Binary == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, w.Binary), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestALabWhoseSPIRENeverAnswersIsTakenDown(t *testing.T) {
	l := begun(t)
	f := folder{l.StateDir()}
	supervisor := remembered(f)["supervisor"]
	if supervisor == 0 || !running(supervisor) {
		t.Fatalf("of the supervisor there is %d", supervisor)
	}
	server := 0
	await(t, "spire-server to be started", func() bool {
		server = remembered(f)[spireServer]
		return server != 0
	})
	var left []int
	await(t, "what spire-server leaves behind", func() bool {
		for _, p := range survivors(f, 0) {
			if p.parent == server {
				left = append(left, p.PID)
			}
		}
		return len(left) > 0
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	removed, err := l.Down(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(left, running) {
		t.Errorf("of what it left behind (%v) something runs on", left)
	}
	for what, pid := range map[string]int{"supervisor": supervisor, spireServer: server} {
		if running(pid) {
			t.Errorf("%s (%d) runs on", what, pid)
		}
		if want := fmt.Sprintf("process %s (%d)", what, pid); !strings.Contains(strings.Join(removed, ", "), want) {
			t.Errorf("removed %v, want %s as well", removed, want)
		}
	}
	if _, err := os.Stat(string(f.StateDir)); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
}

func TestTheLogsOfALocalSPIREAreWhereAllLogsAre(t *testing.T) {
	l := begun(t)
	path := l.LogFile(spireServer)
	await(t, "the log "+path, func() bool {
		text, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.HasPrefix(string(text), "I am ")
	})
	if _, err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
}
