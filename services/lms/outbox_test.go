package lms

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

func TestTrainingReachesTheScorerOnceAlthoughAnswersAreLostAndItWasAway(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newFixture(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	s.scorer.set(func() { s.scorer.loseAnswers = 2 })
	b.attempt(path, "secret-hygiene", 1, 0)
	s.await(
		"delivery",
		func() bool { return s.rows(`SELECT count(*) FROM training.outbox WHERE delivered IS NOT NULL`) == 1 },
	)
	n, posts := 0, 0
	s.scorer.set(func() {
		posts = s.scorer.posts
		for _, e := range s.scorer.events["mira.keller"] {
			if e.Source == activity.Training && e.Verb == activity.TrainingPassed {
				n++
			}
		}
	})
	if n != 1 || posts != 3 {
		t.Errorf("stored %d times in %d posts, want 1 in 3", n, posts)
	}
	if n := s.rows(`SELECT count(*) FROM training.outbox WHERE status = 'duplicate'`); n != 1 {
		t.Error("the last receipt was not the duplicate's")
	}

	path = b.start("phishing")
	b.get("/") // the clock is known
	s.scorer.set(func() { s.scorer.unavailable = true })
	if p := b.attempt(path, "phishing", 1, 0); p.status != 303 {
		t.Fatalf("grade while the scorer is away: %d %s", p.status, p.text())
	}
	if p := b.get(path + "/result"); p.status != 200 || !strings.Contains(p.text(), "the new score is then shown here") {
		t.Errorf("result while the scorer is away: %d %s", p.status, p.text())
	}
	if p := b.get("/"); p.status != 503 || p.header.Get("Retry-After") == "" ||
		!strings.Contains(p.text(), "Training so far") ||
		!strings.Contains(p.text(), "Passed") {
		t.Errorf("my risk while the scorer is away: %d %s", p.status, p.text())
	}
	if p := b.get("/training"); p.status != 503 || !strings.Contains(p.text(), "Catalogue") {
		t.Errorf("my training while the scorer is away: %d", p.status)
	}
	if p := b.post("/training", url.Values{"module": {"malware"}}); p.status != 503 {
		t.Errorf("start while the scorer is away: %d", p.status)
	}
	s.scorer.set(func() { s.scorer.unavailable = false })
	s.awaitDelivery()
	if p := b.get(path + "/result"); !strings.Contains(p.body, `data-after="0.`) {
		t.Errorf("result afterwards: %s", p.text())
	}
}

func TestRecordsOfBeforeReachTheScorerOnce(t *testing.T) {
	s := newFixture(t)
	body := `{"events":[{"id":"training:stale-1","at":"2026-09-01T10:00:00+02:00","person":"tom.brandt",
		"source":"training","verb":"training.stale"},
		{"id":"training:overdue-1","at":"2026-09-02T10:00:00+02:00","person":"tom.brandt","source":"training",
		"verb":"training.overdue_module","module":"phishing"}]}`
	for range 2 {
		if w := s.wire(s.training.PutTraining, "PUT", "/v1/training", "application/json", body); w.Code != 204 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if a := s.assess("tom.brandt"); len(a.Reasons) != 2 || a.Reasons[0].Count+a.Reasons[1].Count != 2 {
			t.Errorf("reasons %+v", a.Reasons)
		}
	}
	if diff := cmp.Diff([]string{"import", "delivery", "delivery", "import"}, kinds(s.chain())); diff != "" {
		t.Error(diff)
	}
}

func TestAScoreThatIsNotToldAfterTheEventWasTakenIsAskedForAgain(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newFixture(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	s.scorer.set(func() { s.scorer.failRisks = 2 })
	b.attempt(path, "secret-hygiene", 1, 0)
	s.awaitDelivery()
	if n := s.rows(`SELECT count(*) FROM training.completion WHERE after IS NOT NULL`); n != 1 {
		t.Error("the event counts as delivered, and the score after it was never asked for")
	}
	if p := b.get(path + "/result"); !strings.Contains(p.body, `data-after="0.`) {
		t.Errorf("the result: %s", p.text())
	}
}

func TestAResultWithoutAScoreSaysSoAndDoesNotPromiseOne(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	b.attempt(path, "secret-hygiene", 1, 0)
	s.awaitDelivery()
	s.exec(`UPDATE training.completion SET after = NULL`) // as for a person who left before the request
	p := b.get(path + "/result")
	if strings.Contains(
		p.text(), "the new score is then shown here",
	) || !strings.Contains(p.text(), "There is no new score") {
		t.Errorf("the result of an event that the scorer has: %s", p.text())
	}
}

func TestWhoHasLeftHoldsNoDeliveryUp(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newFixture(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	b.attempt(path, "secret-hygiene", 1, 4) // from here on the clock is known
	s.scorer.set(func() { s.scorer.unavailable = true })
	if p := b.attempt(path, "secret-hygiene", 2, 0); p.status != 303 {
		t.Fatalf("%d %s", p.status, p.text())
	}
	s.scorer.set(func() {
		s.scorer.unavailable = false
		s.scorer.people = append([]risk.Person{}, s.scorer.people[1:]...) // Mira is the first
	})
	s.awaitDelivery()
	if n := s.rows(`SELECT count(*) FROM training.outbox`); n != 1 {
		t.Errorf("%d events were delivered", n)
	}
}
