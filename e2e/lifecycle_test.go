package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/local"
	"example.org/security-training/services/env"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/people"
)

func TestASecondUpFindsNothingToDo(t *testing.T) {
	before := awaitHealthy(t)
	start := time.Now()
	out, err := command(t.Context(), l.name, "up").run()
	if err != nil || !strings.Contains(out, "nothing to do") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("a second up took %s", time.Since(start))
	after := awaitHealthy(t)
	for i, w := range after.Workloads {
		if old := before.Workloads[i]; w.PID != old.PID || w.Pod != old.Pod || w.Restarts != old.Restarts {
			t.Errorf("%s was started again by an up that had nothing to do", w.Name)
		}
	}
	if out, err := command(t.Context(), l.name, "up", "--days", "11").run(); code(err) != lab.ExitConflict {
		t.Errorf("another company under the same name: %v, want exit %d\n%s", err, lab.ExitConflict, out)
	}
}

func TestStatusSaysOfEachWorkloadWhoItIs(t *testing.T) {
	out, err := command(t.Context(), l.name, "status", "-o", "json").stdout()
	if err != nil {
		t.Fatal(err)
	}
	var st lab.Status
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		t.Fatalf("stdout is data: %v\n%s", err, out)
	}
	for _, w := range st.Workloads {
		if !w.Ready || w.SPIFFEID != l.topo.ID(w.Name).String() || w.Serial == "" || !w.Expires.After(time.Now()) {
			t.Errorf("%+v", w)
		}
	}
}

func TestTheAuditIsWholeAndAnyEditIsFound(t *testing.T) {
	out, err := command(t.Context(), l.name, "audit", "verify").run()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	gateway := serving(t, generate)
	path := filepath.Join(string(l.StateDir()), "w", gateway, "audit")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := bytes.Replace(text, []byte(`"outcome":"Refused"`), []byte(`"outcome":"Allowed"`), 1)
	if bytes.Equal(edited, text) {
		t.Fatal("there is no refusal to hide: this proves nothing")
	}
	// Edit the file in place and keep its length, so that the workload, which only appends, does not notice.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(edited, 0); err != nil {
		t.Fatal(err)
	}
	out, err = command(t.Context(), l.name, "audit", "verify").run()
	if code(err) != lab.ExitAssertion || !strings.Contains(out, gateway) || !strings.Contains(out, "was edited") {
		t.Errorf("an edited entry: %v\n%s", err, out)
	}
	if _, err := f.WriteAt(text, 0); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t.Context(), l.name, "audit", "verify").run(); err != nil {
		t.Errorf("mended: %v\n%s", err, out)
	}
}

