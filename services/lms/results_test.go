package lms

import (
	"encoding/csv"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/site"
)

func TestRecordsAreDeletedOnlyAsTheyWereKept(t *testing.T) {
	s := newFixture(t)
	s.scorer.set(func() { s.scorer.people[0].Name = `=HYPERLINK("http://x")` })
	formula := s.scorer.people[0].ID
	b := s.as(formula)
	path := b.start("secret-hygiene")
	mark := s.records().Mark
	b.attempt(path, "secret-hygiene", 1, 4)
	if w := s.forget(mark); w.Code != 409 || !strings.Contains(w.Body.String(), "records_changed") {
		t.Fatalf("an attempt came after the results: %d %s", w.Code, w.Body)
	}
	mark = s.records().Mark
	b.attempt(path, "secret-hygiene", 2, 0)
	s.campaign("mfa-reset", "")
	if w := s.forget(mark); w.Code != 409 {
		t.Fatalf("a lesson ended and a drill began after the results: %d", w.Code)
	}
	mark = s.records().Mark
	mail := s.message(formula, "mfa-reset")
	b.get("/mailbox/" + mail)
	if w := s.forget(mark); w.Code != 409 {
		t.Fatalf("a mail was opened after the results: %d", w.Code)
	}
	n := s.rows(`SELECT count(*) FROM training.attempt`)
	if n != 2 || s.rows(`SELECT count(*) FROM training.deleted_certificate`) != 0 {
		t.Errorf("%d attempts are left of 2", n)
	}
	number := s.certificateOf(b, path)
	r := s.records()
	l := r.Lessons[0]
	if len(r.Lessons) != 1 || l.Person != formula || l.Module != "secret-hygiene" || l.State != "passed" ||
		len(l.Attempts) != 2 ||
		!l.Attempts[1].Passed ||
		l.Share != 1 ||
		!l.Ended.Equal(labNow) ||
		l.Certificate != number {
		t.Errorf("lessons %+v", r.Lessons)
	}
	opened := 0
	for _, d := range r.Drills {
		if !d.Opened.IsZero() {
			opened++
		}
	}
	if len(r.Drills) < 2 || opened != 1 {
		t.Errorf("%d mails, %d opened", len(r.Drills), opened)
	}
	s.hasFilesOf(r, b, number)
	w := s.forget(r.Mark)
	if w.Code != 204 || s.rows(`SELECT count(*) FROM training.lesson`)+s.rows(`SELECT count(*) FROM training.mail`) != 0 {
		t.Errorf("as they were kept: %d", w.Code)
	}
	var exports, resets int
	for _, row := range s.chain() {
		if row.Kind == "export" && strings.Contains(row.Detail, `"results"`) {
			exports++
		}
		if row.Kind == "reset" && strings.Contains(row.Detail, `"certificates":1`) &&
			strings.Contains(row.Detail, `"records":true`) {
			resets++
		}
	}
	if exports != 6 || resets != 1 {
		t.Errorf("%d exports and %d deletions in the audit", exports, resets)
	}
}

// hasFilesOf checks that an instructor's downloads have the results, that no cell of them is a formula, and that the
// learner b does not get them.
func (s *fixture) hasFilesOf(r exercise.Results, b *browser, number string) {
	s.t.Helper()
	formula := s.scorer.people[0].ID
	i := s.as(site.RoleInstructor)
	p := i.get("/console/results/results.csv")
	rows, err := csv.NewReader(strings.NewReader(p.body)).ReadAll()
	if err != nil || p.status != 200 || len(rows) != 1+len(r.Lessons)+len(r.Drills) ||
		!strings.Contains(p.header.Get("Content-Disposition"), "results.csv") {
		s.t.Fatalf("results.csv: %d, %d rows, %v", p.status, len(rows), err)
	}
	if rows[1][1] != formula || rows[1][2] != `'=HYPERLINK("http://x")` || rows[1][6] != "2" || rows[1][11] != number {
		s.t.Errorf("%q", rows[1])
	}
	var same exercise.Results
	p = i.get("/console/results/results.json")
	if p.status != 200 || json.Unmarshal([]byte(p.body), &same) != nil || same.Mark != r.Mark {
		s.t.Errorf("results.json: %d", p.status)
	}
	for path, want := range map[string]int{"/console/results/results.exe": 404, "/console/results/..%2f..": 404} {
		if p := i.get(path); p.status != want {
			s.t.Errorf("%s: %d", path, p.status)
		}
	}
	for _, path := range []string{"/console/records", "/console/results/results.csv"} {
		if p := b.get(path); p.status != 403 {
			s.t.Errorf("%s for a learner: %d", path, p.status)
		}
	}
}

func TestDeletingRecordsOnTheConsoleWantsAWordAndResettingAnExerciseNamesIt(t *testing.T) {
	s := withConductor(t)
	s.exercise("leaked-secret-1", "passed")
	s.as("mira.keller").start("secret-hygiene")
	i := s.as(site.RoleInstructor)
	p := i.get("/console")
	if !regexp.MustCompile(
		`name="exercise" value="leaked-secret-1">\s*<button name="kind" value="reset"`,
	).MatchString(p.body) ||
		strings.Contains(p.body, `value="forget"`) ||
		strings.Contains(p.text(), "Reset the lab") {
		t.Errorf("the console: %s", p.text())
	}
	if p := i.get(
		"/console/records",
	); p.status != 200 || !strings.Contains(p.text(), "1 lesson ") || !strings.Contains(p.body, `name="word"`) ||
		!strings.Contains(p.body, `results.csv`) {
		t.Errorf("the page: %d %s", p.status, p.text())
	}
	for _, x := range []struct {
		form url.Values
		want int
	}{
		{url.Values{"kind": {"reset"}}, 422},
		{url.Values{"kind": {"reset"}, "exercise": {"../x"}}, 422},
		{url.Values{"kind": {"forget"}}, 422},
		{url.Values{"kind": {"forget"}, "word": {"yes"}}, 422},
	} {
		if p := i.post("/console/orders", x.form); p.status != x.want {
			t.Errorf("%v: %d, want %d", x.form, p.status, x.want)
		}
	}
	if o := s.orders(""); len(o.Orders) != 0 {
		t.Fatalf("orders %+v", o.Orders)
	}
	if p := i.post("/console/orders", url.Values{"kind": {"reset"}, "exercise": {"leaked-secret-1"}}); p.status != 303 {
		t.Errorf("reset: %d", p.status)
	}
	if p := i.post(
		"/console/orders",
		url.Values{"kind": {"forget"}, "word": {" Delete "}, "back": {"/console/records"}},
	); p.status != 303 ||
		p.location() != "/console/records" {
		t.Errorf("delete: %d %s", p.status, p.location())
	}
	o := s.orders("").Orders
	if len(o) != 2 || o[0].Kind != exercise.OrderReset || o[0].Exercise != "leaked-secret-1" ||
		o[1].Kind != exercise.OrderForget {
		t.Errorf("orders %+v", o)
	}
	if p := i.get(
		"/console/records",
	); !strings.Contains(p.text(), "Reset leaked-secret-1") ||
		!strings.Contains(p.text(), "Delete learners’ records") {
		t.Errorf("the page: %s", p.text())
	}
}
