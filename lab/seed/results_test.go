package seed

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.org/security-training/lab/labtest"
	"example.org/security-training/lab/play"
	"example.org/security-training/lab/scenarios"
	"example.org/security-training/services/exercise"
	"example.org/security-training/synth/scenario"
)

func TestResultsAreWrittenToTwoNewFilesOfOnesOwnOrNone(t *testing.T) {
	r := exercise.Results{
		Mark: "m",
		Lessons: []exercise.LessonResult{
			{Person: "a.b", Name: "-1+1|x", Module: "phishing", Attempts: []exercise.AttemptResult{{Number: 1}}},
		},
	}
	dir := filepath.Join(t.TempDir(), "new folder")
	files, err := KeepResults(r, dir, "results-x")
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil || info.Mode().Perm() != 0o600 || !filepath.IsAbs(f) {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
	if text := labtest.Read(t, files[0]); !strings.Contains(text, `lesson,a.b,'-1+1|x,phishing`) {
		t.Errorf("%s", text)
	}
	var again exercise.Results
	if err := json.Unmarshal(
		[]byte(labtest.Read(t, files[1])),
		&again,
	); err != nil || again.Mark != "m" ||
		len(again.Lessons) != 1 {
		t.Errorf("%+v, %v", again, err)
	}
	// If the files cannot be written, none is left, and the error says that nothing was deleted.
	file := filepath.Join(dir, "no-folder")
	labtest.Write(t, file, "")
	if files, err := KeepResults(r, file, "results-x"); err == nil || len(files) != 0 {
		t.Errorf("into a file: %v, %v", files, err)
	}
}

func TestTheCastOfAnExerciseIsWhatItSaysElseWhatItsScenarioMakes(t *testing.T) {
	s, err := scenarios.Load("leaked-secret")
	if err != nil {
		t.Fatal(err)
	}
	id := play.RunOf(s, 1_790_000_000_000)
	players, err := s.Players(id, nil)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, p := range s.Fresh(players) {
		want = append(want, p.ID)
	}
	if got, err := castOf(exercise.Exercise{ID: id}); err != nil || !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("of an exercise that does not say it: %v, %v; want %v", got, err, want)
	}
	if got, err := castOf(
		exercise.Exercise{ID: id, Cast: []string{"x.y"}},
	); err != nil ||
		!slices.Equal(got, []string{"x.y"}) {
		t.Errorf("of one that does: %v, %v", got, err)
	}
	if got, err := castOf(exercise.Exercise{ID: "no-such-scenario-1"}); err != nil || len(got) != 0 {
		t.Errorf("of one that nothing is known of: %v, %v", got, err)
	}
	company := &scenario.Scenario{Name: "x", Cast: map[string]scenario.Member{"a": {Role: "sre", From: "company"}}}
	if got := freshOf(company, "x-1"); len(got) != 0 {
		t.Errorf("people of the company are made for it: %v", got)
	}
}
