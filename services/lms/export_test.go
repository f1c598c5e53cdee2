package lms

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"example.org/security-training/services/lms/auditlog"
	"example.org/security-training/services/lms/training"
	"example.org/security-training/services/postgres/audited"
)

func TestAPageHearsWhenItsLessonIsWritten(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newSchool(t)
	hold := make(chan struct{})
	s.gateway.set(func() { s.gateway.hold = hold })
	b := s.as("mira.keller")
	path := b.start("phishing")
	page := b.get(path)
	if !strings.Contains(page.body, `data-feed="`+path+`/progress"`) || !regexp.MustCompile(`<script src="/static/progress\.[0-9a-f]{16}\.js" defer></script>`).MatchString(page.body) {
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

func TestTrainingIsExportedAsXAPIUnderPseudonyms(t *testing.T) {
	s := newSchool(t)
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
		if w.Code != 200 || w.Header().Get("X-Experience-API-Version") != "1.0.3" || w.Header().Get("Content-Type") != "application/x-ndjson" {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
		if text := strings.ToLower(w.Body.String()); strings.Contains(text, "mira") || strings.Contains(text, "keller") {
			t.Error("the export names somebody")
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
	if verbs["completed"] != 2 || verbs["passed"] != 1 || verbs["failed"] != 1 || verbs["answered"] != 5*questions || questions < 4 {
		t.Errorf("verbs %v", verbs)
	}
	for _, st := range first {
		if strings.HasSuffix(st.Verb.ID, "/passed") && (!*st.Result.Success || st.Result.Score.Scaled != 1 || st.Result.Score.Raw != st.Result.Score.Max || st.Result.Duration != "PT0S") {
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
	if p := s.as("instructor").get("/xapi"); p.status != 200 || strings.Count(p.body, "\n") != len(first) || !strings.Contains(p.header.Get("Content-Disposition"), "attachment") {
		t.Errorf("the instructor's file: %d %v", p.status, p.header)
	}
	for d, want := range map[time.Duration]string{-1: "PT0S", 0: "PT0S", 90 * time.Second: "PT1M30S", 26*time.Hour + 5*time.Millisecond: "PT26H0.01S", 2 * time.Minute: "PT2M"} {
		if got := training.ISODuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestACertificateCanBeVerifiedByAnybodyAndMadeUpByNobody(t *testing.T) {
	s := newSchool(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	id := strings.TrimPrefix(path, "/training/")
	if p := b.get("/certificates/" + id); p.status != 404 {
		t.Errorf("before passing: %d", p.status)
	}
	b.attempt(path, "secret-hygiene", 1, 0)
	p := b.get("/certificates/" + id)
	number := regexp.MustCompile(`id="certificate-number">([0-9A-Z-]+)<`).FindStringSubmatch(p.body)
	if p.status != 200 || number == nil || !strings.Contains(p.text(), "Mira Keller") {
		t.Fatalf("%d %s", p.status, p.text())
	}
	for _, who := range []string{"tom.brandt", "vera.holm"} {
		if p := s.as(who).get("/certificates/" + id); p.status != 404 {
			t.Errorf("as %s: %d", who, p.status)
		}
	}
	verify := func(number string) shown {
		return s.browser().get("/verify?number=" + url.QueryEscape(number))
	}
	for _, typed := range []string{number[1], strings.ToLower(number[1]), strings.ReplaceAll(number[1], "-", " "), strings.ReplaceAll(number[1], "0", "o")} {
		if p := verify(typed); p.status != 200 || !strings.Contains(p.body, `data-valid="true"`) || !strings.Contains(p.text(), "Mira Keller") || !strings.Contains(p.text(), "Keep secrets out of code") {
			t.Errorf("%s: %d %s", typed, p.status, p.text())
		}
	}
	wrong := []string{id, "x", strings.Repeat("A", 300), `"><script>`, number[1] + "A"}
	for i, c := range number[1] { // no single letter can be changed
		if c != '-' {
			other := byte('Z')
			if c == 'Z' {
				other = 'Y'
			}
			wrong = append(wrong, number[1][:i]+string(other)+number[1][i+1:])
		}
	}
	for _, typed := range wrong {
		if p := verify(typed); p.status != 200 || !strings.Contains(p.body, `data-valid="false"`) || strings.Contains(p.text(), "Mira") {
			t.Errorf("%s: %d %s", typed, p.status, p.text())
		}
	}
	key, err := s.db.CertificateKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.db.CertificateKey(t.Context()); err != nil || string(again) != string(key) {
		t.Errorf("the key changes: %v", err)
	}
	if p := verify(training.CertificateNumber(key, uuid.New())); !strings.Contains(p.body, `data-valid="deleted"`) {
		t.Error("a number with this lab's seal, of a lesson that is not there, is not told from one that was mistyped")
	}
	s.exec(`UPDATE training.completion SET passed = false`)
	if p := verify(number[1]); !strings.Contains(p.body, `data-valid="false"`) {
		t.Error("a certificate of a lesson that was not passed is valid")
	}
}

func TestAPersonsOlderRowsOfAnEventAreFoundBehindOthers(t *testing.T) {
	s := newSchool(t)
	const event = "git:secret/payments/1/a"
	rows := []audited.Row{audited.Note("lesson.asked", "mira.keller", event, struct{}{})}
	for range auditlog.PageRows + 5 {
		rows = append(rows, audited.Note("lesson.asked", "tom.brandt", event, struct{}{}))
	}
	if err := s.db.Record(t.Context(), rows...); err != nil {
		t.Fatal(err)
	}
	found, err := s.auditlog.Store.Search(
		t.Context(),
		auditlog.Query{Event: event, Person: "mira.keller", Limit: auditlog.PageRows + 1},
	)
	if err != nil || len(found) != 1 || found[0].Person != "mira.keller" {
		t.Errorf("%d rows of hers about the event are found: %v, %v", len(found), found, err)
	}
	if found, err = s.auditlog.Store.Search(t.Context(), auditlog.Query{Event: event, Limit: 3}); err != nil ||
		len(found) != 3 ||
		found[0].Person != "tom.brandt" {
		t.Errorf("about the event alone: %v, %v", found, err)
	}
}
