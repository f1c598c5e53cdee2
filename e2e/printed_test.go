package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
)

// printed are the commands that README, ARCHITECTURE, CONTRIBUTING, `lab help` of every verb and the pages print, each
// with the place that prints it.
func printed(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	add := func(command, where string) {
		command, _, _ = strings.Cut(command, " #")
		command = strings.TrimSpace(command)
		first, rest, _ := strings.Cut(command, " ")
		if slices.Contains([]string{"bin/lab", "lab", "make", "sudo", "docker", "ss", "eval", "go"}, first) && rest != "" {
			found[strings.TrimPrefix(command, "bin/")] = where // a clone's bin/lab is the lab of the help
		}
	}
	span := regexp.MustCompile("`([^`]+)`")
	for _, document := range []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"} {
		text, err := os.ReadFile("../" + document)
		if err != nil {
			t.Fatal(err)
		}
		fenced := false
		for line := range strings.Lines(string(text)) {
			switch {
			case strings.HasPrefix(line, "```"):
				fenced = !fenced
			case fenced:
				add(line, document)
			default:
				for _, m := range span.FindAllStringSubmatch(line, -1) {
					add(m[1], document)
				}
			}
		}
	}
	var help func(path ...string)
	help = func(path ...string) {
		out, err := exec.CommandContext(t.Context(), filepath.Join(l.bin, "lab"), append([]string{"help"}, path...)...).
			Output()
		if err != nil {
			t.Fatalf("lab help %v: %v", path, err)
		}
		section := ""
		for line := range strings.Lines(string(out)) {
			line = strings.TrimRight(line, "\n")
			switch {
			case line != "" && line[0] != ' ':
				section = line
			case section == "Examples:":
				add(line, "lab help "+strings.Join(path, " "))
			case section == "Available Commands:" && strings.TrimSpace(line) != "":
				if verb := strings.Fields(line)[0]; verb != "help" {
					help(append(slices.Clone(path), verb)...)
				}
			}
		}
	}
	help()
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("<code>(lab [^<{]+)</code>").FindAllStringSubmatch(string(text), -1) {
			add(m[1], filepath.Base(page))
		}
	}
	return found
}

func pages(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("../services/lms/site/templates/*.html")
	if err != nil || len(all) < 10 {
		t.Fatalf("%d pages, %v", len(all), err)
	}
	return all
}

// commandsRun are the printed commands that a shell runs as printed, in this order, in a folder of their own. A command
// may read what an earlier one has written. Words in capitals stand for values that the reader fills in.
var commandsRun = []struct {
	command string
	follows bool  // it goes on until it is interrupted, once it has printed something
	codes   []int // that it may exit with; 0 alone where there is none
}{
	{command: "lab version"},
	{command: "lab version -o json"},
	{command: "lab doctor", codes: []int{0, lab.ExitPrecondition}},
	{command: "lab doctor -o json", codes: []int{0, lab.ExitPrecondition}},
	{command: "lab doctor --runtime kind", codes: []int{0, lab.ExitPrecondition}},
	{command: "lab status"},
	{command: "lab status -o env"},
	{command: `eval "$(lab status -o env)"`},
	{command: "lab status -o json | jq -r '.workloads[].spiffe_id'"},
	{command: "lab people"},
	{command: "lab people -o json"},
	{command: "lab people --level HIGH --role sre"},
	{command: "lab people --level HIGH -o json"},
	{command: "lab people --level CRITICAL -o ids > class.txt"},
	{command: "lab open"},
	{command: "lab open --role admin"},
	{command: "lab open --as elisabeth.reese"},
	{command: "lab open --class class.txt"},
	{command: "lab link"},
	{command: "lab link --role admin"},
	{command: "lab link elisabeth.reese"},
	{command: "lab link PERSON"},
	{command: "lab link --class class.txt"},
	{command: "lab link --class FILE"},
	{command: "lab certificate issue PERSON"},
	{command: "lab certificate issue elisabeth.reese"},
	{command: "lab certificate issue --role admin --to ."},
	{command: "lab certificate revoke PERSON"},
	{command: "lab certificate revoke elisabeth.reese"},
	{command: "lab completion bash"},
	{command: "lab completion zsh"},
	{command: "lab completion fish"},
	{command: "lab open --certificate elisabeth.reese"},
	{command: "lab open --certificate elisabeth.reese --revoke"},
	{command: "lab scenario lint lab/scenarios/leaked-secret.yaml"},
	{command: "lab scenario lint stranger-at-the-door"},
	{command: "lab play leaked-secret"},
	{command: "lab play stranger-at-the-door"},
	{command: "lab play compromised-account --step"},
	{command: "lab play lab/scenarios/leaked-secret.yaml --speed 300"},
	{command: "lab matrix"},
	{command: "lab matrix --caller lms --callee llm-gateway"},
	{command: "lab matrix --against running"},
	{command: "lab matrix -o json"},
	{command: "lab matrix -o html > matrix.html"},
	{command: "lab logs llm-gateway -f", follows: true},
	{command: "lab logs risk-scorer"},
	{command: "lab logs supervisor"},
	{command: "lab logs WORKLOAD"},
	{command: "lab restart risk-scorer"},
	{command: "lab restart lms"},
	{command: "lab restart lms -o json"},
	{command: "lab restart WORKLOAD"},
	{command: "lab debug risk-scorer", codes: []int{0, lab.ExitPrecondition}}, // elsewhere than in a clone it says so
	{command: "lab debug lms", codes: []int{0, lab.ExitPrecondition}},
	{command: "lab debug WORKLOAD", codes: []int{0, lab.ExitPrecondition}},
	{command: "lab audit verify"},
	{command: "lab audit tail", follows: true},
	{command: "lab audit tail llm-gateway", follows: true},
	{command: "lab audit export > audit.jsonl"},
	{command: "lab audit rescore elisabeth.reese --at 2026-10-01T10:04:00.123456Z --as-of 1000"},
	{command: "lab bundle"},
	{command: "lab bundle --to lab.tar.gz"},
	{command: "lab eval --seeds 7,11,13 --people 200 --dump out"},
	{command: "lab seed"},
	{command: "lab reset leaked-secret"},
	{command: "lab reset"},
	{command: "lab reset --learners --yes"},
	{command: "lab reset --learners --yes --to ."},
}

