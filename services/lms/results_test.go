package lms

import (
	"encoding/csv"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/training"
)

// results asks for the records as the operator does.
func (s *school) records() exercise.Results {
	s.t.Helper()
	w := s.wire(s.training.GetResults, "GET", "/v1/results", "", "")
	var r exercise.Results
	if err := json.Unmarshal(w.Body.Bytes(), &r); w.Code != 200 || err != nil {
		s.t.Fatalf("results: %d %s", w.Code, w.Body)
	}
	return r
}

// forget deletes the records that have the mark.
func (s *school) forget(mark string) *httptest.ResponseRecorder {
	s.t.Helper()
	return s.wire(s.PostReset, "POST", "/v1/reset", "application/json", `{"all":true,"mark":"`+mark+`"}`)
}

// forgetRecords deletes all records.
func (s *school) forgetRecords() *httptest.ResponseRecorder {
	s.t.Helper()
	return s.forget(s.records().Mark)
}

// certificateOf is the number on the certificate for a lesson that was passed, by its path.
func (s *school) certificateOf(b *browser, lesson string) string {
	s.t.Helper()
	p := b.get("/certificates/" + strings.TrimPrefix(lesson, "/training/"))
	number := regexp.MustCompile(`[0-9A-Z]{6}(-[0-9A-Z]{1,6}){5,}`).FindString(p.body)
	if p.status != 200 || number == "" {
		s.t.Fatalf("certificate of %s: %d %s", lesson, p.status, p.text())
	}
	return number
}

func TestACertificateCanBeVerifiedAfterItsRecordWasDeleted(t *testing.T) {
	s := newSchool(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	b.attempt(path, "secret-hygiene", 1, 0)
	number := s.certificateOf(b, path)
	verify := func(number string) shown {
		t.Helper()
		return s.browser().get("/verify?" + url.Values{"number": {number}}.Encode())
	}
	valid := verify(number)
	date := regexp.MustCompile(`<time datetime="[^"]*">([^<]*)</time>`).FindStringSubmatch(valid.body)
	if !strings.Contains(valid.body, `data-valid="true"`) || date == nil {
		t.Fatalf("before: %s", valid.text())
	}
	if w := s.forgetRecords(); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	p := verify(number)
	if !strings.Contains(p.body, `data-valid="deleted"`) ||
		!strings.Contains(p.text(), "given out on "+date[1]+" ; its record was deleted") ||
		!strings.Contains(p.text(), number) {
		t.Errorf("afterwards, of %s: %s", date[1], p.text())
	}
	if text := p.text(); strings.Contains(text, "Mira") || strings.Contains(text, "mira.keller") ||
		strings.Contains(text, "No certificate was given out") {
		t.Errorf("afterwards: %s", text)
	}
	if got := s.one(
		`SELECT string_agg(concat(d.lesson, ' ', d.given), ';') FROM training.deleted_certificate d`,
	); got != strings.TrimPrefix(
		path,
		"/training/",
	)+" 2026-10-01" {
		t.Errorf("kept is %q", got)
	}
	last := "0"
	if strings.HasSuffix(number, last) {
		last = "1"
	}
	if p := verify(number[:len(number)-1] + last); !strings.Contains(p.body, `data-valid="false"`) {
		t.Errorf("a number that was never given out: %s", p.text())
	}
	if _, err := s.db.Pool.Exec(t.Context(), `DELETE FROM training.deleted_certificate`); err == nil {
		t.Error("the service may delete what is left of a certificate")
	}
	// A lab in which earlier resets left nothing still knows its seal.
	s.exec(
		`INSERT INTO training.lesson (id, person, module, state, request, asked) VALUES ('00000000-0000-0000-0000-000000000001', 'mira.keller', 'policy', 'writing', '{}', now())`,
	)
	key, err := s.db.CertificateKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p := verify(
		training.CertificateNumber(key, [16]byte{9}),
	); !strings.Contains(
		p.text(),
		"was given out; its record was deleted",
	) {
		t.Errorf("one of which nothing is left: %s", p.text())
	}
	if p := verify(training.CertificateNumber(key, [16]byte{15: 1})); !strings.Contains(p.body, `data-valid="false"`) {
		t.Errorf("a lesson that was not passed: %s", p.text())
	}
}

// The trigger keeps a certificate's line however its record is deleted.
func TestNoWayToDeleteARecordLosesItsCertificate(t *testing.T) {
	s := newSchool(t)
	b := s.as("mira.keller")
	b.attempt(b.start("secret-hygiene"), "secret-hygiene", 1, 0)
	lost := b.start("phishing")
	for n := range 3 {
		b.attempt(lost, "phishing", n+1, 4)
	}
	s.exec(`DELETE FROM training.lesson`)
	if n := s.rows(`SELECT count(*) FROM training.deleted_certificate WHERE given = '2026-10-01'`); n != 1 {
		t.Errorf("%d lines, want one: of what was passed", n)
	}
}

func TestRecordsAreDeletedOnlyAsTheyWereKept(t *testing.T) {
	s := newSchool(t)
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
	mail := s.letter(formula, "mfa-reset")
	b.get("/mailbox/" + mail)
	if w := s.forget(mark); w.Code != 409 {
		t.Fatalf("a mail was opened after the results: %d", w.Code)
	}
	if n := s.rows(
		`SELECT count(*) FROM training.attempt`,
	); n != 2 ||
		s.rows(`SELECT count(*) FROM training.deleted_certificate`) != 0 {
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
	// An instructor's files hold the same, and no cell is a formula.
	i := s.as(site.RoleInstructor)
	p := i.get("/console/results/results.csv")
	rows, err := csv.NewReader(strings.NewReader(p.body)).ReadAll()
	if err != nil || p.status != 200 || len(rows) != 1+len(r.Lessons)+len(r.Drills) ||
		!strings.Contains(p.header.Get("Content-Disposition"), "results.csv") {
		t.Fatalf("results.csv: %d, %d rows, %v", p.status, len(rows), err)
	}
	if rows[1][1] != formula || rows[1][2] != `'=HYPERLINK("http://x")` || rows[1][6] != "2" || rows[1][11] != number {
		t.Errorf("%q", rows[1])
	}
	var same exercise.Results
	if p := i.get(
		"/console/results/results.json",
	); p.status != 200 || json.Unmarshal([]byte(p.body), &same) != nil ||
		same.Mark != r.Mark {
		t.Errorf("results.json: %d", p.status)
	}
	for path, want := range map[string]int{"/console/results/results.exe": 404, "/console/results/..%2f..": 404} {
		if p := i.get(path); p.status != want {
			t.Errorf("%s: %d", path, p.status)
		}
	}
	for _, path := range []string{"/console/records", "/console/results/results.csv"} {
		if p := b.get(path); p.status != 403 {
			t.Errorf("%s for a learner: %d", path, p.status)
		}
	}
	if w := s.forget(
		r.Mark,
	); w.Code != 204 ||
		s.rows(`SELECT count(*) FROM training.lesson`)+s.rows(`SELECT count(*) FROM training.mail`) != 0 {
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

func TestDeletingRecordsOnTheConsoleWantsAWordAndResettingAnExerciseNamesIt(t *testing.T) {
	s := conducted(t)
	s.exercise("leaked-secret-1", "passed")
	s.as("mira.keller").start("secret-hygiene")
	i := s.as(site.RoleInstructor)
	p := i.get("/console")
	if !regexp.MustCompile(`name="exercise" value="leaked-secret-1">\s*<button name="kind" value="reset"`).MatchString(p.body) ||
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
