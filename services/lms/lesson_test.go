package lms

import (
	"bufio"
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/risk"
)

func TestAPageHearsWhenItsLessonIsWritten(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newFixture(t)
	hold := make(chan struct{})
	s.gateway.set(func() { s.gateway.hold = hold })
	b := s.as("mira.keller")
	path := b.start("phishing")
	page := b.get(path)
	if !strings.Contains(page.body, `data-feed="`+path+`/progress"`) ||
		!regexp.MustCompile(`<script src="/static/progress\.[0-9a-f]{16}\.js" defer></script>`).MatchString(page.body) {
		t.Fatalf("the page does not follow its lesson: %s", page.body)
	}
	if p := s.as("tom.brandt").get(path + "/progress"); p.status != http.StatusNotFound {
		t.Errorf("another's feed: %d", p.status)
	}
	r, err := http.NewRequest("GET", s.web.URL+path+"/progress", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "gzip")
	resp, err := b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" || resp.Header.Get("Content-Encoding") != "" {
		t.Fatalf("%s, encoding %q", got, resp.Header.Get("Content-Encoding"))
	}
	lines := bufio.NewScanner(resp.Body)
	var events []string
	for lines.Scan() {
		name, ok := strings.CutPrefix(lines.Text(), "event: ")
		if !ok {
			if text, ok := strings.CutPrefix(lines.Text(), "data: {\"seconds\""); ok && !strings.Contains(text, `"of":75`) {
				t.Errorf("note %s", text)
			}
			continue
		}
		events = append(events, name)
		if len(events) == 1 {
			close(hold) // the first note arrived while the gateway was still writing
		}
	}
	if len(events) < 2 || events[0] != "writing" || events[len(events)-1] != "done" || lines.Err() != nil {
		t.Errorf("events %v, %v", events, lines.Err())
	}
	if p := b.get(path); !strings.Contains(p.body, `id="take-quiz"`) {
		t.Error("the lesson is not there after done")
	}
	if p := b.get(path + "/progress"); p.status != 200 || p.body != "event: done\ndata: {}\n\n" {
		t.Errorf("the feed of a written lesson: %q", p.body)
	}
}

