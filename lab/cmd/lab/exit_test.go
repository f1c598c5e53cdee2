package main

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/lab/scenarios"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/env/needtest"
)

// asLab makes this test's program run as `lab`.
const asLab = "LAB_TEST_RUNS_THE_COMMAND_LINE"

func TestMain(m *testing.M) {
	if _, is := env.Process(asLab); is {
		main()
	}
	os.Exit(m.Run())
}

// states has a verb's exit codes by the state of the lab, as the design has them.
type states struct {
	none      int // there is no lab of that name
	silent    int // there is a lab's folder, but no supervisor
	foreign   int // the lab is of a runtime that this build does not know
	broken    int // the lab's settings cannot be read
	homeless  int // neither LAB_HOME, XDG_STATE_HOME nor HOME is set
	untrusted int // other users can change the labs' folder
	full      int // stdout is on a full disk
}

var (
	// insideALab is a verb that needs a lab that is up.
	insideALab = states{none: 3, silent: 5, foreign: 3, broken: 3, homeless: 3, untrusted: 3, full: 3}
	// withoutALab is a verb that needs no lab, and prints something.
	withoutALab = states{full: 3}
)

// mayBe stands for a code that depends on the machine: doctor reports what it lacks.
const mayBe = -1

// exits has the exit codes of every verb, by its path. A table in e2e has those with a lab that is up.
var exits = map[string]struct {
	right  []string   // correct arguments
	wrong  [][]string // usage errors, in addition to those that every verb has
	states states
	cannot []string // arguments with which it writes into the folder DENIED, which it cannot change: exit 3
}{
	"": {states: withoutALab, wrong: [][]string{{"statsu"}, {"upp"}}},
	"doctor": {right: []string{"--runtime", "local"}, wrong: [][]string{{"x"}, {"-o", "yaml"}, {"--runtime", "moon"}},
		states: states{none: mayBe, silent: mayBe, foreign: mayBe, broken: mayBe, homeless: 3, untrusted: 3, full: 3}},
	// e2e tests what up does with a lab that exists.
	"up": {
		right: []string{"--runtime", "local"},
		states: states{none: mayBe, silent: mayBe, foreign: 3, broken: 3,
			homeless: 3, untrusted: 3, full: mayBe},
		wrong: [][]string{
			{"x"},
			{"--people", "1"},
			{"--people", "many"},
			{"--days", "0"},
			{"--seed", "0"},
			{"--pace", "0"},
			{"--runtime", "moon"},
			{"--identity", "moon"},
			{"--listen", "moon"},
		},
	},
	"status": {states: insideALab, wrong: [][]string{{"x"}, {"-o", "yaml"}}},
	"play": {right: []string{"leaked-secret"}, states: insideALab,
		wrong: [][]string{{}, {"a", "b"}, {"leaked-secret", "--step", "--now"}, {"leaked-secret", "--speed", "fast"}}},
	"scenario": {states: withoutALab, wrong: [][]string{{"x"}, {"lnit"}}},
	"scenario lint": {
		right:  []string{"leaked-secret"},
		states: withoutALab,
		wrong:  [][]string{{}, {"no-such"}, {"./no.yaml"}},
	},
	"seed": {states: insideALab, wrong: [][]string{{"x"}}},
	"people": {states: insideALab,
		wrong: [][]string{{"x"}, {"-o", "yaml"}, {"--level", "purple"}, {"--role", "wizard"}}},
	"link": {states: insideALab, wrong: [][]string{{"a", "b"}, {"a", "--class", "FILE"}, {"--class", "no-such-file"},
		{"a", "--role", "admin"}, {"--role", "wizard"}}},
	"certificate": {states: withoutALab, wrong: [][]string{{"x"}, {"isue"}}},
	"certificate issue": {right: []string{"a"}, states: insideALab,
		wrong: [][]string{{}, {"a", "--class", "FILE"}, {"a", "--role", "admin"}, {"--role", "wizard"}}},
	"certificate revoke": {right: []string{"a"}, states: insideALab,
		wrong: [][]string{{}, {"a", "--class", "FILE"}, {"a", "--role", "admin"}, {"--role", "wizard"}}},
	"open": {states: insideALab, wrong: [][]string{{"a", "b"}, {"a", "--as", "b"}, {"--as", "a", "--class", "FILE"},
		{"--revoke"}, {"--role", "wizard"}, {"--class", "no-such-file"}}},
	"package-chart": {right: []string{os.TempDir()}, states: withoutALab, wrong: [][]string{{}, {"a", "b"}},
		cannot: []string{"DENIED/c"}},
	"logs": {right: []string{"lms"}, states: insideALab, wrong: [][]string{{}, {"a", "b"}}},
	"bundle": {
		states: states{none: 3, homeless: 3, untrusted: 3, full: 3},
		wrong:  [][]string{{"x"}},
		cannot: []string{"--to", "DENIED/b"},
	},
	"matrix": {states: insideALab, wrong: [][]string{{"x"}, {"-o", "yaml"}, {"--against", "moon"}}},
	"audit":  {states: withoutALab, wrong: [][]string{{"x"}, {"verfy"}}},

	"audit verify": {states: insideALab, wrong: [][]string{{"x"}}},
	"audit tail":   {states: insideALab, wrong: [][]string{{"a", "b"}}},
	"audit export": {states: insideALab, wrong: [][]string{{"x"}}},
	"audit rescore": {right: []string{"a", "--at", "2026-10-01T10:04:00Z", "--as-of", "1"}, states: insideALab,
		wrong: [][]string{{}, {"a"}, {"a", "--at", "noon", "--as-of", "1"}, {"a", "--at", "2026-10-01T10:04:00Z"}}},
	"eval": {right: []string{"--seeds", "7", "--people", "2", "--days", "1"}, states: withoutALab,
		wrong:  [][]string{{"x"}, {"-o", "yaml"}, {"--seeds", "x"}, {"--mix", "x"}, {"--people", "0"}},
		cannot: []string{"--seeds", "7", "--people", "2", "--days", "1", "--dump", "DENIED/d"}},
	"bench": {
		right: []string{"synth", "--rounds", "1", "--to", os.DevNull},
		states: states{none: mayBe, silent: mayBe, foreign: mayBe,
			broken: mayBe, homeless: mayBe, untrusted: mayBe, full: mayBe}, // it measures; TestBench… runs it
		wrong: [][]string{{"luck"}, {"synth", "--rounds", "0"}, {"synth", "-o", "yaml"}},
	},
	"reset": {
		states: insideALab,
		wrong:  [][]string{{"a", "b"}, {"a", "--learners", "--yes"}, {"--learners"}, {"--yes"}, {"--to", "."}},
	},
	"restart": {right: []string{"lms"}, states: insideALab, wrong: [][]string{{}, {"a", "b"}, {"lms", "-o", "yaml"}}},
	"dev":     {right: []string{"lms"}, states: insideALab, wrong: [][]string{{}, {"a", "b"}}},
	"debug":   {right: []string{"lms"}, states: insideALab, wrong: [][]string{{}, {"a", "b"}}},
	// It prints everything on stderr.
	"down": {
		states: states{silent: 0, foreign: 3, broken: 3, homeless: 3, untrusted: 3},
		wrong:  [][]string{{"x"}},
	},
	"version":    {states: withoutALab, wrong: [][]string{{"x"}}},
	"completion": {right: []string{"bash"}, states: withoutALab, wrong: [][]string{{}, {"csh"}, {"bash", "zsh"}}},
	"help": {
		right:  []string{"up"},
		states: withoutALab,
		wrong:  [][]string{{"nope"}, {"audit", "nope"}, {"up", "x"}},
	},
	"man": {right: []string{"PAGES"}, wrong: [][]string{{}, {"a", "b"}}, cannot: []string{"DENIED/man"}},
	"supervise": {right: []string{"/nowhere"}, wrong: [][]string{{}, {"a", "b"}},
		states: states{none: 3, silent: 3, foreign: 3, broken: 3, homeless: 3, untrusted: 3, full: 3}},
}

