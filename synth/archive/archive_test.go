package archive

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/risk"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
)

func write(t *testing.T, args ...string) string {
	t.Helper()
	folder := t.TempDir()
	if err := Command(append(args, "--out", folder), io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	return folder
}

func read(t *testing.T, folder, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// events reads events.ndjson, and demands event time order and valid, distinct events.
func events(t *testing.T, folder string) map[string][]activity.Event {
	t.Helper()
	f, err := os.Open(filepath.Join(folder, eventsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lives, seen := map[string][]activity.Event{}, map[string]bool{}
	var last time.Time
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e activity.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if err := e.Validate(); err != nil || seen[e.ID] || e.At.Before(last) {
			t.Fatalf("event %s at %v after %v, seen before: %v; %v", e.ID, e.At, last, seen[e.ID], err)
		}
		seen[e.ID], last = true, e.At
		lives[e.Person] = append(lives[e.Person], e)
	}
	return lives
}

func TestArchiveHoldsTheCompanyThatItNames(t *testing.T) {
	needtest.Unhurried(t, "a company of 50 with 30 days is written and read")
	folder := write(t, "--people", "50", "--seed", "42", "--days", "30", "--mix", "published")
	var roster []risk.Person
	var key []people.Answer
	read(t, folder, peopleFile, &roster)
	read(t, folder, answersFile, &key)
	if len(roster) != 50 || len(key) != 50 {
		t.Fatalf("%d people, %d answers", len(roster), len(key))
	}
	lives := events(t, folder)
	if len(lives[""]) == 0 {
		t.Error("no events of contractors, whose accounts have no owner")
	}
	direct := map[string][]activity.Event{}
	for _, a := range routine.Recorded(42, routine.Month(people.Company(42, 50, people.Published), 30)) {
		direct[a.Person] = append(direct[a.Person], a.Event())
	}
	for _, profile := range risk.Profiles() {
		for _, p := range roster {
			want, got := profile.Score(p.Role, direct[p.ID], risk.Epoch), profile.Score(p.Role, lives[p.ID], risk.Epoch)
			// whose window cuts by the second, and whose IAM counts everything
			if math.Abs(want.Float()-got.Float()) > .002 && profile.Name != "classic-v1" {
				t.Errorf("%s: %s scores %v by the archive, %v by what was done", profile.Name, p.ID, got, want)
			}
		}
	}
	for _, s := range []activity.Source{activity.Git, activity.Jira, activity.IAM, activity.SIEM} {
		files, err := os.ReadDir(filepath.Join(folder, string(s)))
		if err != nil || len(files) < 20 {
			t.Errorf("%s: %d files of payloads, %v", s, len(files), err)
		}
	}
	public, err := os.ReadFile(filepath.Join(folder, peopleFile))
	if err != nil || bytes.Contains(public, []byte("leaked-secret")) || bytes.Contains(public, []byte("label")) {
		t.Errorf("the answer key leaks into the roster, %v", err)
	}
}

func TestArchiveNamesTheGapsOfItsVendorsAndHasNothingOfThem(t *testing.T) {
	needtest.Unhurried(t, "a company of 50 with 30 days is written and read")
	folder := write(t, "--people", "50", "--seed", "7", "--days", "30")
	var gaps []routine.Loss
	read(t, folder, gapsFile, &gaps)
	lost, sources := 0, map[activity.Source]bool{}
	for _, g := range gaps {
		lost += g.Acts
		sources[g.Source] = true
	}
	if lost == 0 || len(sources) != 4 {
		t.Fatalf("%d acts lost by %d vendors", lost, len(sources))
	}
	for _, life := range events(t, folder) {
		for _, e := range life {
			for _, g := range gaps {
				// The alert of a push from before the gap is dated up to half a minute after it.
				if e.Source == g.Source && e.At.After(g.From.Add(30*time.Second)) && e.At.Before(g.To) {
					t.Errorf("%s is dated %v, in a gap from %v to %v", e.ID, e.At, g.From, g.To)
				}
			}
		}
	}
}

func TestVerifyFindsEveryChange(t *testing.T) {
	folder := write(t, "--people", "5", "--days", "7", "--mix", "sparse", "--seed", "7")
	verify := func() string {
		var out strings.Builder
		if err := Command([]string{"--verify", "--out", folder}, &out, io.Discard); err != nil {
			return err.Error()
		}
		return ""
	}
	if fault := verify(); fault != "" {
		t.Fatalf("untouched: %s", fault)
	}
	change := func(name string, edit func([]byte) []byte) (undo func()) {
		full := filepath.Join(folder, name)
		old, err := os.ReadFile(full)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, edit(slices.Clone(old)), 0o644); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.WriteFile(full, old, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, edit := range map[string]func([]byte) []byte{
		eventsFile: func(b []byte) []byte { return b[:len(b)-2] },
		peopleFile: func(b []byte) []byte { return bytes.ToUpper(b) },
		answersFile: func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"label":"LOW"`), []byte(`"label":"HIGH"`), 1)
		},
		gapsFile:    func(b []byte) []byte { return bytes.Replace(b, []byte(`"acts":`), []byte(`"acts":1`), 1) },
		companyFile: func(b []byte) []byte { return bytes.Replace(b, []byte(`"seed": 7`), []byte(`"seed": 8`), 1) },
		sumsFile:    func(b []byte) []byte { return b[strings.IndexByte(string(b), '\n')+1:] },
	} {
		undo := change(name, edit)
		if fault := verify(); fault == "" {
			t.Errorf("a change of %s goes unnoticed", name)
		}
		undo()
	}
	undo := change(sumsFile, func(b []byte) []byte { return append([]byte("00  ../../etc/passwd\n"), b...) })
	if fault := verify(); !strings.Contains(fault, "want a hash and a name") {
		t.Errorf("a name outside the folder: %q", fault)
	}
	undo()
	if fault := verify(); fault != "" {
		t.Errorf("mended: %s", fault)
	}
}

func TestCommandRefusesWhatItCannotMake(t *testing.T) {
	for _, bad := range [][]string{nil, {"--people", "50"}, {"--people", "0", "--out", "x"}, {"--days", "400", "--out",
		"x"}, {"--mix", "wild", "--out", "x"}, {"--out", "x", "more"}, {"--verify", "--out", "/nonexistent"}, {"poem"}} {
		if err := Command(bad, io.Discard, io.Discard); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if _, err := os.Stat("x"); err == nil {
		t.Error("a refused company was written")
	}
}

func TestVendorsPayloadsAreTheSameBytesEachTime(t *testing.T) {
	sums := func() string {
		text, err := os.ReadFile(filepath.Join(write(t, "--people", "12", "--days", "5"), sumsFile))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if first, second := sums(), sums(); first != second {
		t.Error("two archives of one company differ")
	}
}
