package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/local"
	"example.org/security-training/services/env"
)

func debugCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "debug WORKLOAD", Short: "Print the commands that attach a debugger to a workload, or take its profiles",
		Args:    cobra.ExactArgs(1),
		Example: "  lab debug risk-scorer",
		Long: `Prints lines for a shell: one that attaches Delve (dlv) to the process; and, in a lab that "lab up" made
with LAB_PPROF=1 in the environment, those that take a profile from its socket. Lines that begin with # are for people.

What "make build" makes has no debug information, so the first line then builds a program that has, and starts it.

A profile of a heap holds the workload's secrets, of the gateway the model's key: the sockets are for the lab's
owner alone, and there is no port.`,
		RunE: func(c *cobra.Command, args []string) error {
			l, err := find(c.Context(), s)
			if err != nil {
				return err
			}
			return writeDebug(c.Context(), s, l, args[0], c.OutOrStdout())
		},
	}
}

// checkPprof refuses LAB_PPROF for a runtime whose workloads have no folder on this machine.
func checkPprof(runtime string) error {
	on, err := control.PprofOf(env.Process)
	if err != nil || !on || runtime == local.RuntimeName {
		return err
	}
	return &lab.Error{
		Code: lab.ExitUsage,
		What: "serve profiles",
		Why:  fmt.Errorf("LAB_PPROF=1 is for the local runtime, and this lab is of the %s runtime", runtime),
		Try:  "LAB_PPROF=1 lab up --runtime local",
	}
}

func writeDebug(ctx context.Context, s *settings, l *control.Lab, name string, w io.Writer) error {
	workload, err := localWorkload(ctx, l, name, lab.Error{
		What: "debug " + name,
		Why:  errors.New("it runs in a pod, from an image without a shell"),
		Try:  "lab up --runtime local --name " + s.name + "-debug",
	})
	if err != nil {
		return err
	}
	if workload.PID == 0 {
		return &lab.Error{
			Code: lab.ExitPartly,
			What: "debug " + name,
			Why:  errors.New("it does not run"),
			Try:  "lab logs " + name + nameFlag(s),
		}
	}
	var lines []string
	if hasDebugInformation(local.Program(l, name)) {
		lines = append(lines, attachLines(workload.PID)...)
	} else {
		rebuild, err := rebuildLines(ctx, s, l, name)
		if err != nil {
			return err
		}
		lines = append(lines, rebuild...)
	}
	lines = append(lines, profileLines(s, l, name)...)
	_, err = fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

// hasDebugInformation says whether a program has the information about lines and variables that a debugger needs.
func hasDebugInformation(program string) bool {
	f, err := elf.Open(program)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Section(".debug_info") != nil
}

// attachLines returns the commands that attach Delve. If the kernel lets processes trace only their own children, they
// use sudo.
func attachLines(pid int) []string {
	lines := []string{"# Delve goes on with the process when it ends by: quit, then n"}
	if _, err := exec.LookPath("dlv"); err != nil {
		lines = append(lines, "# dlv is not on PATH: go install github.com/go-delve/delve/cmd/dlv@latest")
	}
	sudo := ""
	if scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); os.Geteuid() != 0 && err == nil &&
		strings.TrimSpace(string(scope)) != "0" {
		sudo = `sudo env "PATH=$PATH" `
	}
	return append(lines, fmt.Sprintf("%sdlv attach %d", sudo, pid))
}

// rebuildLines returns the commands that build a program with debug information, start it, and print how to attach to
// it.
func rebuildLines(ctx context.Context, s *settings, l *control.Lab, name string) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find myself: %w", err)
	}
	root, err := moduleRoot()
	if err != nil {
		return nil, &lab.Error{
			Code: lab.ExitPrecondition,
			What: "debug " + name,
			Why:  fmt.Errorf("its program has no debug information, and %w", err),
			Try:  "cd into a clone, then lab debug " + name + nameFlag(s),
		}
	}
	main, err := packageOf(l, root, name)
	if err != nil {
		return nil, err
	}
	bin, err := findBinaries(ctx, s.progress())
	if err != nil {
		return nil, err
	}
	build := fmt.Sprintf("CGO_ENABLED=0 go build -C %s -buildvcs=false -gcflags='all=-N -l' -o %s %s",
		lab.Quoted(root), lab.Quoted(bin+string(filepath.Separator)), main)
	again := lab.Quoted(self) + " %s " + name + nameFlag(s)
	return []string{
		"# its program has no debug information: this builds one that has, starts it, and prints how to attach to it",
		build + " && " + fmt.Sprintf(again, "restart") + " && " + fmt.Sprintf(again, "debug"),
	}, nil
}

// profileLines returns the commands that take profiles, or how to make a lab that serves them.
func profileLines(s *settings, l *control.Lab, name string) []string {
	socket := l.StateDir().WorkloadPprof(name)
	if fi, err := os.Lstat(socket); err != nil || fi.Mode().Type() != os.ModeSocket {
		return []string{fmt.Sprintf("# no profiles: they are served in a lab that was made so: "+
			"lab down%[1]s, then LAB_PPROF=1 lab up%[1]s", nameFlag(s))}
	}
	curl := "curl --silent --show-error --fail --unix-socket " + lab.Quoted(socket)
	heap := "heap-" + name + ".pprof"
	return []string{
		"# which profiles there are, and where memory is held; the file holds secrets of the workload",
		curl + " 'http://" + name + "/debug/pprof/'",
		"(umask 077; " + curl + " -o " + heap + " 'http://" + name + "/debug/pprof/heap') && go tool pprof -top " + heap,
	}
}
