package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
)

// write makes a file, and its folders, that belong to the stage's user.
func (s stage) write(path, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		s.t.Fatal(err)
	}
	for at := path; s.who != nil && at != s.home(); at = filepath.Dir(at) {
		if err := os.Chown(at, 65534, 65534); err != nil {
			s.t.Fatal(err)
		}
	}
}

func there(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

// `down` lists what stays in the cache, with sizes and reasons. `down --all` removes it, except for programs that a lab
// runs.
func TestDownSaysWhatStaysAndDownAllRemovesIt(t *testing.T) {
	s := newStage(t)
	cache := filepath.Join(s.home(), ".cache", "security-training")
	template, bundles, foreign := filepath.Join(
		cache,
		"database-abc",
	), filepath.Join(
		cache,
		"bundles",
	), filepath.Join(
		cache,
		"mine.txt",
	)
	running, idle := filepath.Join(cache, "postgresql-17"), filepath.Join(cache, "postgresql-16")
	s.write(filepath.Join(template, "base", "1"), strings.Repeat("x", 3<<20))
	s.write(filepath.Join(bundles, "lab-20260101T000000.000.tar.gz"), "x")
	s.write(filepath.Join(idle, "bin", "postgres"), "x")
	s.write(foreign, "x")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	s.write(filepath.Join(running, "bin", "sleep"), string(program))
	server := exec.CommandContext(t.Context(), filepath.Join(running, "bin", "sleep"), "600")
	server.SysProcAttr = s.who
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Signal(syscall.SIGKILL)
		_ = server.Wait()
	}()
	home := []string{"HOME=" + s.home()}

	code, said := s.run(nil, home, "down", "--name", "none")
	for _, want := range []string{
		template + ": the database template, from which the next lab starts",
		"3 MiB; `lab down --all --name none` removes it", bundles,
	} {
		if code != 0 || !strings.Contains(said, want) {
			t.Errorf("exit code %d, want 0 and %q in\n%s", code, want, said)
		}
	}
	if strings.Contains(said, foreign) || !there(t, template) {
		t.Errorf("of what is not the lab's: %s", said)
	}
	code, said = s.run(nil, home, "down", "--all", "--name", "none")
	if code != 0 || !strings.Contains(said, "removed: "+template) || !strings.Contains(said, running+": ") ||
		!strings.Contains(said, "another lab runs it") {
		t.Errorf("exit code %d\n%s", code, said)
	}
	for path, want := range map[string]bool{
		template: false, bundles: false, idle: false, running: true, foreign: true,
	} {
		if there(t, path) != want {
			t.Errorf("%s is there: %v, want %v", path, !want, want)
		}
	}
	if err := os.RemoveAll(cache); err != nil {
		t.Fatal(err)
	}
	if code, said := s.run(
		nil,
		home,
		"down",
		"--all",
		"--name",
		"none",
	); code != 0 || !strings.Contains(said, "no cache") ||
		there(t, cache) {
		t.Errorf("without a cache: exit code %d\n%s", code, said)
	}
	// Removing the cache makes the labs' folder, to wait for other commands. It must be gone again.
	if there(t, filepath.Join(s.home(), ".local", "state", "security-training")) {
		t.Error("it left a folder")
	}
}

// Bundles go into one folder, and their paths are printed. The last ten stay.
func TestTheLastTenBundlesAreKeptInOneFolder(t *testing.T) {
	s := newStage(t)
	dir := filepath.Join(s.home(), ".cache", "security-training", "bundles")
	var old []string
	for i := range 12 {
		at := time.Date(2026, 1, 1, 0, i, 0, 0, time.UTC).Format("20060102T150405.000")
		old = append(
			old,
			filepath.Join(dir, fmt.Sprintf("%c-lab-%s.tar.gz", 'z'-rune(i), at)),
		) // the order of the names is not that of the times
		s.write(old[i], "x")
	}
	s.write(filepath.Join(dir, "mine.tar.gz"), "x")
	cmd := exec.CommandContext(t.Context(), s.program, "bundle", "--name", "silent")
	cmd.Dir, cmd.SysProcAttr = s.home(), s.who
	cmd.Env = []string{
		asLab + "=1",
		"PATH=/usr/bin:/bin",
		"HOME=" + s.home(),
		"LAB_HOME=" + filepath.Join(s.home(), "labs"),
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	made := strings.TrimSpace(string(out))
	if err != nil || filepath.Dir(made) != dir || !strings.HasPrefix(filepath.Base(made), "silent-") ||
		!there(t, made) {
		t.Fatalf("it printed %q, %v\n%s", out, err, errs.String())
	}
	for i, path := range old {
		if want := i >= 3; there(t, path) != want { // twelve and the new one, minus ten
			t.Errorf("%s is there: %v, want %v", path, !want, want)
		}
	}
	if !there(t, filepath.Join(dir, "mine.tar.gz")) {
		t.Error("a file that is no bundle of the lab's was removed")
	}
	// In another folder nothing is removed.
	other := filepath.Join(s.home(), "artifacts")
	for i := range 12 {
		s.write(filepath.Join(other, filepath.Base(old[i])), "x")
	}
	if code, said := s.run(
		nil,
		[]string{"LAB_HOME=" + filepath.Join(s.home(), "labs")},
		"bundle",
		"--name",
		"silent",
	); code != 0 {
		t.Fatalf("exit code %d, want %d\n%s", code, 0, said)
	}
	if entries, err := os.ReadDir(other); err != nil || len(entries) != 13 {
		t.Errorf("%d files in LAB_ARTIFACTS, %v; want 13", len(entries), err)
	}
	if code, _ := s.run(
		nil,
		[]string{"LAB_HOME=" + filepath.Join(s.home(), "labs")},
		"bundle",
		"--name",
		"silent",
		"--to",
		made,
	); code != lab.ExitConflict {
		t.Errorf("a name that is taken: exit code %d, want %d", code, lab.ExitConflict)
	}
}
