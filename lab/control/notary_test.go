package control

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/topology"
)

func TestNothingButAFileInItsOwnPlaceIsReadAsAChain(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(path string) error{
		"a link":   func(path string) error { return os.Symlink(file, path) },
		"a pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"nothing":  func(string) error { return nil },
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		if f, err := openChain(path); err == nil {
			f.Close()
			t.Errorf("%s is read as a chain", name)
		}
	}
	f, err := openChain(file)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestARewrittenChainIsNotSignedAndTheSupervisorWritesThatDown replaces one workload's chain by another history, and
// another workload's chain by a pipe, while the server runs.
func TestARewrittenChainIsNotSignedAndTheSupervisorWritesThatDown(t *testing.T) {
	s, l := opened(t)
	if err := s.Serve(fakeBackend{func() lab.Status { return lab.Status{} }}, func() {}, make(chan error, 1)); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var names []string
	for _, w := range s.Topo.Workloads {
		if w.Kind != topology.KindOperator {
			names = append(names, w.Name)
		}
	}
	thief, piped := names[0], names[1]
	write := func(name, detail string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "audit")
		log, err := audit.Open(path, name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			log.Write(audit.Entry{Kind: "decision", Detail: fmt.Sprint(detail, i)})
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	put := func(from, name string) {
		t.Helper()
		if err := os.MkdirAll(string(s.Folder.Of(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(from, s.Folder.WorkloadAudit(name)); err != nil {
			t.Fatal(err)
		}
	}
	await := func(what string, cond func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !cond(); <-time.After(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("waited for %s", what)
			}
		}
	}
	pins := func() *audit.Pins {
		t.Helper()
		lines, public, err := l.Checkpoints()
		if err != nil {
			t.Fatal(err)
		}
		p, err := audit.ReadPins(bytes.NewReader(lines), public)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	unsigned := func(name string, kind audit.Kind) bool {
		r, err := l.Audit(context.Background(), supervisorChain)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		entries, _ := audit.Read(r) // the last line may be incomplete
		for _, e := range entries {
			if e.Kind == "unsigned" && e.Reason == string(kind) && strings.Contains(e.Detail, name) {
				return true
			}
		}
		return false
	}
	put(write(thief, "what happened "), thief)
	put(write(piped, "what happened "), piped)
	await("both chains to be signed", func() bool { p := pins(); return p.Last(thief) == 3 && p.Last(piped) == 3 })
	put(write(thief, "what did not happen "), thief)
	if err := os.Remove(s.Folder.WorkloadAudit(piped)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(s.Folder.WorkloadAudit(piped), 0o600); err != nil {
		t.Fatal(err)
	}
	await("both to be written down", func() bool {
		return unsigned(thief, audit.Resealed) && unsigned(piped, audit.MissingChain)
	})
	await("the supervisor's own chain to be signed on", func() bool { return pins().Last(supervisorChain) >= 2 })
	if p := pins(); len(p.Faults()) > 0 || p.Of(thief) != 1 || p.Of(piped) != 1 {
		t.Errorf("%v, %d and %d checkpoints, want one each", p.Faults(), p.Of(thief), p.Of(piped))
	}
}
