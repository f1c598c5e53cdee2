package lms

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/training"
	"example.org/security-training/services/lms/words"
)

func TestAClickRaisesTheScoreAndReportingAndTheLessonLowerIt(t *testing.T) {
	s := newFixture(t)
	drill := s.campaign("mfa-reset", "payments")
	b, instructor := s.as("tom.brandt"), s.as(site.RoleInstructor)
	box := b.get("/mailbox")
	if n := strings.Count(box.body, `href="/mailbox/`); box.status != 200 || n != 2 {
		t.Fatalf("%d mails in the box, want the drill's and an ordinary one", n)
	}
	letter := "/mailbox/" + s.message("tom.brandt", "mfa-reset")
	for _, p := range []shown{box, b.get(letter)} {
		for _, told := range []string{"drill was", "This was", "NIST", "difficult", "cues"} {
			if strings.Contains(p.text(), told) {
				t.Errorf("before anything happened the learner reads %q", told)
			}
		}
	}
	clean := s.assess("tom.brandt").Score
	pass := func() { s.scorer.set(func() { s.scorer.elapsed += 2 * time.Second }) }
	page := b.get(letter + "/link")
	if page.status != 200 || strings.Contains(page.body, `type="password" name`) ||
		strings.Contains(page.body, "Sign out") {
		t.Fatalf("the page behind the link: %d %s", page.status, page.body)
	}
	s.awaitDelivery()
	clicked := s.assess("tom.brandt")
	if clicked.Score <= clean || len(clicked.Reasons) != 1 || clicked.Reasons[0].Verb != activity.FailedAssessment ||
		!strings.HasPrefix(clicked.Reasons[0].Detail, "Drill: ") {
		t.Fatalf("after the click: %v, was %v: %+v", clicked.Score, clean, clicked.Reasons)
	}
	pass()
	b.post(letter+"/link", url.Values{"password": {"hunter2"}})
	b.get(letter + "/link") // once more changes nothing
	s.awaitDelivery()
	typed := s.assess("tom.brandt")
	if typed.Score <= clicked.Score || typed.Reasons[0].Count != 2 {
		t.Errorf("after typing: %v, was %v: %+v", typed.Score, clicked.Score, typed.Reasons)
	}
	kept := s.rows(`SELECT count(*) FROM training.outbox WHERE event::text LIKE '%hunter2%'`)
	if kept+s.rows(`SELECT count(*) FROM audit.own WHERE detail LIKE '%hunter2%'`) != 0 {
		t.Error("what was typed is kept")
	}
	told := b.get(letter)
	if !strings.Contains(told.body, `data-outcome="clicked"`) || !strings.Contains(told.text(), "What gave it away") ||
		strings.Contains(told.text(), "difficult") ||
		!strings.Contains(told.body, `value="phishing"`) {
		t.Errorf("the learner is told %s", told.text())
	}
	pass()
	if p := b.post(letter+"/report", nil); p.status != 303 {
		t.Fatalf("report: %d", p.status)
	}
	b.post(letter+"/report", nil)
	s.awaitDelivery()
	reported := s.assess("tom.brandt").Score
	if reported >= typed.Score {
		t.Errorf("after reporting: %v, was %v", reported, typed.Score)
	}
	pass()
	path := b.start("phishing")
	s.gateway.mu.Lock()
	req := s.gateway.asked[len(s.gateway.asked)-1]
	s.gateway.mu.Unlock()
	if len(req.Reasons) != 1 || req.Reasons[0].Verb != activity.FailedAssessment {
		t.Errorf("the lesson is about %+v", req.Reasons)
	}
	b.attempt(path, "phishing", 1, 0)
	s.awaitDelivery()
	if taught := s.assess("tom.brandt").Score; taught >= reported {
		t.Errorf("after the lesson: %v, was %v", taught, reported)
	}
	s.hasEventsOfOneMessage("tom.brandt")
	p := instructor.get(drill)
	for _, want := range []string{
		"Very difficult", "Email Sent 8", "Email Opened 1", "Clicked Link 1", "Submitted Data 1", "Email Reported 1",
		"Tom Brandt Email Opened, Clicked Link, Submitted Data, Email Reported",
	} {
		if !strings.Contains(p.text(), want) {
			t.Errorf("the instructor does not see %q: %s", want, p.text())
		}
	}
	kinds := kinds(s.chain())
	for _, want := range []string{"drill.begun", "drill.opened", "drill.clicked", "drill.submitted", "drill.reported"} {
		if !strings.Contains(strings.Join(kinds, " "), want) {
			t.Errorf("the audit lacks %s", want)
		}
	}
}