// commandsParsed are the printed commands that are not run here, each with the reason. The test still parses commands
// of the lab, with --help added, and looks up targets of make.
var commandsParsed = map[string]string{
	"lab up --runtime local": "brings up a lab of the name of a reader's own; the suite's was " +
		"brought up by it",
	"lab up --runtime cluster":            "needs a cluster: TestEveryPrintedCommandWorks",
	"lab bench":                           "takes minutes; the tests of lab/bench measure",
	"lab bench handshake requests":        "takes minutes; the tests of lab/bench measure",
	"lab bench score --rounds 15 -o json": "takes minutes; the tests of lab/bench measure",
	"lab eval":                            "takes minutes; with fewer seeds it is run",
	"lab eval --mix sparse -o json":       "takes minutes; with fewer seeds it is run",
	"lab dev lms": "follows the source of a clone: " +
		"TestASavedFileRunsWithinTenSecondsAndABrokenOneChangesNothing",
	"make dev W=lms":              "builds, then lab dev",
	"make build":                  "builds what is under test",
	"make unit":                   "this test is one of those that CI runs with it",
	"make lint":                   "CI runs it",
	"make check":                  "this test is one of those",
	"make golden":                 "writes into the source",
	"make web-checks":             "CI runs it",
	"go test ./services/mesh/...": "CI runs it",
	"go test ./lab/scenarios":     "CI runs it",
	"go test ./e2e -run TestEachScenarioHolds": "CI runs it",
	"make release": "takes minutes: TestTheReleasesArchivesHoldWhatTheyShould",
	"lab restart supervisor": "starts every workload again: " +
		"TestARestartOfTheSupervisorKeepsWhatTheLabKeeps",
	"lab up": "brings up a lab of the name of a reader's own; the suite's was " +
		"brought up by it",
	"lab up --listen ADDR":                       "opens a port to a room: TestARoomIsServedWhereItIsSaid",
	"lab up --name second --people 200 --seed 7": "brings up a lab of the name of a reader's own",
	"lab down":                           "ends a reader's own lab; the suite's is ended by it",
	"lab down --all":                     "ends a reader's own lab, and removes what other labs start from",
	"lab down --name second":             "ends a reader's own lab",
	"make lab-up":                        "builds, then lab up",
	"make lab-up RUNTIME=kind":           "builds, then lab up; needs Docker",
	"make test":                          "this test is one of those",
	"make e2e-kind":                      "this test is one of those",
	"docker pull":                        "names a verb of Docker's",
	"sudo apt-get install -y postgresql": "installs",
	"ss -ltnp 'sport = :8080'":           "is another package's",
}