// everyVerb returns the path of each verb, including hidden ones.
func everyVerb() []string {
	root := command()
	root.InitDefaultHelpCmd()
	var paths []string
	var walk func(c *cobra.Command, path string)
	walk = func(c *cobra.Command, path string) {
		paths = append(paths, path)
		for _, sub := range c.Commands() {
			walk(sub, strings.TrimSpace(path+" "+sub.Name()))
		}
	}
	walk(root, "")
	return paths
}

// TestEveryVerbStandsInTheTableOfExitCodes compares the table with the verbs in both directions.
func TestEveryVerbStandsInTheTableOfExitCodes(t *testing.T) {
	verbs := everyVerb()
	for _, v := range verbs {
		if _, ok := exits[v]; !ok {
			t.Errorf("lab %s is not in the table of exit codes", v)
		}
	}
	for v := range exits {
		if !slices.Contains(verbs, v) {
			t.Errorf("there is no lab %s", v)
		}
	}
}

// stage has labs' folders in the states that a verb may find, and a user who is not root.
type stage struct {
	t       *testing.T
	program string
	dir     string // private
	open    string // a labs' folder that other users can change
	denied  string // a folder that the user cannot change
	who     *syscall.SysProcAttr
}

func newStage(t *testing.T) stage {
	t.Helper()
	s := stage{t: t, dir: needtest.PrivateDir(t), open: filepath.Join(t.TempDir(), "open")}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.program = filepath.Join(s.dir, "program")
	if os.Link(self, s.program) != nil {
		b, err := os.ReadFile(self)
		if err == nil {
			err = os.WriteFile(s.program, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.denied = filepath.Join(s.dir, "denied")
	home := filepath.Join(s.dir, "home")
	lab := func(name, settings string) {
		folder := filepath.Join(home, "labs", name)
		if err := errors.Join(os.MkdirAll(filepath.Join(folder, "keys"), 0o711),
			os.WriteFile(filepath.Join(folder, "topology.yaml"), manifests.Topology(), 0o644),
			os.WriteFile(filepath.Join(folder, "lab.json"), []byte(settings), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range scenarios.Shipped().Topology.Workloads { // up looks for them, and gets no further
		if err := os.WriteFile(filepath.Join(s.dir, cmp.Or(w.Binary, "none")), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.MkdirAll(home, 0o711), os.Mkdir(s.denied, 0o555), os.Mkdir(s.open, 0o777),
		os.Chmod(s.open, 0o777)); err != nil {
		t.Fatal(err)
	}
	const local = `{"runtime": "local", "host": "127.0.0.249",
		"spec": {"name": "silent", "people": 50, "seed": 42, "days": 30, "pace": 10, "identity": "auto"}}`
	lab("silent", local)
	lab("ending", local)
	lab("foreign", strings.Replace(local, `"local"`, `"moon"`, 1))
	lab("broken", "{")
	if err := os.WriteFile(filepath.Join(home, "class.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // root can write everywhere, and needs no HOME
		s.who = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, 65534, 65534))
		}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s stage) home() string { return filepath.Join(s.dir, "home") }

// args replaces the words in capitals by paths.
func (s stage) args(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		a = strings.Replace(a, "FILE", filepath.Join(s.home(), "class.txt"), 1)
		a = strings.Replace(a, "PAGES", filepath.Join(s.home(), "man"), 1)
		out[i] = strings.Replace(a, "DENIED", s.denied, 1)
	}
	return out
}

// run runs a verb in a process of its own, and returns its exit code and stderr.
func (s stage) run(out *os.File, env []string, args ...string) (int, string) {
	s.t.Helper()
	args = s.args(args)
	cmd := exec.CommandContext(s.t.Context(), s.program, args...)
	cmd.Dir, cmd.SysProcAttr = s.home(), s.who
	cmd.Env = append(
		[]string{asLab + "=1", "PATH=/usr/bin:/bin", "LAB_ARTIFACTS=" + filepath.Join(s.home(), "artifacts")},
		env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if out != nil {
		cmd.Stdout = out
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode(), errs.String()
	case err != nil:
		s.t.Fatalf("run %v: %v", args, err)
	}
	return 0, errs.String()
}

// TestExitCodesAreAsDesignedForEveryVerbAndClassOfFailure needs no lab. e2e tests the classes that need one.
func TestExitCodesAreAsDesignedForEveryVerbAndClassOfFailure(t *testing.T) {
	needtest.Unhurried(t, "every verb in every state, each a process of its own")
	s := newStage(t)
	t.Setenv("LAB_HOME", filepath.Join(needtest.PrivateDir(t), "labs")) // this process may run as root
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		needtest.Lacks(t, needtest.DevFull, "%v", err)
	}
	defer full.Close()
	home := []string{"HOME=" + s.home(), "LAB_HOME=" + filepath.Join(s.home(), "labs")}
	open := []string{"HOME=" + s.home(), "LAB_HOME=" + s.open}
	for _, verb := range everyVerb() {
		row := exits[verb]
		words := strings.Fields(verb)
		check := func(class string, want int, out *os.File, env []string, more ...string) {
			t.Helper()
			if want == mayBe {
				return
			}
			line := strings.Join(slices.Concat([]string{"lab"}, words, more), " ")
			got, said := s.run(out, env, slices.Concat(words, more)...)
			if got != want || got != 0 && !strings.Contains(said, "lab: ") {
				t.Errorf("%s: %s: exit code %d, want %d, and why it failed\n%s", class, line, got, want, said)
			}
		}
		misuse(t, s, words, row.right, row.wrong, row.states == insideALab)
		in := func(name string) []string { return append(slices.Clone(row.right), "--name", name) }
		silent := "silent"
		if verb == "down" { // down removes it
			silent = "ending"
		}
		check("no lab", row.states.none, nil, home, in("none")...)
		check("no supervisor", row.states.silent, nil, home, in(silent)...)
		check("another runtime", row.states.foreign, nil, home, in("foreign")...)
		check("broken settings", row.states.broken, nil, home, in("broken")...)
		check("no HOME", row.states.homeless, nil, nil, row.right...)
		check("an untrusted folder", row.states.untrusted, nil, open, row.right...)
		if row.states.full != 0 {
			check("a full disk", row.states.full, full, home, in("none")...)
		}
		if row.cannot != nil {
			elsewhere := append(slices.Clone(row.cannot), "--name", "silent")
			check("a folder that may not be changed", lab.ExitPrecondition, nil, home, elsewhere...)
		}
	}
}

// misuse runs a verb with wrong arguments in this process. None may get as far as reading the labs' folder.
func misuse(t *testing.T, s stage, verb, right []string, wrong [][]string, named bool) {
	t.Helper()
	wrong = append(slices.Clone(wrong), append(slices.Clone(right), "--no-such-flag"))
	if named {
		wrong = append(wrong, append(slices.Clone(right), "--name", "No_Name"))
	}
	for _, args := range wrong {
		var out, said bytes.Buffer
		args = slices.Concat(verb, s.args(args))
		got := runTo(t.Context(), args, &out, &said)
		if got != lab.ExitUsage || !strings.HasPrefix(said.String(), "lab: ") {
			t.Errorf("wrong arguments: lab %v: exit code %d, want %d\n%s", args, got, lab.ExitUsage, said.String())
		}
	}
}

// The error for an obstacle on the machine has the cause and a command that helps.
func TestAFailureOfTheMachineSaysWhatToTry(t *testing.T) {
	s := newStage(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		needtest.Lacks(t, needtest.DevFull, "%v", err)
	}
	defer full.Close()
	labs := "LAB_HOME=" + filepath.Join(s.home(), "labs")
	for _, c := range []struct {
		args []string
		env  []string
		out  *os.File
		want []string
	}{
		{[]string{"version"}, nil, full, []string{"no space left on device", "df -h"}},
		{[]string{"status"}, nil, nil, []string{"nor HOME is set", "LAB_HOME="}},
		{[]string{"up", "--runtime", "local"}, []string{"LAB_HOME=" + filepath.Join(s.denied, "labs")}, nil,
			[]string{"permission denied", "LAB_HOME="}},
		{[]string{"status", "--name", "broken"}, []string{labs}, nil, []string{"lab.json", "lab bundle --name broken"}},
		{[]string{"status", "--name", "foreign"}, []string{labs}, nil, []string{`"moon"`, "try:"}},
		{[]string{"up", "--name", "foreign"}, []string{labs}, nil, []string{`"moon"`, "try:"}},
	} {
		got, said := s.run(c.out, c.env, c.args...)
		for _, want := range c.want {
			if got != lab.ExitPrecondition || !strings.Contains(said, want) {
				t.Errorf("lab %v: exit code %d, want %d and %q in\n%s", c.args, got, lab.ExitPrecondition, want, said)
			}
		}
	}
}

// A lab keeps its runtime and its company. Asking for another one is a conflict.
func TestAnotherRuntimeUnderTheSameNameIsAConflict(t *testing.T) {
	s := newStage(t)
	home := []string{"HOME=" + s.home(), "LAB_HOME=" + filepath.Join(s.home(), "labs")}
	if got, said := s.run(nil, home, "up", "--runtime", "kind", "--name", "silent"); got != lab.ExitConflict {
		t.Errorf("exit code %d, want %d\n%s", got, lab.ExitConflict, said)
	}
}

// An interrupted verb exits with 130 and prints nothing else.
func TestAnInterruptedVerbEndsWith130(t *testing.T) {
	s := newStage(t)
	dump := filepath.Join(s.home(), "dump")
	cmd := exec.CommandContext(t.Context(), s.program, "eval", "--seeds", "1000-1999", "--people", "50", "--dump", dump)
	cmd.Dir, cmd.SysProcAttr, cmd.Env = s.home(), s.who, []string{asLab + "=1", "HOME=" + s.home()}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for made := 0; made == 0; { // until it has begun to work
		entries, err := os.ReadDir(dump)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		made = len(entries)
		if cmd.ProcessState != nil || t.Context().Err() != nil {
			t.Fatal("it ended too soon: this proves nothing")
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != lab.ExitInterrupted {
		t.Errorf("%v, want exit code %d", err, lab.ExitInterrupted)
	}
	if got := said.String(); !strings.HasPrefix(got, "lab: interrupted") || strings.Contains(got, "context canceled") {
		t.Errorf("it said %q", got)
	}
}
