package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.org/security-training/services/topology"
)

// The key is in the gateway's own file and in the gateway's memory, and nowhere else: not in an environment, a command
// line, a log, an audit file, a spool, a table or an answer.
func TestTheKeyIsFoundInOneProcessAlone(t *testing.T) {
	gateway := named(t, topology.KindGateway, "")
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	holders := 0
	for _, w := range st.Workloads {
		pid, err := processOf(w.PID, w.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"environ", "cmdline"} {
			b, err := procFile(pid, file)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, []byte(canary)) {
				t.Errorf("the key is in %s of %s", file, w.Name)
			}
		}
		files := []string{string(l.StateDir().Of(w.Name)), string(l.StateDir().Keys(w.Name))}
		if l.inCluster() {
			// This is the container's own file system. The separator at the end makes the walk follow the link.
			files = []string{filepath.Join("/proc", strconv.Itoa(pid), "root") + string(filepath.Separator)}
		}
		if slices.ContainsFunc(files, func(dir string) bool { return readable(t, dir) }) {
			holders++
			if w.Name != gateway {
				t.Errorf("%s has a file with the key", w.Name)
			}
		}
		if w.Kind == topology.KindModel {
			continue // it simulates the vendor, which receives the key with every call
		}
		if held := memoryHolds(t, pid); held != (w.Name == gateway) {
			t.Errorf("the key in the memory of %s: %v", w.Name, held)
		}
	}
	if holders != 1 {
		t.Errorf("%d workloads have a file with the key, want one: this proves nothing", holders)
	}
	for _, p := range st.Processes {
		pid, err := processOf(p.PID, p.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"environ", "cmdline"} {
			b, err := procFile(pid, file)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, []byte(canary)) {
				t.Errorf("the key is in %s of %s", file, p.Name)
			}
		}
		if memoryHolds(t, pid) {
			t.Errorf("the key is in the memory of %s", p.Name)
		}
	}
	// Search every file below the lab's folder, including the database's files, except the one that holds the key.
	own := l.StateDir().Keys(gateway).Path("gemini.key")
	looked := 0
	err = filepath.WalkDir(string(l.StateDir()), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone again: a temporary file of the database
		}
		if err != nil || !d.Type().IsRegular() || path == own ||
			strings.HasPrefix(path, filepath.Join(string(l.StateDir()), "bin")) {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("the key is in %s", path)
		}
		looked++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if looked < 2*len(st.Workloads) {
		t.Errorf("%d files below the lab's folder, fewer than logs and audits: this proves nothing", looked)
	}
}

// readable says whether a file below dir holds the key.
func readable(t *testing.T, dir string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && slices.Contains([]string{"proc", "sys", "dev"}, strings.TrimPrefix(path, dir)) {
			return fs.SkipDir
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, []byte(canary))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