// TestEveryPrintedCommandWorksOnTheStandardCompany runs the commands that README and the help print, in a folder that
// has bin and lab like a clone. It fails for a printed command that is in neither list, and for a listed command that
// is not printed.
func TestEveryPrintedCommandWorksOnTheStandardCompany(t *testing.T) {
	where := printed(t)
	for command := range where {
		listed := slices.ContainsFunc(commandsRun, func(r struct {
			command string
			follows bool
			codes   []int
		}) bool {
			return r.command == command
		})
		if _, parsed := commandsParsed[command]; listed == parsed {
			t.Errorf("%s prints %q, which is to be in one of the two lists", where[command], command)
		}
	}
	for _, r := range commandsRun {
		if where[r.command] == "" {
			t.Errorf("nothing prints %q", r.command)
		}
	}
	for command := range commandsParsed {
		if where[command] == "" {
			t.Errorf("nothing prints %q", command)
		}
	}
	if t.Failed() {
		return
	}
	dir, shell := clone(t)
	for _, command := range slices.Sorted(maps.Keys(commandsParsed)) {
		switch words := strings.Fields(command); words[0] {
		case "lab":
			out, err := shell(command + " --help").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "Usage:\n  lab "+words[1]) {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		case "make":
			cmd := exec.CommandContext(t.Context(), "make", append([]string{"-n"}, words[1:]...)...)
			cmd.Dir = ".."
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		case "go":
			packagesTested(t, words)
		}
	}
	for _, r := range commandsRun {
		began := time.Now()
		words := r.command
		if _, err := exec.LookPath("jq"); err != nil {
			words, _, _ = strings.Cut(words, " | jq") // a reader has it
		}
		for placeholder, word := range map[string]string{
			"PERSON": "elisabeth.reese", "FILE": "class.txt", "WORKLOAD": "lms",
		} {
			words = regexp.MustCompile(`\b`+placeholder+`\b`).ReplaceAllString(words, word)
		}
		cmd := shell(words)
		cmd.Stdin = strings.NewReader(strings.Repeat("\n", 200)) // Enter, wherever it is waited for
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		var err error
		if r.follows {
			err = follow(cmd)
		} else {
			err = cmd.Run()
		}
		if !slices.Contains(append(r.codes, 0)[:max(1, len(r.codes))], code(err)) || err != nil && code(err) == 0 {
			t.Errorf("%s prints %q: %v\n%s", where[r.command], r.command, err, out.String())
		}
		t.Logf("%s: %.1f s", r.command, time.Since(began).Seconds())
	}
	if link, err := shell(
		`eval "$(lab status -o env)" && test -d "$LAB_FOLDER" && echo "$LAB_DASHBOARD"`,
	).Output(); err != nil ||
		strings.TrimSpace(string(link)) != l.st.Dashboard {
		t.Errorf("the variables of status: %q, %v", link, err)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "elisabeth.reese.p12")); err != nil || len(files) != 1 {
		t.Errorf("certificates %v, %v", files, err)
	}
	awaitHealthy(t)
}

// packagesTested checks that the packages of a printed `go test` exist, and the test that it names, if it names one.
func packagesTested(t *testing.T, words []string) {
	t.Helper()
	i := slices.Index(words, "-run")
	packages := words[2:]
	if i > 0 {
		packages = words[2:i]
	}
	list := exec.CommandContext(t.Context(), "go", append([]string{"list", "-f", "{{.Dir}}"}, packages...)...)
	list.Dir = ".."
	out, err := list.Output()
	if err != nil || len(out) == 0 {
		t.Errorf("%v: %v, %q", words, err, out)
		return
	}
	if i < 0 {
		return
	}
	for _, dir := range strings.Fields(string(out)) {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), "func "+words[i+1]+"(") {
				return
			}
		}
	}
	t.Errorf("%v: there is no such test", words)
}

// clone makes a folder like a clone with built programs, and a shell in it whose commands use the lab under test.
func clone(t *testing.T) (dir string, shell func(command string) *exec.Cmd) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(
		"#!/bin/sh\nfor word; do [ \"$word\" = --name ] && exec '%[1]s' \"$@\"; done\nexec '%[1]s' \"$@\" --name '%[2]s'\n",
		filepath.Join(l.bin, "lab"),
		l.name,
	)
	if err := os.WriteFile(filepath.Join(dir, "bin", "lab"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	tree, err := filepath.Abs("../lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(tree, filepath.Join(dir, "lab")); err != nil {
		t.Fatal(err)
	}
	return dir, func(command string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
		cmd.Dir = dir
		path := filepath.Join(dir, "bin") + string(os.PathListSeparator) + os.Getenv("PATH")
		cmd.Env = append(os.Environ(), "PATH="+path, "LAB_ARTIFACTS="+dir) // where a bundle is no reader's own
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		return cmd
	}
}

// follow starts a command, waits for its first output, and interrupts it. The interrupt is not an error.
func follow(cmd *exec.Cmd) error {
	out := cmd.Stdout
	cmd.Stdout = nil
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	some := make([]byte, 4096)
	n, err := lines.Read(some)
	if _, written := out.Write(some[:n]); n == 0 || written != nil {
		return errors.Join(err, written, cmd.Wait(), errors.New("it printed nothing"))
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil && code(err) != lab.ExitInterrupted && code(err) != -1 {
		return err
	}
	return nil
}

// An error about an unknown name says how to find the known ones.
func TestAnUnknownPersonSaysHowToFindOne(t *testing.T) {
	for _, args := range [][]string{
		{"open", "--as", "mira.none"}, {"open", "--certificate", "mira.none"}, {"open", "mira.none"},
		{"audit", "rescore", "mira.none", "--at", "2026-10-01T10:04:00Z", "--as-of", "1000"},
	} {
		out, err := command(t.Context(), l.name, args...).run()
		if code(err) != lab.ExitUsage || !strings.Contains(out, "lab people") {
			t.Errorf("%v: %v, want exit %d and how to find one\n%s", args, err, lab.ExitUsage, out)
		}
	}
	if out, err := command(t.Context(), l.name, "people", "--level", "purple").run(); code(err) != lab.ExitUsage {
		t.Errorf("people of no level: %v\n%s", err, out)
	}
	if out, err := command(t.Context(), l.name, "people", "--role", "wizard").run(); code(err) != lab.ExitUsage {
		t.Errorf("people of no role: %v\n%s", err, out)
	}
}