func TestPassingTheQuizOfALessonAboutWhatHappenedLowersTheScore(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	before := b.score()
	home := b.get("/").text()
	for _, want := range []string{
		"Committed 3 secrets", "payments: config/prod.env", "What would lower it", "Keep secrets out of code", "Medium",
	} {
		if !strings.Contains(home, want) {
			t.Errorf("my risk does not say %q", want)
		}
	}
	path := b.start("")
	s.gateway.mu.Lock()
	req := s.gateway.asked[0]
	s.gateway.mu.Unlock()
	module := req.Module
	if module != riskview.Recommended(s.assess("mira.keller")) || len(req.Reasons) == 0 ||
		req.Role != "backend_developer" {
		t.Errorf("asked for %+v", req)
	}
	for _, r := range req.Reasons {
		if m, _ := risk.ModuleByID(module); !slices.Contains(m.Teaches, r.Verb) {
			t.Errorf("a lesson about %s mentions %s", module, r.Verb)
		}
	}
	if sent, _ := json.Marshal(req); strings.Contains(strings.ToLower(string(sent)), "mira") {
		t.Errorf("the gateway is told a name: %s", sent)
	}
	if again := b.start(module); again != path {
		t.Errorf("a second click made another lesson")
	}
	want := lesson.BuiltIn(module)
	page, quiz := b.get(path), b.get(path+"/quiz")
	for _, text := range []string{want.Title, want.Objectives[0], want.Practices[0].Title, "Written by the lab"} {
		if !strings.Contains(page.text(), text) {
			t.Errorf("the lesson does not say %q", text)
		}
	}
	for i, q := range want.Quiz {
		if !strings.Contains(quiz.text(), q.Question) || strings.Contains(quiz.text()+page.text(), q.Why) {
			t.Errorf("question %d is missing, or its key is there", i+1)
		}
	}
	if strings.Contains(quiz.body, "checked") {
		t.Error("an answer is chosen beforehand")
	}
	missing := b.post(path+"/quiz", url.Values{"attempt": {"1"}, "q1": {"2"}})
	if missing.status != 422 || !strings.Contains(missing.text(), "3 questions have no answer yet") ||
		strings.Count(missing.body, "checked") != 1 {
		t.Errorf("without answers: %d", missing.status)
	}
	if p := b.post(path+"/quiz", url.Values{"attempt": {"1"}, "q1": {"7"}}); p.status != 422 {
		t.Errorf("an answer that is none: %d", p.status)
	}
	if p := b.attempt(path, module, 1, 0); p.status != 303 || p.location() != path+"/result" {
		t.Fatalf("grade: %d %s", p.status, p.text())
	}
	result := b.get(path + "/result")
	m := regexp.MustCompile(`data-before="([0-9.]+)" data-after="([0-9.]+)"`).FindStringSubmatch(result.body)
	if m == nil || m[1] <= m[2] || !strings.Contains(result.text(), "The score fell by") {
		t.Fatalf("the result shows %v: %s", m, result.text())
	}
	after := b.score()
	if shown, _ := strconv.ParseFloat(m[2], 64); after >= before || math.Abs(after-shown) > 1e-9 {
		t.Errorf("score %v, then %v; the result says %v", before, after, shown)
	}
	var events []activity.Event
	s.scorer.set(func() {
		for _, e := range s.scorer.events["mira.keller"] {
			if e.Verb == activity.TrainingPassed {
				events = append(events, e)
			}
		}
	})
	if len(events) != 1 || events[0].Module != module || len(events[0].Teaches) == 0 || *events[0].Score != 1 ||
		!events[0].At.Equal(labNow) ||
		events[0].ID != "training:"+strings.TrimPrefix(path, "/training/") {
		t.Errorf("events %+v", events)
	}
	if _, offset := events[0].At.Zone(); offset != 7200 {
		t.Errorf("the event's offset is %d s, not the person's", offset)
	}
	s.awaitDelivery() // the page has the score a moment before the receipt is kept
	if diff := cmp.Diff([]string{
		"link.made", "sign_in", "lesson.asked", "lesson.written", "attempt", "completion", "delivery",
	}, kinds(s.chain())); diff != "" {
		t.Error(diff)
	}
}

func TestThreeFailuresEndALessonAndOneAttemptCountsOnce(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	path := b.start("phishing")
	quiz := lesson.BuiltIn("phishing").Quiz
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() { b.attempt(path, "phishing", 1, 2) })
	}
	group.Wait()
	if n := s.rows(`SELECT count(*) FROM training.attempt`); n != 1 {
		t.Fatalf("one attempt sent six times counts %d times", n)
	}
	p := b.get(path + "/result")
	if !strings.Contains(p.text(), "2 attempts left") || strings.Contains(p.text(), quiz[0].Why) ||
		strings.Contains(p.body, "effect-card") ||
		!strings.Contains(p.text(), "Wrong") {
		t.Errorf("after the first: %s", p.text())
	}
	b.attempt(path, "phishing", 2, 4)
	b.attempt(path, "phishing", 3, 2)
	p = b.get(path + "/result")
	if !strings.Contains(p.text(), "Not passed") || !strings.Contains(p.text(), quiz[0].Why) ||
		!strings.Contains(p.text(), quiz[0].Options[quiz[0].Answer]) {
		t.Errorf("after the third: %s", p.text())
	}
	if p := b.attempt(path, "phishing", 3, 0); p.status != 303 {
		t.Errorf("a fourth: %d", p.status)
	}
	for _, number := range []string{"4", "0", "x", ""} {
		b.post(path+"/quiz", url.Values{"attempt": {number}, "q1": {"0"}, "q2": {"0"}, "q3": {"0"}, "q4": {"0"}})
	}
	if n := s.rows(`SELECT count(*) FROM training.attempt`); n != 3 {
		t.Errorf("%d attempts", n)
	}
	var failed int
	s.scorer.set(func() {
		for _, e := range s.scorer.events["mira.keller"] {
			if e.Verb == activity.FailedAssessment {
				failed++
			}
		}
	})
	if failed != 1 {
		t.Errorf("%d failed assessments, want 1", failed)
	}
	if next := b.start("phishing"); next == path {
		t.Error("a failed lesson cannot be taken again")
	}
}

