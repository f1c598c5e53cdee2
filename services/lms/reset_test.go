package lms

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestResetTakesAwayTrainingAndKeepsTheAuditAndWhoIsSignedIn(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	b.attempt(path, "secret-hygiene", 1, 0)
	s.exercise("one", "passed")
	s.awaitDelivery()
	before := s.chain()
	if w := s.forgetRecords(); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, table := range []string{"lesson", "attempt", "completion", "outbox", "exercise"} {
		if n := s.rows(`SELECT count(*) FROM training.` + pgx.Identifier{table}.Sanitize()); n != 0 {
			t.Errorf("%d rows left in %s", n, table)
		}
	}
	if p := b.get(path); p.status != 404 {
		t.Errorf("the lesson afterwards: %d", p.status)
	}
	after := s.chain()
	if len(after) != len(before)+2 || after[len(after)-1].Kind != "reset" || after[len(after)-2].Kind != "export" {
		t.Errorf("audit %v", kinds(after))
	}
	if p := b.get("/training"); p.status != 200 || !strings.Contains(p.text(), "No lesson yet") {
		t.Errorf("my training afterwards: %d", p.status)
	}
}

func TestResetOfAnExerciseTakesAwayItAloneAndWhatItsCastWasTaught(t *testing.T) {
	s := newFixture(t)
	one, other := s.as("mira.keller"), s.as("tom.brandt")
	gone, kept := one.start("secret-hygiene"), other.start("secret-hygiene")
	s.exercise("leaked-secret-1", "passed")
	s.exercise("leaked-secret-2", "passed")
	for _, body := range []string{
		`{}`, `{"all":true}`, `{"mark":"x"}`, `{"all":true,"mark":"x","exercises":["leaked-secret-1"]}`,
		`{"mark":"x","exercises":["leaked-secret-1"]}`,
	} {
		if w := s.wire(s.PostReset, "POST", "/v1/reset", "application/json", body); w.Code != 422 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if w := s.wire(
		s.PostReset, "POST", "/v1/reset", "application/json", `{"exercises":["leaked-secret-1"],"people":["mira.keller"]}`,
	); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if n := s.rows(`SELECT count(*) FROM training.exercise WHERE id = 'leaked-secret-2'`); n != 1 ||
		s.rows(`SELECT count(*) FROM training.exercise`) != 1 {
		t.Error("want the other exercise left, and it alone")
	}
	if p := one.get(gone); p.status != 404 {
		t.Errorf("the lesson of the cast afterwards: %d", p.status)
	}
	if p := other.get(kept); p.status != 200 {
		t.Errorf("another person's lesson afterwards: %d", p.status)
	}
}
