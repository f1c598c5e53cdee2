package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/topology"
)

// unplayable is a scenario whose one expectation cannot hold.
const unplayable = `title: A refusal that is none
teaches: [authentication]
attack: [T1199]
difficulty: 1
minutes: 5
cast: {nina: {role: devsecops_engineer}}
brief: A call that the policy allows is said to be refused.
hints: [{cost: 10, text: Read the policy.}]
timeline: []
expect:
- {at: 9h1m, call: lms -> llm-gateway, route: POST /v1/generate, outcome: Refused}
- {at: 9h20m, who: nina, level: LOW}
debrief: It was allowed.
`

// TestExitCodesAreAsDesignedOnALabThatIsUp covers the classes of failure that need a running lab. A table in
// lab/cmd/lab covers the other classes for every verb.
func TestExitCodesAreAsDesignedOnALabThatIsUp(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	taken := file("taken.tar.gz", "")
	for _, c := range []struct {
		class string
		want  int
		args  []string
		says  string
	}{
		{"an assertion failed", lab.ExitAssertion,
			[]string{"play", file("unplayable.yaml", unplayable)}, "1 of 2 expectations failed"},
		{"unknown person", lab.ExitUsage, []string{"link", "elizabeth.reese"}, "did you mean elisabeth.reese?"},
		{"unknown person", lab.ExitUsage, []string{"open", "--as", "elizabeth.reese"}, "did you mean elisabeth.reese?"},
		{"unknown person", lab.ExitUsage,
			[]string{"certificate", "issue", "elizabeth.reese", "--to", dir}, "lab people"},
		{"unknown person", lab.ExitUsage, []string{"certificate", "revoke", "mira.none"}, "lab people"},
		{"unknown person", lab.ExitUsage,
			[]string{"audit", "rescore", "mira.none", "--at", "2026-10-01T10:04:00Z", "--as-of", "1000"}, "lab people"},
		{"unknown scenario", lab.ExitUsage, []string{"play", "leaked-secrt"}, "did you mean leaked-secret?"},
		{"unknown scenario", lab.ExitUsage, []string{"reset", "leaked-secrt"}, "did you mean leaked-secret?"},
		{"unknown workload", lab.ExitUsage, []string{"logs", "llm-gatway"}, "did you mean llm-gateway?"},
		{"unknown workload", lab.ExitUsage, []string{"audit", "tail", "llm-gatway"}, "did you mean llm-gateway?"},
		{"unknown caller", lab.ExitUsage, []string{"matrix", "--caller", "forgd"}, "did you mean forged?"},
		{"unknown callee", lab.ExitUsage, []string{"matrix", "--callee", "llm-gatway"}, "did you mean llm-gateway?"},
		{"another company", lab.ExitConflict, []string{"up", "--days", "11"}, "lab down"},
		{"a file that is there", lab.ExitConflict, []string{"bundle", "--to", taken}, "--to"},
		{"no such folder", lab.ExitPrecondition,
			[]string{"certificate", "issue", "elisabeth.reese", "--to", filepath.Join(dir, "none")}, "no such file"},
	} {
		out, err := command(t.Context(), l.name, c.args...).run()
		if code(err) != c.want || !strings.Contains(out, c.says) {
			t.Errorf("%s: lab %v: exit code %d, want %d and %q\n%s", c.class, c.args, code(err), c.want, c.says, out)
		}
	}
}

// A verb's output may go to a file on a full disk.
func TestAFullDiskUnderTheOutputOfAVerbIsAPrecondition(t *testing.T) {
	for _, args := range [][]string{
		{"status"}, {"status", "-o", "json"}, {"people"}, {"link"}, {"audit", "export"},
		{"matrix", "--caller", "lms", "--callee", "llm-gateway"},
		{"audit", "verify"}, {"logs", "postgres"}, {"play", "stranger-at-the-door"},
		{"certificate", "issue", "elisabeth.reese", "--to", t.TempDir()},
	} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			needtest.Lacks(t, needtest.DevFull, "%v", err)
		}
		cmd := command(t.Context(), l.name, args...).cmd()
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &said
		err = cmd.Run()
		full.Close()
		if code(err) != lab.ExitPrecondition || !strings.Contains(said.String(), "no space left on device") {
			t.Errorf("lab %v: %v, want exit %d\n%s", args, err, lab.ExitPrecondition, said.String())
		}
	}
}

// A verb that follows a stream ends on an interrupt, with the exit code for it and without a message.
func TestAnInterruptedFollowerEndsWith130AndSaysNothing(t *testing.T) {
	for _, args := range [][]string{{"logs", "llm-gateway", "-f"}, {"audit", "tail", serving(t, "POST /v1/events")}} {
		cmd := command(t.Context(), l.name, args...).cmd()
		var said bytes.Buffer
		cmd.Stderr = &said
		lines, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n, err := lines.Read(make([]byte, 4096)); n == 0 {
			t.Fatalf("lab %v printed nothing: %v", args, err)
		}
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != lab.ExitInterrupted || said.Len() > 0 {
			t.Errorf("lab %v: %v, want exit %d\n%s", args, err, lab.ExitInterrupted, said.String())
		}
	}
}

