package control

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/security-training/lab"
	"example.org/security-training/services/env"
)

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func code(err error) int {
	var e *lab.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func TestTheModelIsChosenByOneRule(t *testing.T) {
	const byDefault = "gemini-2.5-flash"
	for what, c := range map[string]struct {
		environment map[string]string
		want        Model
		code        int
	}{
		"nothing asked": {nil, Model{"stub", byDefault, ""}, 0},
		"a key": {map[string]string{
			"GEMINI_API_KEY_FILE": file(t, " k1\n"),
		}, Model{"gemini", byDefault, "k1"}, 0},
		"a key by value": {map[string]string{"GEMINI_API_KEY": "k2"}, Model{"gemini", byDefault, "k2"}, 0},
		"both: the file": {map[string]string{
			"GEMINI_API_KEY": "k2", "GEMINI_API_KEY_FILE": file(t, "k1"),
		}, Model{"gemini", byDefault, "k1"}, 0},
		"the stub with a key": {map[string]string{
			"GEMINI_API_KEY": "k2", "LLM_BACKEND": "stub",
		}, Model{"stub", byDefault, "k2"}, 0},
		"another model": {map[string]string{
			"GEMINI_API_KEY": "k2", "GEMINI_MODEL": "m",
		}, Model{"gemini", "m", "k2"}, 0},
		"gemini without a key": {map[string]string{"LLM_BACKEND": "gemini"}, Model{}, lab.ExitPrecondition},
		"an empty key":         {map[string]string{"GEMINI_API_KEY_FILE": file(t, "\n")}, Model{}, lab.ExitPrecondition},
		"a key that is not there": {
			map[string]string{"GEMINI_API_KEY_FILE": "/nowhere/key", "LLM_BACKEND": "stub"}, Model{}, lab.ExitPrecondition,
		},
		"an oracle": {map[string]string{"LLM_BACKEND": "oracle"}, Model{}, lab.ExitUsage},
	} {
		got, err := ModelOf(env.Map(c.environment))
		if err == nil {
			got, err = got.Choose()
		}
		if code(err) != c.code || c.code == 0 && (err != nil || got != c.want) {
			t.Errorf("%s: %+v, %v; want %+v, exit code %d", what, got, err, c.want, c.code)
		}
	}
}

func TestALabThatIsThereIsWhatWasAskedForOrRefused(t *testing.T) {
	keyed, other := map[string]string{"GEMINI_API_KEY": "k1"}, map[string]string{"GEMINI_API_KEY": "k2"}
	spec := lab.Spec{Name: "lab", People: 50, Seed: 42, Days: 30, Pace: 10, Identity: "auto"}
	changed := func(change func(*lab.Spec)) lab.Spec {
		s := spec
		change(&s)
		return s
	}
	for what, c := range map[string]struct {
		made, asked map[string]string
		want        lab.Spec
		refused     string
	}{
		"the same":                          {nil, nil, spec, ""},
		"the same with its key":             {keyed, keyed, spec, ""},
		"a key that need not be told again": {keyed, nil, spec, ""},
		"gemini that need not be told":      {keyed, map[string]string{"LLM_BACKEND": "gemini"}, spec, ""},
		"a key for a lab with the stub":     {nil, keyed, spec, "LLM_BACKEND=stub"},
		"the stub for one with gemini":      {keyed, map[string]string{"LLM_BACKEND": "stub"}, spec, "LLM_BACKEND=gemini"},
		"another key":                       {keyed, other, spec, "another key"},
		"a key for the stub": {nil, map[string]string{
			"GEMINI_API_KEY": "k1", "LLM_BACKEND": "stub",
		}, spec, "no key"},
		"another model": {keyed, map[string]string{
			"GEMINI_MODEL": "m",
		}, spec, "GEMINI_MODEL=gemini-2.5-flash"},
		"more people":     {nil, nil, changed(func(s *lab.Spec) { s.People++ }), "--people 50"},
		"another company": {nil, nil, changed(func(s *lab.Spec) { s.Seed++ }), "--seed 42"},
		"more days":       {nil, nil, changed(func(s *lab.Spec) { s.Days++ }), "--days 30"},
		"another pace":    {nil, nil, changed(func(s *lab.Spec) { s.Pace++ }), "--pace 10"},
		"a room":          {nil, nil, changed(func(s *lab.Spec) { s.Listen = "0.0.0.0" }), `--listen ""`},
		"another issuer": {nil, nil, changed(
			func(s *lab.Spec) { s.Identity = "embedded" },
		), "--identity spire"},
		"the issuer that it got": {nil, nil, changed(func(s *lab.Spec) { s.Identity = "spire" }), ""},
	} {
		f := StateDir(t.TempDir())
		m, err := ModelOf(env.Map(c.made))
		if err == nil {
			m, err = m.Choose()
		}
		if err != nil {
			t.Fatal(err)
		}
		s := Settings{Spec: spec, Identity: "spire"}
		s.Chosen(m)
		if err := f.Write(s); err != nil {
			t.Fatal(err)
		}
		err = f.Same(env.Map(c.asked), c.want)
		if c.refused == "" && err != nil ||
			c.refused != "" && (code(err) != lab.ExitConflict || !strings.Contains(err.Error(), "made with "+c.refused)) {
			t.Errorf("%s: %v, want %q", what, err, c.refused)
		}
		if text, err := os.ReadFile(f.Path("lab.json")); err != nil || strings.Contains(string(text), "k1") {
			t.Errorf("%s: the key is in the settings: %v\n%s", what, err, text)
		}
	}
}