// hasEventsOfOneMessage checks that the steps of one message are one event each.
func (s *fixture) hasEventsOfOneMessage(person string) {
	s.t.Helper()
	if n := s.rows(`SELECT count(*) FROM training.outbox WHERE id LIKE 'training:drill-%'`); n != 3 {
		s.t.Errorf("%d events of the drill, want clicked, submitted and reported once each", n)
	}
	for _, e := range s.scorer.events[person] {
		if e.Source != activity.Training {
			s.t.Errorf("an event of source %s", e.Source)
		}
	}
}

func TestReportingAnOrdinaryMailCostsNothingAndTellsTheScorerNothing(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newFixture(t)
	s.campaign("prize", "platform")
	b := s.as("sara.lindqvist")
	id := s.one(`SELECT id::text FROM training.mail WHERE person = 'sara.lindqvist' AND lure <> 'prize'`)
	if p := b.get("/mailbox/" + id + "/link"); p.status != 404 {
		t.Errorf("an ordinary mail has a link: %d", p.status)
	}
	if p := b.post("/mailbox/"+id+"/report", nil); p.status != 303 {
		t.Errorf("report: %d", p.status)
	}
	if p := b.get("/mailbox/" + id); !strings.Contains(p.text(), "An ordinary mail") {
		t.Errorf("%s", p.text())
	}
	if n := s.rows(`SELECT count(*) FROM training.outbox`); n != 0 {
		t.Errorf("%d events", n)
	}
	if n := s.rows(`SELECT count(*) FROM training.mail WHERE person = 'mira.keller'`); n != 0 {
		t.Error("the other team got the drill too")
	}
	if w := s.forgetRecords(); w.Code != 204 || s.rows(`SELECT count(*) FROM training.mail`) != 0 {
		t.Errorf("mails outlive a reset: %d", w.Code)
	}
}

func TestReportingAMailCountsForThePersonAndForgivesNoFailedQuiz(t *testing.T) {
	s := newFixture(t)
	pass := func() { s.scorer.set(func() { s.scorer.elapsed += 2 * time.Second }) }
	failed := func(who string) int64 {
		for _, r := range s.assess(who).Reasons {
			if r.Verb == activity.FailedAssessment {
				return r.Part
			}
		}
		return 0
	}
	report := func(who string, first ...string) activity.Event {
		b := s.as(who)
		path := b.start("policy")
		for n := range training.MostAttempts {
			b.attempt(path, "policy", n+1, 4)
		}
		s.awaitDelivery()
		pass()
		letter := "/mailbox/" + s.message(who, "mfa-reset")
		for _, page := range first {
			b.get(letter + page)
			s.awaitDelivery()
			pass()
		}
		before := failed(who)
		if before == 0 {
			t.Fatalf("%s failed nothing", who)
		}
		b.post(letter+"/report", nil)
		s.awaitDelivery()
		pass()
		if after := failed(who); len(first) == 0 && after < before || len(first) > 0 && after >= before {
			t.Errorf("what %s failed weighed %d, and %d after the report", who, before, after)
		}
		list := s.scorer.events[who]
		return list[len(list)-1]
	}
	s.campaign("mfa-reset", "")
	if e := report("tom.brandt"); e.Verb != activity.TrainingPassed || e.Module != words.ReportModule ||
		!slices.Equal(e.Teaches, []activity.Verb{activity.PhishingClick}) {
		t.Errorf("reporting means %+v", e)
	}
	if e := report("mira.keller", "/link"); !slices.Equal(
		e.Teaches,
		[]activity.Verb{activity.PhishingClick, activity.FailedAssessment},
	) {
		t.Errorf("reporting after a click means %+v", e)
	}
}

// A person created for a run of an exercise is on no page of the organisation and gets no messages of campaigns, but
// has a page.
func TestPeopleOfARunAreNotOfTheCompany(t *testing.T) {
	s := newFixture(t)
	s.scorer.set(func() {
		cast := s.scorer.people[0]
		cast.ID, cast.Name, cast.Email = "nina.0a1b2c", "Nina (leaked-secret)", "nina.0a1b2c@example.org"
		cast.Run = "leaked-secret-1"
		s.scorer.people = append(s.scorer.people, cast)
		s.scorer.events[cast.ID] = s.scorer.events["luca.moretti"]
	})
	instructor := s.as(site.RoleInstructor)
	for _, page := range []string{"/organisation", "/people"} {
		if p := instructor.get(page); p.status != 200 || strings.Contains(p.body, "nina.0a1b2c") {
			t.Errorf("%s: %d, with a person of a run", page, p.status)
		}
	}
	if p := instructor.get("/people/nina.0a1b2c"); p.status != 200 || !strings.Contains(p.body, "Nina (leaked-secret)") {
		t.Errorf("her own page: %d", p.status)
	}
	s.campaign("mfa-reset", "")
	if n := s.rows(`SELECT count(*) FROM training.mail WHERE person = 'nina.0a1b2c'`); n != 0 {
		t.Errorf("a drill for everybody sent her %d mails", n)
	}
}
