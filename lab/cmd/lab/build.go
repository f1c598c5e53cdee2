package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/progress"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// findBinaries returns the folder of the services' programs. They are in the folder of this program, or else they are
// built from the checkout around the current folder.
func findBinaries(ctx context.Context, p progress.Reporter) (string, error) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find myself: %w", err)
	}
	dir := filepath.Dir(self)
	missing := ""
	for _, w := range topo.Workloads {
		if w.Binary == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, w.Binary)); err != nil {
			missing = w.Binary
		}
	}
	if missing == "" {
		return dir, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", &lab.Error{
			Code: lab.ExitPrecondition,
			What: "find the services' programs",
			Why:  fmt.Errorf("%s is not in the folder of %s, and %w", missing, self, err),
			Try:  "make build && bin/lab up",
		}
	}
	bin := filepath.Join(root, "bin")
	const what = "compile the services (minutes the first time, then seconds)"
	err = progress.Step(p, what, func() error { return build(ctx, root, bin) })
	return bin, err
}

func build(ctx context.Context, root, bin string) error {
	args := append(buildArgs(), "-o", bin+string(filepath.Separator), "./services/cmd/...", "./synth/cmd/...")
	if _, err := goCommand(ctx, root, args...); err != nil {
		return &lab.Error{Code: lab.ExitPrecondition, What: "build the services", Why: err}
	}
	return nil
}

// moduleRoot returns the root of the checkout around the current folder.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(b, []byte("module "+module+"\n")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("this is not a checkout to build them from")
		}
		dir = filepath.Dir(dir)
	}
}

// mainOf returns the package of a program.
func mainOf(root, binary string) (string, error) {
	for _, parent := range []string{"services/cmd", "synth/cmd"} {
		if _, err := os.Stat(filepath.Join(root, parent, binary, "main.go")); err == nil {
			return "./" + parent + "/" + binary, nil
		}
	}
	return "", fmt.Errorf("find the source of %s: it is not in services/cmd, nor in synth/cmd", binary)
}

// buildArgs are the arguments for building the services' programs, the same as in the Makefile. They leave out the
// commit, so that a commit alone does not change the programs.
func buildArgs() []string { return []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s"} }

// goCommand runs go in a folder and returns its stdout. The error has its stderr. When ctx ends, the compilers that go
// has started end too.
func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if set, ok := env.Process("CGO_ENABLED"); !ok || set == "" { // as in the Makefile: programs without C
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// packageOf returns the package, in the checkout root, of the program that a workload of l runs.
func packageOf(l *control.Lab, root, workload string) (string, error) {
	topo, err := lab.PolicyInForce(l)
	if err != nil {
		return "", err
	}
	row, _ := topo.Workload(workload)
	return mainOf(root, row.Binary)
}
