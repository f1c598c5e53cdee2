package lms

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

func TestLeadersSeeTheirOwnTeamOnlyAndNoGroupUnderFive(t *testing.T) {
	s := newFixture(t)
	p := s.as("vera.holm").get("/team")
	for _, name := range names {
		mine := slices.Contains(
			[]string{"Mira Keller", "Tom Brandt", "Vera Holm", "Ines Duarte", "Jonas Weber", "Lea Fontaine", "Piotr Nowak"},
			name,
		)
		if strings.Contains(p.body, name) != mine {
			t.Errorf("%s on Vera's page: %v, want %v", name, !mine, mine)
		}
	}
	if strings.Contains(p.body, "config/prod.env") || strings.Contains(p.text(), "secrets") {
		t.Error("the team's page says what a person did")
	}
	p = s.as("otto.lang").get("/team")
	for _, name := range []string{"Noah", "Emma", "Who needs what", "Mean of the team"} {
		if strings.Contains(p.body, name) {
			t.Errorf("a group of two shows %q", name)
		}
	}
	if !strings.Contains(p.text(), "This team is too small to show") {
		t.Error("the page does not say why it is empty")
	}
}

func TestALeaderSeesTrendRolesRepetitionsAndWhatIsEscalatedAndNoAct(t *testing.T) {
	s := newFixture(t)
	s.scorer.set(func() {
		for i := range s.scorer.people {
			if s.scorer.people[i].Manager == "vera.holm" && s.scorer.people[i].ID != "tom.brandt" {
				s.scorer.people[i].Role = risk.SRE // five of one role, one of another
			}
		}
	})
	b := s.as("vera.holm")
	p := b.get("/team")
	if !strings.Contains(p.text(), "No one repeated what a lesson had covered") ||
		!strings.Contains(p.text(), "Site reliability engineer 5") {
		t.Errorf("%s", p.text())
	}
	if !strings.Contains(p.text(), "Frontend developer 1 hidden") {
		t.Error("the mean of a role with one person is shown")
	}
	if !strings.Contains(p.body, `class="trend"`) {
		t.Error("no trend")
	}
	// Mira passed a lesson about secrets three weeks ago, and committed three since.
	body := `{"events":[{"id":"training:old-pass","at":"2026-09-10T10:00:00+02:00","person":"mira.keller",
		"source":"training","verb":"training.passed",
		"module":"secret-hygiene","teaches":["git.secret_committed"],"score":1}]}`
	if w := s.wire(s.training.PutTraining, "PUT", "/v1/training", "application/json", body); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	p = b.get("/team")
	if !strings.Contains(
		p.text(),
		"Repeated after the lesson Module Bar People Times Keep secrets out of code 1 person 3 times",
	) {
		t.Errorf("%s", p.text())
	}
	_, repeats, _ := strings.Cut(p.body, `id="repeats"`)
	repeats, _, _ = strings.Cut(repeats, "</section>")
	for _, told := range []string{"Mira", "prod.env", "committed"} {
		if strings.Contains(repeats, told) {
			t.Errorf("the repetitions tell %q", told)
		}
	}
	if strings.Contains(s.as("otto.lang").get("/team").body, `class="trend"`) {
		t.Error("a group of two has a trend")
	}
}

func TestAnInstructorSeesWhoseTrainingIsOverdueSinceWhenAndToWhomItIsEscalated(t *testing.T) {
	s := newFixture(t)
	b := s.as(site.RoleInstructor)
	if p := b.get("/organisation"); !strings.Contains(p.text(), "Everybody's training is done or not due yet") &&
		!strings.Contains(p.body, `id="escalations"`) {
		t.Errorf("no word about overdue training: %s", p.text())
	}
	s.scorer.set(func() { s.scorer.elapsed = 28 * 24 * time.Hour })
	p := b.get("/organisation")
	_, table, ok := strings.Cut(p.body, `id="escalations"`)
	table, _, _ = strings.Cut(table, "</table>")
	if !ok || !strings.Contains(table, `href="/people/luca.moretti"`) || !strings.Contains(table, "The security team") {
		t.Fatalf("Luca, who is critical, is not escalated to the security team four weeks later: %s", p.text())
	}
	if n := regexp.MustCompile(
		`Escalated to the manager ([0-9]+) .* To the security team as well ([0-9]+) `,
	).FindStringSubmatch(p.text()); n == nil ||
		n[2] == "0" {
		t.Errorf("how many are escalated to whom: %q", n)
	}
	people, err := s.LMS.scorer.People()
	i := slices.IndexFunc(people, func(p risk.Standing) bool { return p.ID == "luca.moretti" })
	if err != nil || i < 0 {
		t.Fatal(i, err)
	}
	if want := people[i].Due.UTC().Format(time.RFC3339); !strings.Contains(table, want) {
		t.Errorf("since when is not told, want %s: %s", want, table)
	}
	if strings.Contains(table, "tom.brandt") {
		t.Error("Tom's training, which is not due, is among them")
	}
	late := b.get("/people?training=overdue")
	if !strings.Contains(late.body, "/people/luca.moretti") || strings.Contains(late.body, "/people/tom.brandt") {
		t.Error("the list of people whose training is overdue is not that")
	}
	s.scorer.set(
		func() { s.scorer.elapsed = 120 * 24 * time.Hour },
	) // the quarter of those who are low is over, too, and half of another
	if p := s.as("vera.holm").get("/team"); !strings.Contains(p.text(), "overdue since ") ||
		!strings.Contains(p.text(), "escalated to you") {
		t.Errorf("a manager does not see since when: %s", p.text())
	}
}

