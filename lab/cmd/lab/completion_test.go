package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"example.org/security-training/lab"
	"example.org/security-training/services/env/needtest"
)

// typed has what a user has typed before Tab, and what a shell must then offer and not offer.
var typed = []struct {
	line string
	want []string
	none []string
}{
	{"lab sta", []string{"status"}, []string{"play"}},
	{"lab cert", []string{"certificate"}, nil},
	{"lab certificate ", []string{"issue", "revoke"}, []string{"verify"}},
	{"lab audit ", []string{"verify", "tail", "export", "rescore"}, []string{"issue"}},
	{"lab play ", []string{"leaked-secret", "stranger-at-the-door"}, []string{"lms"}},
	{"lab logs ll", []string{"llm-gateway"}, nil},
	{"lab logs sup", []string{"supervisor"}, nil},
	{"lab up --run", []string{"--runtime"}, []string{"--people"}},
	{"lab up --runtime ", []string{"auto", "local", "kind", "cluster"}, nil},
	{"lab status -o j", []string{"json"}, nil},
	{"lab matrix --caller for", []string{"forged"}, nil},
	{"lab status --name sil", []string{"silent"}, []string{"broken"}},
	{"lab link --name silent elisabeth.r", []string{"elisabeth.reese"}, nil},
	{"lab certificate issue --name silent elisabeth.r", []string{"elisabeth.reese"}, nil},
	{"lab completion ", []string{"bash", "zsh", "fish"}, nil},
	{"lab help aud", []string{"audit"}, nil},
}

// shells has for each shell a script that prints the completions of the line in $1, one a line.
var shells = map[string]struct{ words, script string }{
	// First without the package bash-completion, and then with it if it is installed.
	"bash": {"bash --norc", `source <(lab completion bash) || exit; ` + askBash},
	"bash with its package": {
		"bash --norc",
		`[ -r /usr/share/bash-completion/bash_completion ] || { echo "skip bash-completion"; exit; }
		source /usr/share/bash-completion/bash_completion; source <(lab completion bash) || exit; ` + askBash,
	},
	"zsh": {"zsh -f", `autoload -Uz compinit; compinit -u -d "$HOME/dump"; source <(lab completion zsh) || exit
		# zsh shows those of what _describe is given that begin with the word.
		_describe() { local name; for name in "$@"; do case $name in completions|noSpaceCompletions)
			print -rl -- "${(@M)${(@P)name}:#${words[-1]}*}";; esac; done; return 0 }
		compdef() { :; }
		words=(${(z)1}); [[ $1 == *' ' ]] && words+=(''); CURRENT=${#words}; _lab`},
	"fish": {"fish --no-config", `lab completion fish | source; complete -C "$argv[1]"`},
}

const askBash = `COLUMNS=80; COMP_LINE=$1; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMP_KEY=9
	read -ra COMP_WORDS <<<"$COMP_LINE"; [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=("")
	COMP_CWORD=$((${#COMP_WORDS[@]}-1))
	how=$(complete -p lab); f=${how#*-F }; f=${f%% *}; compopt() { :; }
	$f lab "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"; printf '%s\n' "${COMPREPLY[@]}"`

// Each installed shell runs what `lab completion` prints.
func TestShellsCompleteVerbsFlagsAndNames(t *testing.T) {
	needtest.Unhurried(t, "three shells start the program for each line")
	s := newStage(t)
	bin := filepath.Join(s.dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.program, filepath.Join(bin, "lab")); err != nil {
		t.Fatal(err)
	}
	for name, shell := range shells {
		t.Run(name, func(t *testing.T) {
			words := strings.Fields(shell.words)
			path := needtest.Shell(t, words[0])
			for _, c := range typed {
				cmd := exec.CommandContext(
					t.Context(),
					path,
					slices.Concat(words[1:], []string{"-c", shell.script}, arg0(words[0]), []string{c.line})...)
				cmd.Dir, cmd.SysProcAttr = s.home(), s.who
				cmd.Env = []string{
					asLab + "=1",
					"PATH=" + bin + ":/usr/bin:/bin",
					"HOME=" + s.home(),
					"TERM=dumb",
					"LC_ALL=C.UTF-8",
					"LAB_HOME=" + filepath.Join(s.home(), "labs"),
				}
				var errs bytes.Buffer
				cmd.Stderr = &errs
				out, err := cmd.Output()
				if package_, missing := strings.CutPrefix(string(out), "skip "); missing {
					needtest.Lacks(t, needtest.Shells, "%s is not installed", strings.TrimSpace(package_))
				}
				offered := map[string]bool{}
				for line := range strings.Lines(string(out)) {
					word, _, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, ":", "\t")), "\t")
					word, _, _ = strings.Cut(word, " ")
					offered[word] = true
				}
				for _, want := range c.want {
					if !offered[want] {
						t.Errorf("%q: %q is not offered: %v\n%s\n%s", c.line, want, err, out, errs.String())
					}
				}
				for _, not := range c.none {
					if offered[not] {
						t.Errorf("%q: %q is offered\n%s", c.line, not, out)
					}
				}
			}
		})
	}
}

// arg0 is the name that shells other than fish take before the arguments.
func arg0(shell string) []string {
	if shell == "fish" {
		return nil
	}
	return []string{shell}
}

