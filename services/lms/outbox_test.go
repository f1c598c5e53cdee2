package lms

import (
	"strings"
	"testing"

	"example.org/security-training/services/risk"
)

func TestAScoreThatIsNotToldAfterTheEventWasTakenIsAskedForAgain(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newSchool(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	s.scorer.set(func() { s.scorer.speechless = 2 })
	b.attempt(path, "secret-hygiene", 1, 0)
	s.heard()
	if n := s.rows(`SELECT count(*) FROM training.completion WHERE after IS NOT NULL`); n != 1 {
		t.Error("the event counts as delivered, and the score after it was never asked for")
	}
	if p := b.get(path + "/result"); !strings.Contains(p.body, `data-after="0.`) {
		t.Errorf("the result: %s", p.text())
	}
}

func TestAResultWithoutAScoreSaysSoAndDoesNotPromiseOne(t *testing.T) {
	s := newSchool(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	b.attempt(path, "secret-hygiene", 1, 0)
	s.heard()
	s.exec(`UPDATE training.completion SET after = NULL`) // as for somebody who left before it was asked for
	p := b.get(path + "/result")
	if strings.Contains(p.text(), "the new score is then shown here") || !strings.Contains(p.text(), "There is no new score") {
		t.Errorf("the result of an event that the scorer has: %s", p.text())
	}
}

func TestWhoHasLeftHoldsNoDeliveryUp(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newSchool(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	b.attempt(path, "secret-hygiene", 1, 4) // from here on the clock is known
	s.scorer.set(func() { s.scorer.away = true })
	if p := b.attempt(path, "secret-hygiene", 2, 0); p.status != 303 {
		t.Fatalf("%d %s", p.status, p.text())
	}
	s.scorer.set(func() {
		s.scorer.away = false
		s.scorer.people = append([]risk.Person{}, s.scorer.people[1:]...) // Mira is the first
	})
	s.heard()
	if n := s.rows(`SELECT count(*) FROM training.outbox`); n != 1 {
		t.Errorf("%d events were delivered", n)
	}
}