func TestLessonIsBuiltInAndSaysSoWhenTheGatewayFails(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	for _, c := range []struct {
		module, say string
		edit        func(*lesson.Lesson)
		fail        error
	}{
		{"phishing", "the model cannot be reached", nil, httpjson.Errorf(503, "away", "away")},
		{
			"malware", "the model cannot be reached",
			func(l *lesson.Lesson) { l.Summary = "<script>alert(1)</script> see https://evil.example" }, nil,
		},
		{"policy", "the model cannot be reached", func(l *lesson.Lesson) { l.Module = "phishing" }, nil},
		{
			"data-handling", "the model took too long",
			func(l *lesson.Lesson) { l.Origin, l.Model, l.Fallback = lesson.Authored, "", lesson.ModelTimeout }, nil,
		},
	} {
		s.gateway.set(func() { s.gateway.edit, s.gateway.fail = c.edit, c.fail })
		p := b.get(b.start(c.module))
		if p.status != 200 || !strings.Contains(p.text(), "Built-in lesson, because "+c.say) ||
			strings.Contains(p.body, "evil.example") ||
			!strings.Contains(p.text(), lesson.BuiltIn(c.module).Title) {
			t.Errorf("%s: %d %s", c.module, p.status, p.text())
		}
	}
	s.gateway.set(func() { s.gateway.fail = httpjson.Errorf(429, "over_quota", "used up").After(90 * time.Second) })
	p := b.get(b.start("authentication"))
	if wait, _ := strconv.Atoi(p.header.Get("Retry-After")); p.status != 429 || wait < 80 || wait > 90 ||
		!strings.Contains(p.text(), "Too many requests") {
		t.Errorf("over quota: %d, Retry-After %d", p.status, wait)
	}
	s.gateway.set(func() { s.gateway.fail = nil })
	if p := b.get(b.start("authentication")); p.status != 200 {
		t.Errorf("asked again: %d", p.status)
	}
}

func TestPageShowsThatALessonIsBeingWrittenAndThenTheLesson(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newFixture(t)
	hold := make(chan struct{})
	s.gateway.set(func() { s.gateway.hold = hold })
	b := s.as("mira.keller")
	path := b.start("phishing")
	p := b.get(path)
	if p.status != 200 || !strings.Contains(p.body, `<noscript><meta http-equiv="refresh" content="1"></noscript>`) ||
		!strings.Contains(p.text(), "Your lesson is being written") {
		t.Errorf("meanwhile: %d %s", p.status, p.text())
	}
	if p := b.get(path + "/quiz"); p.status != 303 {
		t.Errorf("quiz of a lesson that is not written: %d", p.status)
	}
	close(hold)
	s.await("the lesson", func() bool { return strings.Contains(b.get(path).body, "take-quiz") })
	s.gateway.mu.Lock()
	defer s.gateway.mu.Unlock()
	if len(s.gateway.asked) != 1 {
		t.Errorf("the gateway was asked %d times", len(s.gateway.asked))
	}
}

func TestLessonsWithinAnHourAreLimited(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	s.exec(
		`INSERT INTO training.lesson (person, module, state, request, asked, again) SELECT 'mira.keller', 'policy',
			'refused', '{}', now(), now() FROM generate_series(1, 20)`,
	)
	if p := b.post("/training", url.Values{"module": {"phishing"}}); p.status != 429 || p.header.Get("Retry-After") == "" {
		t.Errorf("the twenty-first: %d", p.status)
	}
}
