package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/local"
	"example.org/security-training/services/env"
	"example.org/security-training/services/env/needtest"
)

// socketsIn lists the sockets below a folder.
func socketsIn(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type() == os.ModeSocket {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestProfilesAreOffUnlessALabIsMadeWithThem(t *testing.T) {
	needPrograms(t)
	awaitHealthy(t)
	if found := socketsIn(t, l.StateDir().Path("w")); len(found) > 0 {
		t.Errorf("workloads listen on %v, and profiles were not asked for", found)
	}
	out, err := command(t.Context(), l.name, "up").withEnv("LAB_PPROF=1").run()
	if code(err) != lab.ExitConflict || !strings.Contains(out, "LAB_PPROF=1") {
		t.Errorf("profiles for a lab that is there: %v, want exit %d\n%s", err, lab.ExitConflict, out)
	}
	if out, err := command(t.Context(), l.name, "up").withEnv("LAB_PPROF=yes").run(); code(err) != lab.ExitUsage {
		t.Errorf("LAB_PPROF=yes: %v, want exit %d\n%s", err, lab.ExitUsage, out)
	}
	out, err = command(t.Context(), l.name, "debug", "nothing").run()
	if code(err) != lab.ExitUsage || !strings.Contains(out, "lms") {
		t.Errorf("debug of nothing: %v, want exit %d and the names\n%s", err, lab.ExitUsage, out)
	}
	text, err := command(t.Context(), l.name, "debug", renewing).stdout()
	if err != nil || strings.Contains(text, "curl") || !strings.Contains(text, "# no profiles") {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestWhatDebugPrintsWorksAsPrinted makes a lab with profiles and runs every line that `lab debug` prints.
func TestWhatDebugPrintsWorksAsPrinted(t *testing.T) {
	needPrograms(t)
	for _, program := range []string{"curl", "go"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatal(err)
		}
	}
	name := l.name + "-d"
	t.Cleanup(func() {
		rebuild(t, "-s")
		if out, err := command(context.Background(), name, "down").run(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	up := command(t.Context(), name, "up", "--runtime", local.RuntimeName, "--people", "5", "--days", "1")
	if out, err := up.withEnv("LAB_PPROF=1").run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	folder, err := control.StateDirOf(env.Process, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range l.topo.Workloads {
		if w.Binary == "" {
			continue
		}
		fi, err := os.Lstat(folder.WorkloadPprof(w.Name))
		if err != nil || fi.Mode() != os.ModeSocket|0o600 {
			t.Errorf("profiles of %s: %v, %v, want a socket of mode 0600", w.Name, fi, err)
			continue
		}
		owner, own := int(fi.Sys().(*syscall.Stat_t).Uid), os.Geteuid()
		if owner == own && own == 0 {
			t.Errorf("the profiles' socket of %s is root's", w.Name)
		}
	}
	folderOf := t.TempDir()
	run := func(line string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Dir = folderOf
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return string(out)
	}
	printed := func() (commands []string) {
		t.Helper()
		text, err := command(t.Context(), name, "debug", renewing).stdout()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
				commands = append(commands, line)
			}
		}
		return commands
	}
	lines := printed()
	if len(lines) != 3 || !strings.Contains(lines[0], "go build") {
		t.Fatalf("it prints %q", lines)
	}
	if out := run(lines[1]); !strings.Contains(out, "goroutine") {
		t.Errorf("%s: %s", lines[1], out)
	}
	if out := run(lines[2]); !strings.Contains(out, "flat%") {
		t.Errorf("%s: %s", lines[2], out)
	}
	heap := filepath.Join(folderOf, "heap-"+renewing+".pprof")
	if fi, err := os.Stat(heap); err != nil || fi.Mode() != 0o600 {
		t.Errorf("the heap's profile: %v, %v; want a file that only its owner can read", fi, err)
	}
	attach := ""
	for line := range strings.Lines(run(lines[0])) {
		if strings.Contains(line, "dlv attach ") && !strings.HasPrefix(line, "#") {
			attach = strings.TrimSpace(line)
		}
	}
	attachAndLeave(t, name, attach)
}

// attachAndLeave runs the line that attaches a debugger, and checks that the process continues afterwards.
func attachAndLeave(t *testing.T, name, line string) {
	t.Helper()
	pid := line[strings.LastIndexByte(line, ' ')+1:]
	if program, err := os.Readlink(filepath.Join("/proc", pid, "exe")); err != nil || filepath.Base(program) != renewing {
		t.Fatalf("%q names process %s, which runs %q: %v", line, pid, program, err)
	}
	if _, err := exec.LookPath("dlv"); err != nil {
		needtest.Lacks(t, needtest.Delve, "dlv is not on PATH")
	}
	// There is no terminal here, and the debugger has to be told so.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", line+" --allow-non-terminal-interactive=true")
	cmd.Stdin = strings.NewReader("sources main.go\nquit\nn\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "stubgemini/main.go") {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
	folder, err := control.StateDirOf(env.Process, name)
	if err != nil {
		t.Fatal(err)
	}
	here, err := control.Find(t.Context(), folder, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := here.AwaitWorkload(t.Context(), renewing, slack(30e9, 60e9)); err != nil {
		t.Error(err)
	}
	st, err := here.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(st.Workloads, func(w lab.WorkloadStatus) bool { return w.Name == renewing })
	if i < 0 || strconv.Itoa(st.Workloads[i].PID) != pid {
		t.Errorf("the process %s did not go on", pid)
	}
}
