package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// repository is the root of this checkout.
func repository(t *testing.T) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestAProgramIsMadeOfItsPackagesAndOfWhatTheyEmbed(t *testing.T) {
	root := repository(t)
	src, err := sourceOf(t.Context(), root, "./services/cmd/lms")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"services/lms/lms.go":               true,
		"services/cmd/lms/main.go":          true,
		"services/mesh/mesh.go":             true,
		"services/mesh/a_file_yet_to_be.go": true,
		"services/mesh/mesh_test.go":        false,
		"services/mesh/.mesh.go.swp":        false,
		"services/mesh/mesh.go~":            false,
		"services/collector/collector.go":   false,
		"lab/lab.go":                        false,
		"go.mod":                            true,
		"go.sum":                            true,
		"README.md":                         false,
	} {
		if got := src.has(filepath.Join(root, path)); got != want {
			t.Errorf("the learning system is made of %s: %v", path, got)
		}
	}
	pages := 0
	for dir := range src.embedded {
		if src.has(filepath.Join(dir, "page.html")) {
			pages++
		}
	}
	if pages == 0 {
		t.Error("a saved template changes nothing")
	}
	for _, dir := range src.folders() {
		if dir != root && !strings.HasPrefix(dir, root+string(filepath.Separator)) {
			t.Errorf("%s is watched, and is of no source that can be edited here", dir)
		}
	}
}

// The Makefile, `lab up` and `lab dev` build the same programs. Otherwise each would replace what another one built.
func TestProgramsAreBuiltTheSameWayEverywhere(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository(t), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	want := "\t@go " + strings.Join(buildArgs(), " ") + " -o bin/ ./services/cmd/... ./synth/cmd/...\n"
	if !strings.Contains(string(text), want) {
		t.Errorf("the Makefile does not build by %q", want)
	}
	if !strings.Contains(string(text), "export CGO_ENABLED ?= 0\n") {
		t.Error("the Makefile builds with cgo, and goCommand without")
	}
}

// An interrupted goCommand leaves no compiler behind.
func TestAnInterruptedBuildLeavesNoCompilerBehind(t *testing.T) {
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	script := "#!/bin/sh\necho $$ > " + pid + ".new && mv " + pid + ".new " + pid + "\nexec sleep 600\n"
	compiler := filepath.Join(dir, "compiler")
	if err := os.WriteFile(compiler, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := goCommand(ctx, repository(t), "build", "-a", "-toolexec="+compiler, "./services/env")
		ended <- err
	}()
	deadline := time.After(30 * time.Second)
	for {
		if _, err := os.Stat(pid); err == nil {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("it ended before a compiler was started: %v", err)
		case <-deadline:
			t.Fatal("no compiler was started")
		case <-time.After(5 * time.Millisecond):
		}
	}
	interrupt()
	if err := <-ended; err == nil {
		t.Error("an interrupted build is no error")
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	for late := time.After(10 * time.Second); ; {
		stat, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(text)), "stat"))
		if errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") Z ") { // or it has not been waited for yet
			return
		}
		select {
		case <-late:
			t.Fatalf("the compiler %s still runs", text)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
