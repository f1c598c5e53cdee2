package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/security-training/lab"
)

const misspelt = `title: A proof that proves nothing
teaches: [authentication]
attack: [T1199]
difficulty: 1
minutes: 5
cast: {nina: {role: devsecops_engineer}}
brief: An author misspelt a name.
hints: [{cost: 10, text: Read the names.}]
timeline:
- {at: 9h1m, who: nina, source: git, record: {event: commit, repository: policy-as-code}}
expect:
- {call: git-colector -> llm-gateway, route: POST /v1/generate, outcome: Refused}
- {at: 9h20m, who: nina, level: LOW}
debrief: Nothing was proven.
`

// It needs no lab, and has the exit code of wrong input.
func TestLintNamesTheLineOfAMisspeltCaller(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("LAB_HOME", filepath.Join(dir, "no-lab"))
	bad, good := filepath.Join(dir, "bad.yaml"), filepath.Join(dir, "good.yaml")
	for path, text := range map[string]string{
		bad: misspelt, good: strings.Replace(misspelt, "git-colector", "git-collector", 1),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lint := func(args ...string) (out string, err error) {
		c := command()
		var b bytes.Buffer
		c.SetOut(&b)
		c.SetArgs(append([]string{"scenario", "lint"}, args...))
		err = c.ExecuteContext(t.Context())
		return b.String(), err
	}
	out, err := lint(good, bad, "stranger-at-the-door", filepath.Join(dir, "none.yaml"), dir+"/.")
	if err == nil || !strings.Contains(out, "✓ "+good) || !strings.Contains(out, "✓ stranger-at-the-door") ||
		strings.Contains(out, "✓ "+bad) {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		`line 12: call "git-colector -> llm-gateway": topology lists no workload "git-colector"; did you mean git-collector?`,
		"none.yaml: no such file", "is no file",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in:\n%v", want, err)
		}
	}
	for _, args := range [][]string{{bad}, {filepath.Join(dir, "none.yaml")}, {"no-such-scenario"}, {}} {
		if got := run(t.Context(), append([]string{"scenario", "lint"}, args...)); got != lab.ExitUsage {
			t.Errorf("lint %v: exit code %d, want %d", args, got, lab.ExitUsage)
		}
	}
	if got := run(t.Context(), []string{"scenario", "lint", good}); got != 0 {
		t.Errorf("a scenario without a fault: exit code %d", got)
	}
}