func TestASecondLabRunsBesideTheFirstAndLeavesNothing(t *testing.T) {
	name := l.name + "-b"
	up := []string{"up", "--runtime", local.RuntimeName, "--people", "5", "--days", "2", "--seed", "7"}
	if out, err := command(t.Context(), name, up...).run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r := &local.Runtime{Lookup: env.Process}
	found, err := r.Find(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	st, err := found.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Dashboard == l.st.Dashboard || !st.Healthy {
		t.Errorf("the second lab is at %s, healthy: %v", st.Dashboard, st.Healthy)
	}
	awaitHealthy(t)
	if out, err := command(t.Context(), name, "down").run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(st.Folder); !os.IsNotExist(err) {
		t.Errorf("%s is still there", st.Folder)
	}
	for _, pid := range pidsNaming(t, st.Folder) {
		t.Errorf("process %d of the lab that is down still runs", pid)
	}
	for _, w := range st.Workloads {
		if local.Answers(w.Address) {
			t.Errorf("%s still answers at %s", w.Name, w.Address)
		}
	}
	if out, err := command(t.Context(), name, "down").run(); err != nil {
		t.Errorf("down again is no error: %v\n%s", err, out)
	}
}

// pidsNaming lists the processes whose command line names folder.
func pidsNaming(t *testing.T, folder string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := procFile(pid, "cmdline")
		if err == nil && bytes.Contains(cmdline, []byte(folder+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestATakenPortIsANamedConflict(t *testing.T) {
	// The next free loopback address is the one that a new lab would take: its first port is taken before.
	host := ""
	for n := 1; n < 250; n++ {
		host = fmt.Sprintf("127.0.0.%d", n)
		claim, err := net.Listen("unix", "@security-training/"+host)
		if err == nil {
			claim.Close()
			break
		}
	}
	w := l.topo.OfKind("gateway")[0]
	taken, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(w.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	name := l.name + "-c"
	t.Cleanup(func() { // where it came up after all
		if out, err := command(context.Background(), name, "down").run(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	out, err := command(t.Context(), name, "up", "--runtime", l.runtime, "--people", "5", "--days", "2").run()
	if code(err) != lab.ExitConflict || !strings.Contains(out, w.Name) || !strings.Contains(out, strconv.Itoa(w.Port)) {
		t.Errorf("%v\n%s", err, out)
	}
	if matches, _ := filepath.Glob(filepath.Join(filepath.Dir(string(l.StateDir())), name+"*")); len(matches) > 0 {
		t.Errorf("a lab that could not start left %v", matches)
	}
}

func TestWrongUseIsExitCode2AndSaysWhatIsRight(t *testing.T) {
	for _, args := range [][]string{
		{"play", "no-such-scenario"}, {"up", "--people", "0", "--days", "999"}, {"matrix", "-o", "xml"}, {"logs"},
		{"frobnicate"}, {"status", "--nonsense"}, {"open", "--as", "nobody.here"}, {"doctor", "--runtime", "moon"},
	} {
		if out, err := command(t.Context(), l.name, args...).run(); code(err) != lab.ExitUsage {
			t.Errorf("%v: %v, want exit %d\n%s", args, err, lab.ExitUsage, out)
		}
	}
	if out, err := command(t.Context(), "no-such-lab", "status").run(); code(err) != lab.ExitPrecondition ||
		!strings.Contains(out, "lab up") {
		t.Errorf("status of no lab: %v\n%s", err, out)
	}
}

func TestResetOfAScenarioTakesAwayItsCastAndItsExercisesAlone(t *testing.T) {
	scorer := serving(t, "POST /v1/events")
	conn, err := connect(t, scorer, scorer)
	if err != nil {
		t.Fatal(err)
	}
	// left counts the records that one scenario created: people, their events, exercises. It also counts all events.
	left := func(scenario string) (cast, events, exercises, all int) {
		t.Helper()
		if err := conn.QueryRow(
			t.Context(), `SELECT count(*) FROM people.person WHERE team = 'exercise' AND name LIKE '%(' || $1 || ')'`, scenario,
		).Scan(&cast); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(
			t.Context(),
			`SELECT count(*) FILTER (WHERE p.name LIKE '%(' || $1 || ')'), count(*) FROM risk.event e
				LEFT JOIN people.person p ON p.id = e.person`,
			scenario,
		).Scan(&events, &all); err != nil {
			t.Fatal(err)
		}
		var shown []exercise.Exercise
		if err := l.op.Call(
			t.Context(), serving(t, "GET /v1/exercises"), http.MethodGet, "/v1/exercises", nil, &shown,
		); err != nil {
			t.Fatal(err)
		}
		for _, e := range shown {
			if strings.HasPrefix(e.ID, scenario+"-") {
				exercises++
			}
		}
		return cast, events, exercises, all
	}
	for _, name := range []string{"leaked-secret", "stranger-at-the-door"} {
		if out, err := command(t.Context(), l.name, "play", name).run(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	cast, events, exercises, _ := left("leaked-secret")
	if cast == 0 || events == 0 || exercises == 0 {
		t.Fatalf("after a play: %d people, %d events, %d exercises", cast, events, exercises)
	}
	otherCast, otherEvents, otherExercises, _ := left("stranger-at-the-door")
	for range 2 { // the second finds nothing to do
		if out, err := command(t.Context(), l.name, "reset", "leaked-secret").run(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		cast, events, exercises, all := left("leaked-secret")
		if cast+events+exercises != 0 || all == 0 {
			t.Errorf("left of it: %d people, %d events, %d exercises; %d events of all", cast, events, exercises, all)
		}
	}
	if c, e, x, _ := left("stranger-at-the-door"); c != otherCast || e != otherEvents || x != otherExercises || x == 0 {
		t.Errorf(
			"of another scenario: %d people, %d events, %d exercises, were %d, %d, %d",
			c,
			e,
			x,
			otherCast,
			otherEvents,
			otherExercises,
		)
	}
}

func TestResetGoesBackToTheSeededState(t *testing.T) {
	position, err := l.SeededAt()
	if err != nil {
		t.Fatal(err)
	}
	scorer := serving(t, "POST /v1/events")
	conn, err := connect(t, scorer, scorer)
	if err != nil {
		t.Fatal(err)
	}
	count := func(query string, args ...any) (n int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	seeded := count(`SELECT count(*) FROM risk.event WHERE position <= $1`, position)
	if out, err := command(t.Context(), l.name, "play", "leaked-secret").run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	played := count(`SELECT max(position) FROM risk.event`)
	if count(`SELECT count(*) FROM people.person WHERE team = 'exercise'`) == 0 || int64(played) <= position {
		t.Fatal("a play left nothing: this proves nothing")
	}
	// A person has passed a lesson. A reset of exercises leaves that alone, and so does one that is not confirmed.
	dashboard := named(t, topology.KindDashboard, "")
	training, err := connect(t, dashboard, dashboard)
	if err != nil {
		t.Fatal(err)
	}
	who := people.Company(l.st.Spec.Seed, l.st.Spec.People, people.Published)[1].ID
	var passed string
	if err := training.QueryRow(t.Context(), `WITH l AS (
		INSERT INTO training.lesson (person, module, state, request, lesson, asked)
		VALUES ($1, 'phishing', 'passed', '{}', '{}', now())
		RETURNING id, person, module)
		INSERT INTO training.completion (lesson, person, module, event, passed, share, at)
		SELECT id, person, module, 'training:e2e-' || id, true, 1, now() FROM l RETURNING lesson::text`, who).
		Scan(&passed); err != nil {
		t.Fatal(err)
	}
	kept := func() (n int) {
		t.Helper()
		if err := training.QueryRow(t.Context(), `SELECT count(*) FROM training.completion WHERE lesson = $1`, passed).
			Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	ordinary := count(
		`SELECT count(*) FROM risk.event e JOIN people.person p ON p.id = e.person
			WHERE p.team <> 'exercise' AND e.position <= $1`,
		played,
	)
	if out, err := command(t.Context(), l.name, "reset").run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := count(`SELECT count(*) FROM people.person WHERE team = 'exercise'`); n != 0 {
		t.Errorf("%d people of exercises are left", n)
	}
	if n := count(
		`SELECT count(*) FROM risk.event e JOIN people.person p ON p.id = e.person
			WHERE p.team <> 'exercise' AND e.position <= $1`,
		played,
	); n != ordinary {
		t.Errorf("%d events of the company's people, were %d", n, ordinary)
	}
	if out, err := command(
		t.Context(),
		l.name,
		"reset",
		"--learners",
	).run(); code(err) != lab.ExitUsage ||
		!strings.Contains(out, "--yes") {
		t.Errorf("unconfirmed: %v, want exit %d\n%s", err, lab.ExitUsage, out)
	}
	if kept() != 1 {
		t.Fatal("a reset of exercises took a learner's lesson away")
	}
	to := t.TempDir()
	out, err := command(t.Context(), l.name, "reset", "--learners", "--yes", "--to", to).stdout()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files := strings.Fields(out)
	if len(files) != 2 {
		t.Fatalf("%q, want the names of two files", out)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(f)
		if err != nil || info.Mode().Perm() != 0o600 || !strings.Contains(string(text), who) || filepath.Dir(f) != to {
			t.Errorf("%s: mode %v, %d bytes, %v; want 0600, and %s in it", f, info.Mode(), len(text), err, who)
		}
	}
	if kept() != 0 {
		t.Error("the records are still there")
	}
	var left int
	if err := training.QueryRow(
		t.Context(), `SELECT count(*) FROM training.deleted_certificate WHERE lesson = $1`, passed,
	).
		Scan(&left); err != nil ||
		left != 1 {
		t.Errorf("of the certificate %d lines are left, want 1: %v", left, err)
	}
	awaitHealthy(t)
	if n := count(`SELECT count(*) FROM risk.event WHERE position <= $1`, position); n != seeded {
		t.Errorf("%d events of the history, were %d", n, seeded)
	}
	if n := count(`SELECT count(*) FROM risk.event WHERE position > $1 AND position <= $2`, position, played); n != 0 {
		t.Errorf("%d events of after the history are left", n)
	}
	if n := count(`SELECT count(*) FROM people.person`); n != l.st.Spec.People {
		t.Errorf("%d people, want the company's %d", n, l.st.Spec.People)
	}
	var shown []exercise.Exercise
	if err := l.op.Call(
		t.Context(), serving(t, "GET /v1/exercises"), http.MethodGet, "/v1/exercises", nil, &shown,
	); err != nil ||
		len(shown) != 0 {
		t.Errorf("%d exercises are left: %v", len(shown), err)
	}
}

func TestAnExpectationThatFailsEndsAPlayWithCode1AndSaysWhatCame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "too-much-to-ask.yaml")
	if err := os.WriteFile(path, []byte(`title: One commit, and CRITICAL is expected
teaches: [secret-hygiene]
attack: [T1552.001]
difficulty: 1
minutes: 1
seed: 7
cast: {mira: {role: sre}, tomas: {role: sre}}
brief: An expectation that cannot hold.
hints: [{cost: 10, text: There is none.}]
timeline:
- {at: 10h00m, who: mira, source: git, record: {event: commit, repository: payments, path: main.go}}
expect:
- {at: 10h01m, who: mira, level: CRITICAL}
- {at: 10h01m, who: tomas, level: LOW}
debrief: It did not.
`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := command(t.Context(), l.name, "play", path).run()
	if code(err) != lab.ExitAssertion || !strings.Contains(out, "✗") || !strings.Contains(out, "LOW") ||
		!strings.Contains(out, "1 of 2 expectations failed") {
		t.Errorf("%v, want exit %d and what came instead\n%s", err, lab.ExitAssertion, out)
	}
	if out, err := command(t.Context(), l.name, "reset", path).run(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// An `up` may be interrupted at any point. The next `up` continues from there, and `down` removes everything.
func TestAnInterruptedUpIsGoneOnWithAndTakenDown(t *testing.T) {
	name := l.name + "-c"
	up := func() *exec.Cmd {
		cmd := command(t.Context(), name, "up", "--runtime", local.RuntimeName, "--people", "5", "--days", "2").cmd()
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		return cmd
	}
	r := &local.Runtime{Lookup: env.Process}
	folder, err := control.StateDirOf(env.Process, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, until := range map[string]func() bool{
		"the folder is there": func() bool { _, err := os.Stat(string(folder)); return err == nil },
		"a workload is ready": func() bool {
			found, err := r.Find(t.Context(), name)
			if err != nil {
				return false
			}
			st, err := found.Status(t.Context())
			return err == nil && slices.ContainsFunc(st.Workloads, func(w lab.WorkloadStatus) bool { return w.Ready })
		},
	} {
		cmd := up()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, 30*time.Second, "the moment to interrupt", until)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); code(err) != lab.ExitInterrupted && code(err) != 0 { // it may have been too fast for us
			t.Errorf("interrupted: %v, want exit %d", err, lab.ExitInterrupted)
		}
	}
	if out, err := up().CombinedOutput(); err != nil {
		t.Errorf("the next up: %v\n%s", err, out)
	}
	if out, err := command(t.Context(), name, "down").run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(string(folder)); !os.IsNotExist(err) {
		t.Errorf("%s is still there", folder)
	}
	for _, pid := range pidsNaming(t, string(folder)) {
		t.Errorf("process %d of the lab that is down still runs", pid)
	}
}
