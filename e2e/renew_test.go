package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/env/needtest"
)

// renewing is the workload that these tests rebuild, and its program. No other workload needs it, and it links fast.
const renewing, renewingProgram = "stub-gemini", "stubgemini"

func needPrograms(t *testing.T) {
	t.Helper()
	if l.inCluster() {
		needtest.Lacks(t, needtest.Local, "workloads are pods, whose programs are in an image")
	}
}

// rebuild builds a program into the folder of the programs under test, with flags that change its build id.
func rebuild(t *testing.T, flags string) {
	t.Helper()
	cmd := exec.Command( // also while t ends
		"go", "build", "-trimpath", "-ldflags="+flags, "-o", l.bin+"/", "../synth/cmd/"+renewingProgram,
	)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// buildOf is the build ID of a program, as go tells it.
func buildOf(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "tool", "buildid", path).Output()
	if err != nil {
		t.Fatalf("build ID of %s: %v", path, err)
	}
	return strings.TrimSpace(string(out))
}

// onlyRenewed checks that before and after differ only in the process of one workload, and that this process runs the
// program in the folder of the programs.
func onlyRenewed(t *testing.T, before, after lab.Status) {
	t.Helper()
	want := buildOf(t, filepath.Join(l.bin, renewingProgram))
	for i, w := range after.Workloads {
		old := before.Workloads[i]
		if w.Name != renewing {
			if w.PID != old.PID {
				t.Errorf("%s was started again, and its program is the same", w.Name)
			}
			continue
		}
		if w.PID == old.PID {
			t.Errorf("%s still is process %d", w.Name, w.PID)
		}
		if w.Program != want {
			t.Errorf("%s says that it runs %q, want %q", w.Name, w.Program, want)
		}
		if is := buildOf(t, filepath.Join("/proc", strconv.Itoa(w.PID), "exe")); is != want {
			t.Errorf("%s runs %q, want %q", w.Name, is, want)
		}
	}
}

func TestUpTakesUpWhatWasBuiltSinceAndNothingElse(t *testing.T) {
	needPrograms(t)
	t.Cleanup(func() { // as the others find it
		rebuild(t, "-s")
		if out, err := command(context.Background(), l.name, "up").run(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	before := awaitHealthy(t)
	rebuild(t, "-w")
	out, err := command(t.Context(), l.name, "up").run()
	told := strings.Contains(out, ": "+renewing+" took up what was built") && !strings.Contains(out, "nothing to do")
	if err != nil || !told {
		t.Errorf("%v\n%s", err, out)
	}
	after := awaitHealthy(t)
	onlyRenewed(t, before, after)
	placed, err := os.Stat(l.StateDir().Path("bin", renewing))
	if err != nil {
		t.Fatal(err)
	}
	built, err := os.Stat(filepath.Join(l.bin, renewingProgram))
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(placed, built) || placed.Mode() != 0o755 {
		t.Errorf("the lab runs the built file itself, which others may write, or with mode %v", placed.Mode())
	}
	if out, err := command(t.Context(), l.name, "up").run(); err != nil || !strings.Contains(out, "nothing to do") {
		t.Errorf("a second up: %v\n%s", err, out)
	}

	// Simulate an `up` that ended after it had put the program in place, and before it restarted the workload.
	rebuild(t, "-s")
	next := l.StateDir().Path("bin", "."+renewing+".test")
	program, err := os.ReadFile(filepath.Join(l.bin, renewingProgram))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.WriteFile(next, program, 0o755), os.Rename(next, l.StateDir().Path("bin", renewing)))
	if err != nil {
		t.Fatal(err)
	}
	before = awaitHealthy(t)
	if out, err := command(t.Context(), l.name, "up").run(); err != nil || !strings.Contains(out, renewing+" took up") {
		t.Errorf("an up that was cut off is not gone on with: %v\n%s", err, out)
	}
	onlyRenewed(t, before, awaitHealthy(t))
}

func TestRestartStartsOneWorkloadAgainWithWhatWasBuilt(t *testing.T) {
	needPrograms(t)
	t.Cleanup(func() { rebuild(t, "-s") })
	var done struct {
		Workload, Program string
		Renewed           bool
		Seconds           float64
	}
	restart := func() {
		t.Helper()
		out, err := command(t.Context(), l.name, "restart", renewing, "-o", "json").stdout()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out), &done); err != nil {
			t.Fatalf("stdout is data: %v\n%s", err, out)
		}
	}
	for _, c := range []struct {
		flags   string
		renewed bool
	}{{"-w", true}, {"-w", false}, {"-s", true}} {
		rebuild(t, c.flags)
		before := awaitHealthy(t)
		restart()
		after, err := l.Status(t.Context()) // it was waited for
		if err != nil || !after.Healthy {
			t.Errorf("after a restart the lab is healthy: %v, %v", after.Healthy, err)
		}
		onlyRenewed(t, before, after)
		want := buildOf(t, filepath.Join(l.bin, renewingProgram))
		if done.Workload != renewing || done.Renewed != c.renewed || done.Program != want || done.Seconds <= 0 {
			t.Errorf("built with %s: %+v, want renewed %v and program %s", c.flags, done, c.renewed, want)
		}
		if c.renewed && !slices.ContainsFunc(supervisorChain(t), func(e audit.Entry) bool {
			return e.Kind == "restart" && e.Detail == renewing+" takes up program "+want
		}) {
			t.Error("the supervisor's chain does not tell of it")
		}
	}
	for name, want := range map[string]int{"stub-gemin": lab.ExitUsage, "postgres-server": lab.ExitUsage} {
		out, err := command(t.Context(), l.name, "restart", name).run()
		if code(err) != want || !strings.Contains(out, renewing) || !strings.Contains(out, "risk-scorer") {
			t.Errorf("restart %s: %v, want exit %d and the names that there are\n%s", name, err, want, out)
		}
	}
}