func TestAnInstructorSeesWhomAnotherProfileWouldScoreHowAndItChangesNothing(t *testing.T) {
	s := newFixture(t)
	b := s.as(site.RoleInstructor)
	if p := b.get("/organisation"); strings.Contains(p.body, `id="differences"`) ||
		!strings.Contains(p.body, `<option value="classic-v1">`) {
		t.Errorf("without a comparison, or without the choice of one: %s", p.text())
	}
	p := b.get("/organisation?shadow=classic-v1")
	_, table, ok := strings.Cut(p.body, `id="differences"`)
	if !ok {
		t.Fatalf("no differences: %s", p.text())
	}
	own, other := risk.MustProfile(risk.Default), risk.MustProfile("classic-v1")
	widest, who := int64(-1), risk.Person{}
	differ := 0
	for _, x := range s.scorer.people {
		a, b := own.Score(x.Role, s.scorer.events[x.ID], labNow), other.Score(x.Role, s.scorer.events[x.ID], labNow)
		if gap := max(b.Micro()-a.Micro(), a.Micro()-b.Micro()); gap > widest {
			widest, who = gap, x
		}
		if own.Level(a) != other.Level(b) {
			differ++
		}
	}
	first := strings.Index(table, `href="/people/`)
	if !strings.HasPrefix(table[first:], `href="/people/`+who.ID+`"`) {
		t.Errorf("the biggest difference is %s's, %d: %.200s", who.ID, widest, table[first:])
	}
	if differ == 0 || !strings.Contains(p.text(), words.Plural(differ, "person", "people")+" at another level") {
		t.Errorf("%d differ in level: %s", differ, p.text())
	}
	if p.status != 200 ||
		!strings.Contains(
			b.get("/organisation").body,
			`data-score="`+strings.Split(strings.Split(p.body, `data-score="`)[1], `"`)[0]+`"`,
		) {
		t.Error("the organisation's score is another one")
	}
	if p := b.get("/organisation?shadow=none"); p.status != 400 {
		t.Errorf("a profile that is not there: %d", p.status)
	}
	if p := s.as("mira.keller").get("/organisation?shadow=classic-v1"); p.status != 403 {
		t.Errorf("a learner: %d", p.status)
	}
}

func TestWhatWasTaughtBeforeIsKnownAfterAReset(t *testing.T) {
	s := newFixture(t)
	body := `{"events":[{"id":"training:old-pass","at":"2026-09-10T10:00:00+02:00","person":"mira.keller",
		"source":"training","verb":"training.passed",
		"module":"secret-hygiene","teaches":["git.secret_committed"],"score":1}]}`
	if w := s.wire(s.training.PutTraining, "PUT", "/v1/training", "application/json", body); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	// Since then: a lesson, a drill, and an import that has not arrived.
	b := s.as("mira.keller")
	path := b.start("phishing")
	b.attempt(path, "phishing", 1, 0)
	s.campaign("prize", "payments")
	b.get("/mailbox/" + s.message("mira.keller", "prize") + "/link")
	s.awaitDelivery()
	s.scorer.set(func() { s.scorer.unavailable = true })
	s.exec(
		`INSERT INTO training.outbox (id, event) VALUES ('training:late',
			'{"id":"training:late","at":"2026-09-11T10:00:00Z","person":"mira.keller",
			"source":"training","verb":"training.stale"}')`,
	)
	if w := s.forgetRecords(); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	s.scorer.set(func() { s.scorer.unavailable = false })
	if left := s.one(`SELECT string_agg(id, ' ') FROM training.outbox`); left != "training:old-pass" {
		t.Errorf("the outbox has %q, want what the seed brought, and that alone", left)
	}
	if p := s.as("vera.holm").get("/team"); !strings.Contains(p.text(), "Keep secrets out of code 1 person 3 times") {
		t.Errorf("the scorer counts the pass of before still, and the team's page does not: %s", p.text())
	}
}

func TestLookingAtATeamAgainAsksTheScorerForNobodyAgain(t *testing.T) {
	s := newFixture(t)
	s.LMS.scorer.Causes.Fresh, s.LMS.scorer.Causes.Usable = time.Hour, time.Hour
	vera := s.as("vera.holm")
	for range 3 {
		if p := vera.get("/team"); p.status != 200 || !strings.Contains(p.body, `class="trend"`) {
			t.Fatalf("%d %s", p.status, p.text())
		}
	}
	s.scorer.set(func() {
		for path, n := range s.scorer.asked {
			if strings.HasSuffix(path, "/risk") && n > 1 {
				t.Errorf("%s was asked for %d times", path, n)
			}
		}
	})
	// What is in the roster is of this moment all the same.
	s.scorer.set(func() { s.scorer.elapsed = 120 * 24 * time.Hour })
	if p := vera.get("/team"); !strings.Contains(p.text(), "escalated to you") {
		t.Errorf("a training that is escalated meanwhile: %s", p.text())
	}
}

func TestALearnersPageSaysWhoSeesAnEscalation(t *testing.T) {
	s := newFixture(t)
	s.scorer.set(func() { s.scorer.elapsed = 150 * 24 * time.Hour })
	for who, want := range map[string]string{
		"jonas.weber": "page lists it among the first.", "noah.petit": "hides a team of fewer than 5",
		"sara.lindqvist": "The roster lists no manager of yours",
	} {
		if p := s.as(who).get("/training"); !strings.Contains(p.text(), want) {
			t.Errorf("%s: %s", who, p.text())
		}
	}
}