// The help names every value that is completed, and the verb accepts it. Every verb and flag in the tables exists.
func TestWhatIsCompletedIsTaken(t *testing.T) {
	t.Setenv("LAB_HOME", filepath.Join(needtest.PrivateDir(t), "labs"))
	verbs := everyVerb()
	for _, path := range slices.Concat(slices.Collect(maps.Keys(places)), files, many) {
		if !slices.Contains(verbs, path) {
			t.Errorf("there is no lab %s to complete", path)
		}
	}
	for path, flags := range choices {
		c, _, err := command().Find(strings.Fields(path))
		if err != nil || c.CommandPath() != "lab "+path {
			t.Errorf("lab %s: %v", path, err)
			continue
		}
		for flag, of := range flags {
			f := c.Flags().Lookup(flag)
			if f == nil {
				t.Errorf("lab %s has no --%s", path, flag)
				continue
			}
			for _, value := range of(c) {
				if flag != "role" && flag != "level" && !strings.Contains(f.Usage, value) {
					t.Errorf("the help of lab %s --%s does not name %s: %q", path, flag, value, f.Usage)
				}
				if slices.Contains([]string{"up", "doctor", "eval", "bench"}, path) {
					continue // running it would have effects
				}
				var out, errs bytes.Buffer
				if got := runTo(
					t.Context(),
					append(strings.Fields(path), "--"+flag, value),
					&out,
					&errs,
				); got == lab.ExitUsage {
					t.Errorf("lab %s --%s %s is not taken: %s", path, flag, value, errs.String())
				}
			}
		}
	}
}

// The manual has a page for each verb in the help, with the same texts, and no others.
func TestTheManualHasAPageForEachVerb(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	var out, errs bytes.Buffer
	if got := runTo(t.Context(), []string{"man", dir}, &out, &errs); got != 0 {
		t.Fatalf("exit code %d: %s", got, errs.String())
	}
	want := map[string]*cobra.Command{}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		want[strings.ReplaceAll(c.CommandPath(), " ", "-")+".1"] = c
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				walk(sub)
			}
		}
	}
	walk(command())
	plain := strings.NewReplacer(
		`\-`,
		"-",
		`\&`,
		"",
		`\fB`,
		"",
		`\fI`,
		"",
		`\fP`,
		"",
		`\(aq`,
		"'",
		`\'`,
		"'",
		`\.`,
		".",
		`\\`,
		`\`,
	)
	entries, err := fs.Glob(os.DirFS(dir), "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range entries {
		if want[name] == nil {
			t.Errorf("%s is of no verb", name)
		}
	}
	mandoc, err := exec.LookPath("mandoc")
	lint := err == nil
	for name, c := range want {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		said := plain.Replace(string(text))
		for _, w := range []string{c.Short, strings.TrimSpace(strings.SplitN(c.Example, "\n", 2)[0])} {
			if !strings.Contains(flat(said), flat(w)) {
				t.Errorf("%s does not say %q:\n%s", name, w, said)
			}
		}
		if lint {
			if out, err := exec.CommandContext(
				t.Context(),
				mandoc,
				"-T",
				"lint",
				"-W",
				"error",
				filepath.Join(dir, name),
			).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	}
	if !lint {
		t.Log("mandoc is not on PATH: the pages' form was not checked")
	}
}

func flat(s string) string { return regexp.MustCompile(`\s+`).ReplaceAllString(s, " ") }

// The error for a wrong word suggests the right one.
func TestAWrongWordIsAnsweredWithTheOneThatWasMeant(t *testing.T) {
	t.Setenv("LAB_HOME", filepath.Join(needtest.PrivateDir(t), "labs"))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"statsu"}, "did you mean status?"},
		{[]string{"audit", "verfy"}, "did you mean verify?"},
		{[]string{"help", "boundle"}, "did you mean bundle?"},
		{[]string{"help", "audit", "tial"}, "did you mean tail?"},
		{[]string{"up", "--runtim", "local"}, "did you mean --runtime?"},
		{[]string{"up", "--nmae", "x"}, "did you mean --name?"},
		{[]string{"scenario", "lint", "leaked-secrt"}, "did you mean leaked-secret?"},
		{[]string{"link", "--role", "admn"}, "did you mean admin?"},
	} {
		var out, errs bytes.Buffer
		if got := runTo(
			t.Context(),
			c.args,
			&out,
			&errs,
		); got != lab.ExitUsage ||
			!strings.Contains(errs.String(), c.want) {
			t.Errorf("lab %v: exit code %d, want %d and %q\n%s", c.args, got, lab.ExitUsage, c.want, errs.String())
		}
	}
}

// The flag and the verb print the same line.
func TestTheVersionIsAFlagAndAVerb(t *testing.T) {
	var verb, flag, errs bytes.Buffer
	if a, b := runTo(
		t.Context(),
		[]string{"version"},
		&verb,
		&errs,
	), runTo(
		t.Context(),
		[]string{"--version"},
		&flag,
		&errs,
	); a+b != 0 {
		t.Fatalf("exit codes %d and %d: %s", a, b, errs.String())
	}
	if flag.String() != fmt.Sprintln(version()) {
		t.Errorf("lab --version: %q, want one line", flag.String())
	}
	if number, _, _ := strings.Cut(version(), " "); !strings.Contains(verb.String(), number) {
		t.Errorf("lab version: %q, want %s among what it says", verb.String(), number)
	}
}