func supervisorChain(t *testing.T) []audit.Entry {
	t.Helper()
	entries, err := lab.Entries(t.Context(), l, "supervisor")
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestARestartOfTheSupervisorKeepsWhatTheLabKeeps(t *testing.T) {
	needPrograms(t)
	before := awaitHealthy(t)
	counts, err := l.op.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out, err := command(t.Context(), l.name, "restart", "supervisor").run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	after := awaitHealthy(t)
	for i, w := range after.Workloads {
		if w.PID == before.Workloads[i].PID {
			t.Errorf("%s outlived its supervisor", w.Name)
		}
	}
	is, was := after.Processes[0], before.Processes[0]
	if is.PID == was.PID || is.Program != buildOf(t, filepath.Join(l.bin, "lab")) {
		t.Errorf("the supervisor is %+v, was %+v", is, was)
	}
	now, err := l.op.Counts(t.Context())
	if err != nil || now.Events < counts.Events {
		t.Errorf("%d events, were %d: %v", now.Events, counts.Events, err)
	}
	if out, err := command(t.Context(), l.name, "audit", "verify").run(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// lines is what a command has printed so far.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestASavedFileRunsWithinTenSecondsAndABrokenOneChangesNothing edits a copy of this repository, as a developer does.
func TestASavedFileRunsWithinTenSecondsAndABrokenOneChangesNothing(t *testing.T) {
	needPrograms(t)
	tree := copyOfSource(t)
	t.Cleanup(func() { // as the others find it
		if out, err := command(context.Background(), l.name, "restart", "lms").run(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	awaitHealthy(t)
	var out, errs lines
	cmd := command(t.Context(), l.name, "dev", "lms").cmd()
	cmd.Dir, cmd.Stdout, cmd.Stderr = tree, &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if t.Failed() {
			t.Logf("lab dev:\n%s", errs.String())
		}
	})
	await(t, 5*time.Minute, "the first build, of everything", func() bool {
		return errs.count("lms runs this program already")+errs.count("lms runs what was saved") == 1
	})
	file := filepath.Join(tree, "services", "lms", "lms.go")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	save := func(text []byte) time.Time {
		t.Helper()
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return time.Now()
	}
	const run = "func Run(ctx context.Context, lookup env.Lookup) error {\n"
	marked := func(mark string) []byte {
		t.Helper()
		edited := bytes.Replace(text, []byte(run), []byte(run+"\tprintln(\""+mark+"\")\n"), 1)
		if bytes.Equal(edited, text) {
			t.Fatalf("%s has no %q: this proves nothing", file, run)
		}
		return edited
	}
	limit := max(10*time.Second, 2*buildTime(t, marked("another edit"))) // a busy machine is no fault of the loop's
	const mark = "an edit runs"
	saved := save(marked(mark))
	await(t, 5*time.Minute, "the edit to run, and its log to be shown", func() bool { return out.count(mark) == 1 })
	took := time.Since(saved)
	t.Logf("what was saved ran after %s", took)
	if took > limit {
		t.Errorf("what was saved ran after %s, want %s", took, limit)
	}

	before := awaitHealthy(t)
	swapped := errs.count("lms runs what was saved")
	save(append(slices.Clone(text), "func broken( {\n"...))
	await(t, 5*time.Minute, "what the compiler says", func() bool { return errs.count("lms.go:") >= 1 })
	if now := awaitHealthy(t); now.Workloads[0].PID != before.Workloads[0].PID {
		t.Error("what does not compile ended the program that runs")
	}
	save(text)
	await(t, 5*time.Minute, "the mended one to run", func() bool {
		return errs.count("lms runs what was saved") == swapped+1
	})

	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err, ended = cmd.Wait(), true
	if code(err) != lab.ExitInterrupted {
		t.Errorf("interrupted: %v, want exit %d", err, lab.ExitInterrupted)
	}
	awaitHealthy(t)
}

// buildTime is how long `go build` takes to rebuild the learning system after an edit, measured in another copy.
func buildTime(t *testing.T, edited []byte) time.Duration {
	t.Helper()
	tree := copyOfSource(t)
	if err := os.WriteFile(filepath.Join(tree, "services", "lms", "lms.go"), edited, 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"build", "-trimpath", "-ldflags=-s", "-o", t.TempDir(), "./services/cmd/lms"}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Env = tree, append(os.Environ(), "CGO_ENABLED=0")
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return time.Since(began)
}

// copyOfSource copies what the programs are built from.
func copyOfSource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"services", "synth", "manifests"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join("..", part))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("..", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
