package lms

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"example.org/security-training/services/lms/training"
)

func TestTrainingIsExportedAsXAPIUnderPseudonyms(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	b.attempt(path, "secret-hygiene", 1, 4)
	b.attempt(path, "secret-hygiene", 2, 0)
	lost := b.start("phishing")
	for n := range 3 {
		b.attempt(lost, "phishing", n+1, 4)
	}
	read := func() []training.Statement {
		t.Helper()
		w := s.wire(s.training.GetXAPI, "GET", "/v1/xapi", "", "")
		if w.Code != 200 || w.Header().Get("X-Experience-API-Version") != "1.0.3" ||
			w.Header().Get("Content-Type") != "application/x-ndjson" {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
		if text := strings.ToLower(w.Body.String()); strings.Contains(text, "mira") || strings.Contains(text, "keller") {
			t.Error("the export names a person")
		}
		var list []training.Statement
		for lines := bufio.NewScanner(w.Body); lines.Scan(); {
			var st training.Statement
			if err := json.Unmarshal(lines.Bytes(), &st); err != nil {
				t.Fatal(err)
			}
			list = append(list, st)
		}
		return list
	}
	first, again := read(), read()
	seen, verbs := map[string]bool{}, map[string]int{}
	for i, st := range first {
		if _, err := uuid.Parse(st.ID); err != nil || seen[st.ID] || again[i].ID != st.ID {
			t.Errorf("id %q: not a UUID of this statement alone, in every export", st.ID)
		}
		seen[st.ID] = true
		verbs[strings.TrimPrefix(st.Verb.ID, "http://adlnet.gov/expapi/verbs/")]++
		at, err := time.Parse(time.RFC3339Nano, st.Timestamp)
		if err != nil || !at.Equal(labNow) {
			t.Errorf("timestamp %s, want the lab's time %s", st.Timestamp, labNow)
		}
		if len(st.Actor.Account.Name) != 36 || st.Actor.ObjectType != "Agent" || st.Actor.Account != first[0].Actor.Account {
			t.Errorf("actor %+v", st.Actor)
		}
	}
	questions := verbs["answered"] / 5 // five attempts in all
	if verbs["completed"] != 2 || verbs["passed"] != 1 || verbs["failed"] != 1 || verbs["answered"] != 5*questions ||
		questions < 4 {
		t.Errorf("verbs %v", verbs)
	}
	for _, st := range first {
		if strings.HasSuffix(st.Verb.ID, "/passed") &&
			(!*st.Result.Success || st.Result.Score.Scaled != 1 || st.Result.Score.Raw != st.Result.Score.Max ||
				st.Result.Duration != "PT0S") {
			t.Errorf("passed %+v", st.Result)
		}
	}
	if w := s.wire(s.training.GetXAPI, "GET", "/v1/xapi?since=2126-01-01T00:00:00Z", "", ""); w.Code != 200 ||
		w.Body.Len() != 0 {
		t.Errorf("since later: %d %s", w.Code, w.Body)
	}
	if w := s.wire(s.training.GetXAPI, "GET", "/v1/xapi?since=yesterday", "", ""); w.Code != 400 {
		t.Errorf("since yesterday: %d", w.Code)
	}
	if p := s.as("instructor").get("/xapi"); p.status != 200 || strings.Count(p.body, "\n") != len(first) ||
		!strings.Contains(p.header.Get("Content-Disposition"), "attachment") {
		t.Errorf("the instructor's file: %d %v", p.status, p.header)
	}

}
