package local

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/labtest"
)

func TestAProgramIsToldByItsBuildIDAndElseByItsContent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want, err := exec.CommandContext(t.Context(), "go", "tool", "buildid", self).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := programID(self); got == "" || got != strings.TrimSpace(string(want)) {
		t.Errorf("the build ID of this test is %q, and go says %q", got, want)
	}
	if got := programID(runningProgram); got != programID(self) {
		t.Errorf("what runs is %q", got)
	}
	dir := t.TempDir()
	one, other := filepath.Join(dir, "one"), filepath.Join(dir, "other")
	labtest.Write(t, one, "#!/bin/sh\nexit 1\n")
	labtest.Write(t, other, "#!/bin/sh\nexit 2\n")
	if a, b := programID(one), programID(other); a == b || !strings.HasPrefix(a, "sha256:") {
		t.Errorf("two scripts are %q and %q", a, b)
	}
	cut := filepath.Join(dir, "cut") // only the beginning of an ELF header
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	labtest.Write(t, cut, string(text[:100]))
	if id := programID(cut); !strings.HasPrefix(id, "sha256:") {
		t.Errorf("a program that was cut is %q", id)
	}
}

func TestAPipeInThePlaceOfAProgramIsNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	pipe, to := filepath.Join(dir, "pipe"), filepath.Join(dir, "to")
	if err := syscall.Mkfifo(pipe, 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan string, 1)
	go func() {
		_, err := placeProgram(pipe, to)
		if err == nil {
			done <- "it was placed"
		}
		done <- programID(pipe)
	}()
	select {
	case got := <-done:
		if got != "" {
			t.Errorf("a pipe: %q", got)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for the pipe's other end")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A placed program is a copy: a user who can write the built program cannot change what the lab runs. A running process
// keeps the program with which it was started.
func TestAPlacedProgramIsACopyAndWhatRunsKeepsItsOwn(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "built"), filepath.Join(dir, "placed")
	labtest.Write(t, from, "the new one")
	labtest.Write(t, to, "the old one")
	running, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	id, err := placeProgram(from, to)
	if err != nil {
		t.Fatal(err)
	}
	if id != programID(from) || id != programID(to) || labtest.Read(t, to) != "the new one" {
		t.Errorf("placed %q as %q", labtest.Read(t, to), id)
	}
	if fi, err := os.Stat(to); err != nil || fi.Mode() != 0o755 {
		t.Errorf("it has mode %v, %v; want one that every uid can start", fi.Mode(), err)
	}
	was := make([]byte, 20)
	if n, _ := running.Read(was); string(was[:n]) != "the old one" {
		t.Errorf("what runs became %q", was[:n])
	}
	labtest.Write(t, from, "another one") // in place: the inode stays
	if got := labtest.Read(t, to); got != "the new one" {
		t.Errorf("writing the built program wrote %q into the lab", got)
	}
}

func TestASupervisorOfAnotherBuildOrOfNoneIsOutdated(t *testing.T) {
	for program, want := range map[string]bool{programID(runningProgram): false, "another": true, "": true} {
		st := lab.Status{Processes: []lab.ProcessStatus{{Name: "postgres-server"}, {Name: supervisorName, Program: program}}}
		if got := SupervisorIsOutdated(st); got != want {
			t.Errorf("a supervisor that runs %q is outdated: %v", program, got)
		}
	}
}