// A supervisor that is stopped (SIGSTOP) causes a time-out. A supervisor that has ended leaves a lab that is partly up.
func TestASupervisorThatDoesNotAnswerIsATimeOut(t *testing.T) {
	needtest.Unhurried(t, "a stopped supervisor is waited for, 15 s")
	name := l.name + "-x"
	if out, err := command(
		t.Context(),
		name,
		"up",
		"--runtime",
		"local",
		"--people",
		"5",
		"--days",
		"1",
	).run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	defer func() {
		if out, err := command(t.Context(), name, "down").run(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}()
	folder := control.StateDir(filepath.Join(filepath.Dir(string(l.StateDir())), name))
	pid := supervisorOf(t, folder)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	out, err := command(t.Context(), name, "status").run()
	if continued := syscall.Kill(pid, syscall.SIGCONT); continued != nil {
		t.Fatal(continued)
	}
	if code(err) != lab.ExitTimeout {
		t.Errorf("stopped: %v, want exit %d\n%s", err, lab.ExitTimeout, out)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, 10*time.Second, "the supervisor's end", func() bool { return syscall.Kill(pid, 0) != nil })
	if out, err := command(
		t.Context(),
		name,
		"status",
	).run(); code(err) != lab.ExitPartly ||
		!strings.Contains(out, "lab up --name "+name) {
		t.Errorf("gone: %v, want exit %d\n%s", err, lab.ExitPartly, out)
	}
}

// supervisorOf is the process id of the supervisor of the lab in folder.
func supervisorOf(t *testing.T, folder control.StateDir) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if line, err := procFile(
			pid,
			"cmdline",
		); err == nil &&
			bytes.Contains(line, []byte("supervise\x00"+string(folder)+"\x00")) {
			return pid
		}
	}
	t.Fatal("no supervisor runs")
	return 0
}

// A class list is checked before the first link is made.
func TestAClassListWithOneWrongLineMakesNoLink(t *testing.T) {
	dashboard := named(t, topology.KindDashboard, "")
	conn, err := connect(t, dashboard, dashboard)
	if err != nil {
		t.Fatal(err)
	}
	links := func() (n int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM training.link`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	class := filepath.Join(t.TempDir(), "class.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(class, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# the class\nelisabeth.reese\nelizabeth.rees\nmira.none\n")
	for _, verb := range [][]string{{"link"}, {"open"}, {"open", "--certificate"}, {"certificate", "issue"}} {
		dir := t.TempDir()
		args := append(append([]string{}, verb...), "--class", class)
		if verb[0] == "certificate" || len(verb) > 1 {
			args = append(args, "--to", dir)
		}
		before := links()
		cmd := command(t.Context(), l.name, args...).cmd()
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		err := cmd.Run()
		if code(err) != lab.ExitUsage || out.Len() > 0 || links() != before {
			t.Errorf("lab %v: %v, printed %q, %d links were made", args, err, out.String(), links()-before)
		}
		for _, want := range []string{
			`line 3: the roster has no "elizabeth.rees"; did you mean elisabeth.reese?`,
			`line 4: the roster has no "mira.none"`,
		} {
			if !strings.Contains(said.String(), want) {
				t.Errorf("lab %v does not say %q:\n%s", args, want, said.String())
			}
		}
		if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
			t.Errorf("lab %v wrote %v, %v", args, made, err)
		}
	}
	write("elisabeth.reese\n")
	before := links()
	out, err := command(t.Context(), l.name, "link", "--class", class).stdout()
	if err != nil || !strings.HasPrefix(out, "elisabeth.reese\thttp") || links() != before+1 {
		t.Errorf("%v: %q, %d links were made", err, out, links()-before)
	}
}

// `lab certificate issue` and `lab certificate revoke` were once options of `lab open`.
func TestACertificateOfTheNewVerbsIsIssuedAndRevoked(t *testing.T) {
	dir := t.TempDir()
	out, err := command(t.Context(), l.name, "certificate", "issue", "elisabeth.reese", "--to", dir).stdout()
	fields := strings.Split(strings.TrimSpace(out), "\t")
	if err != nil || len(fields) != 3 || fields[0] != "elisabeth.reese" ||
		fields[1] != filepath.Join(dir, "elisabeth.reese.p12") {
		t.Fatalf("%v: %q", err, out)
	}
	if info, err := os.Stat(fields[1]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the certificate's file: %v, %v", info, err)
	}
	old := newCertified(t, "elisabeth.reese")
	out, err = command(t.Context(), l.name, "certificate", "revoke", "elisabeth.reese", "mira.none").run()
	if code(err) != lab.ExitUsage || !strings.Contains(out, "elisabeth.reese\trevoked\t") ||
		!strings.Contains(out, "mira.none\trevoked\t") {
		t.Errorf("%v: %q", err, out)
	}
	if status, _ := old.visit("POST", "/sign-in/certificate"); status < 400 {
		t.Errorf("a revoked certificate signs in: %d", status)
	}
}

// Long work reports its progress: how many of how many events are delivered, and how many of how many people are in the
// roster.
func TestTheHistoryIsCountedAsItIsDelivered(t *testing.T) {
	mark := func() int64 {
		t.Helper()
		position, err := l.SeededAt()
		if err != nil {
			t.Fatal(err)
		}
		return position
	}
	before := mark()
	out, err := command(t.Context(), l.name, "seed").run()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	roster := fmt.Sprintf("✓ roster: %[1]d of %[1]d people (", l.st.Spec.People)
	history := regexp.MustCompile(
		fmt.Sprintf(`✓ %d days of history, through the collectors: (\d+) of (\d+) scored \(`, l.st.Spec.Days),
	)
	counts := history.FindStringSubmatch(out)
	if !strings.Contains(out, roster) || counts == nil || counts[1] != counts[2] || len(counts[1]) < 4 {
		t.Errorf("want %q and %s in\n%s", roster, history, out)
	}
	// What came since is not history: a reset is to take it away still.
	if after := mark(); after != before {
		t.Errorf("the history's end moved from %d to %d", before, after)
	}
}
