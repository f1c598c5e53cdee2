package lms

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/lms/riskview"
	"example.org/security-training/services/lms/training"
	"example.org/security-training/services/risk"
)

func (s *school) exercise(id string, state exercise.State) {
	s.t.Helper()
	e := exercise.Exercise{ID: id, Title: "A token leaves the building at 02:14", Brief: "Somebody commits a key at the end of a long day.\nTwo hours later it is used from elsewhere.", Difficulty: 2, Minutes: 15, Attack: []string{"T1552.001"}, State: state,
		Steps: []exercise.Step{{At: "17h14m", Who: "mira.keller", What: "commits a secret to payments, three times", Outcome: "delivered"}, {At: "17h20m", Who: "mira.keller", What: "creates a service account key", Outcome: "failed"},
			{At: "17h30m", Who: "tom.brandt", What: "stays LOW", Outcome: ""}}}
	b, err := json.Marshal(e)
	if err != nil {
		s.t.Fatal(err)
	}
	if w := s.wire(s.console.PostExercise, "POST", "/v1/exercises", "application/json", string(b)); w.Code != 204 {
		s.t.Fatalf("exercise: %d %s", w.Code, w.Body)
	}
}

// rows counts what a query finds, as the role of the service.
func (s *school) rows(query string, args ...any) int {
	s.t.Helper()
	var n int
	if err := s.db.Pool.QueryRow(s.t.Context(), query, args...).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// chain is the audit as exported.
func (s *school) chain() []audit.Row {
	s.t.Helper()
	w := s.wire(s.auditlog.GetAudit, "GET", "/v1/audit", "", "")
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/x-ndjson" {
		s.t.Fatalf("audit: %d %s", w.Code, w.Header())
	}
	var all []audit.Row
	for lines := bufio.NewScanner(w.Body); lines.Scan(); {
		var e audit.Row
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func kinds(all []audit.Row) []string {
	var list []string
	for _, e := range all {
		list = append(list, e.Kind)
	}
	return list
}

func (s *school) await(what string, cond func() bool) {
	s.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("waited 2 min for %s", what)
		}
	}
}

// endless is an answer that does not end, and is for a test of its own to read.
const endless = -1

// pattern is a path with its objects' ids replaced by what the routes call them.
func pattern(path string) string {
	object := "{lesson}"
	if strings.HasPrefix(path, "/mailbox") {
		object = "{mail}"
	} else if strings.HasPrefix(path, "/drills") {
		object = "{campaign}"
	}
	return regexp.MustCompile(`[0-9a-f-]{36}`).ReplaceAllString(path, object)
}

func TestEveryPageAndObjectIsShownToWhoMaySeeItAndNobodyElse(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newSchool(t)
	mira := s.as("mira.keller")
	open := mira.start("phishing")
	done := mira.start("secret-hygiene")
	mira.attempt(done, "secret-hygiene", 1, 0)

	who := []string{"", "mira.keller", "tom.brandt", "vera.holm", "otto.lang", "instructor"}
	type row struct {
		path string
		want []int // in the order of who
	}
	type post struct {
		path string
		form url.Values
		want []int
	}
	table := []row{
		//                              nobody mira tom vera otto instructor
		{"/", []int{401, 200, 200, 200, 200, 303}},
		{"/training", []int{401, 200, 200, 200, 200, 403}},
		{open, []int{401, 200, 404, 404, 404, 200}},
		{open + "/quiz", []int{401, 200, 404, 404, 404, 403}},
		{open + "/result", []int{401, 303, 404, 404, 404, 303}},
		{done, []int{401, 200, 404, 404, 404, 200}},
		{done + "/quiz", []int{401, 303, 404, 404, 404, 403}},
		{done + "/result", []int{401, 200, 404, 404, 404, 200}},
		{"/training/" + uuid.NewString(), []int{401, 404, 404, 404, 404, 404}},
		{"/training/x", []int{401, 404, 404, 404, 404, 404}},
		{done + "/progress", []int{401, 200, 404, 404, 404, 200}},
		{"/certificates/" + strings.TrimPrefix(open, "/training/"), []int{401, 404, 404, 404, 404, 404}},
		{"/certificates/" + strings.TrimPrefix(done, "/training/"), []int{401, 200, 404, 404, 404, 200}},
		{"/certificates/x", []int{401, 404, 404, 404, 404, 404}},
		{"/verify", []int{200, 200, 200, 200, 200, 200}},
		{"/verify?number=x", []int{200, 200, 200, 200, 200, 200}},
		{"/xapi", []int{401, 403, 403, 403, 403, 200}},
		{"/team", []int{401, 403, 403, 200, 200, 403}},
		{"/organisation", []int{401, 403, 403, 403, 403, 200}},
		{"/people", []int{401, 403, 403, 403, 403, 200}},
		{"/people/mira.keller", []int{401, 303, 403, 403, 403, 200}},
		{"/people/tom.brandt", []int{401, 403, 303, 403, 403, 200}},
		{"/people/nobody", []int{401, 403, 403, 403, 403, 404}},
		{"/reasons/git.secret_committed", []int{401, 200, 404, 404, 404, 403}},
		{"/reasons/git.secret_committed?from=x", []int{401, 400, 400, 400, 400, 403}},
		{"/people/mira.keller/reasons/git.secret_committed", []int{401, 403, 403, 403, 403, 200}},
		{"/people/nobody/reasons/git.secret_committed", []int{401, 403, 403, 403, 403, 404}},
		{"/exercises", []int{401, 403, 403, 403, 403, 200}},
		{"/audit", []int{401, 403, 403, 403, 403, 200}},
		{"/audit?before=x", []int{401, 403, 403, 403, 403, 400}},
		{"/elsewhere", []int{404, 404, 404, 404, 404, 404}},
		{"/v1/audit", []int{404, 404, 404, 404, 404, 404}},
		{"/static/none.css", []int{404, 404, 404, 404, 404, 404}},
		{"/sign-in", []int{200, 303, 303, 303, 303, 303}},
	}
	posts := []post{
		{"/training", url.Values{"module": {"malware"}}, []int{401, 303, 303, 303, 303, 403}},
		{"/training", url.Values{"module": {"none"}}, []int{401, 422, 422, 422, 422, 403}},
		{open + "/quiz", url.Values{"attempt": {"1"}}, []int{401, 422, 404, 404, 404, 403}},
		{done + "/quiz", url.Values{"attempt": {"1"}}, []int{401, 303, 404, 404, 404, 403}},
		{"/sign-in", url.Values{"token": {"x"}}, []int{403, 403, 403, 403, 403, 403}},
		{"/sign-out", nil, []int{401, 303, 303, 303, 303, 303}},
	}
	s.campaign("mfa-reset", "")
	letter := "/mailbox/" + s.letter("mira.keller", "mfa-reset")
	drill := "/drills/" + s.one(`SELECT id::text FROM training.campaign`)
	table = append(table, []row{
		{"/mailbox", []int{401, 200, 200, 200, 200, 403}},
		{letter, []int{401, 200, 404, 404, 404, 403}},
		{letter + "/link", []int{401, 200, 404, 404, 404, 403}},
		{"/mailbox/x", []int{401, 404, 404, 404, 404, 403}},
		{"/drills", []int{401, 403, 403, 403, 403, 200}},
		{drill, []int{401, 403, 403, 403, 403, 200}},
		{"/drills/x", []int{401, 403, 403, 403, 403, 404}},
		{"/sign-in/provider", []int{404, 404, 404, 404, 404, 404}}, // there is none
		{"/sign-in/callback", []int{404, 404, 404, 404, 404, 404}},
		{"/console", []int{401, 403, 403, 403, 403, 200}},
		{"/console/identities", []int{401, 403, 403, 403, 403, 200}},
		{"/console/matrix", []int{401, 403, 403, 403, 403, 200}},
		{"/console/story", []int{401, 403, 403, 403, 403, 200}},
		{"/console/records", []int{401, 403, 403, 403, 403, 200}},
		{"/console/results/results.csv", []int{401, 403, 403, 403, 403, 200}},
		{"/console/events", []int{401, 403, 403, 403, 403, endless}},
	}...)
	posts = append(posts, []post{
		{letter + "/link", nil, []int{401, 303, 404, 404, 404, 403}},
		{letter + "/report", nil, []int{401, 303, 404, 404, 404, 403}},
		{"/drills", url.Values{"lure": {"none"}}, []int{401, 403, 403, 403, 403, 422}},
		{"/drills", url.Values{"lure": {"prize"}, "team": {"none"}}, []int{401, 403, 403, 403, 403, 422}},
		{"/sign-in/certificate", nil, []int{403, 403, 403, 403, 403, 403}}, // nobody shows one
		{"/console/hints", nil, []int{401, 403, 403, 403, 403, 422}},
		{"/console/orders", nil, []int{401, 403, 403, 403, 403, 422}},
		{"/console/identities", nil, []int{401, 403, 403, 403, 403, 403}},
	}...)
	out := slices.IndexFunc(posts, func(p post) bool { return p.path == "/sign-out" })
	posts[out], posts[len(posts)-1] = posts[len(posts)-1], posts[out] // signing out is last
	covered := map[string]bool{}
	for i, name := range who {
		b := s.as(name)
		for _, c := range table {
			covered["GET "+pattern(c.path)] = true
			if c.want[i] == endless {
				continue
			}
			p := b.get(c.path)
			if p.status != c.want[i] {
				t.Errorf("GET %s as %q: %d, want %d", c.path, name, p.status, c.want[i])
			}
			if p.status >= 400 && name != "instructor" && strings.Contains(p.text(), "Mira") && name != "mira.keller" {
				t.Errorf("GET %s as %q: a refusal that names Mira", c.path, name)
			}
		}
		for _, c := range posts {
			if p := b.post(c.path, c.form); p.status != c.want[i] {
				t.Errorf("POST %s as %q: %d, want %d", c.path, name, p.status, c.want[i])
			}
			covered["POST "+pattern(c.path)] = true
		}
	}
	covered["GET /{$}"], covered["GET /people/{person}"] = covered["GET /"], covered["GET /people/nobody"]
	covered["GET /reasons/{reason}"], covered["GET /people/{person}/reasons/{reason}"] = covered["GET /reasons/git.secret_committed"], covered["GET /people/nobody/reasons/git.secret_committed"]
	covered["GET /console/results/{file}"] = covered["GET /console/results/results.csv"]
	for _, p := range s.LMS.routes() {
		if !covered[p.Pattern] {
			t.Errorf("the table does not try %s", p.Pattern)
		}
	}
	if n := s.rows(`SELECT count(*) FROM training.lesson WHERE person = 'instructor' OR person = ''`); n != 0 {
		t.Errorf("%d lessons of nobody", n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.decisions, func(e audit.Entry) bool {
		return e.Person == "tom.brandt" && e.Route == "GET /training/{lesson}" && e.Outcome == "Forbidden" && e.Reason == "not_own"
	}) {
		t.Errorf("a refused look at another's lesson is not among the decisions")
	}
}

func TestLeadersSeeTheirOwnTeamOnlyAndNoGroupUnderFive(t *testing.T) {
	s := newSchool(t)
	p := s.as("vera.holm").get("/team")
	for _, name := range names {
		mine := slices.Contains([]string{"Mira Keller", "Tom Brandt", "Vera Holm", "Ines Duarte", "Jonas Weber", "Lea Fontaine", "Piotr Nowak"}, name)
		if strings.Contains(p.body, name) != mine {
			t.Errorf("%s on Vera's page: %v, want %v", name, !mine, mine)
		}
	}
	if strings.Contains(p.body, "config/prod.env") || strings.Contains(p.text(), "secrets") {
		t.Error("the team's page says what somebody did")
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

func TestEveryAnswerHasTheHeaders(t *testing.T) {
	s := newSchool(t)
	css := regexp.MustCompile(`/static/app\.[0-9a-f]+\.css`).FindString(s.browser().get("/sign-in").body)
	want := map[string]string{
		"Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	}
	check := func(what string, p shown, cache string) {
		t.Helper()
		for k, v := range want {
			if got := p.header.Get(k); got != v {
				t.Errorf("%s: %s %q, want %q", what, k, got, v)
			}
		}
		if got := strings.Join(p.header.Values("Cache-Control"), ","); !strings.Contains(got, cache) {
			t.Errorf("%s: Cache-Control %q, want %q", what, got, cache)
		}
	}
	for _, name := range []string{"", "mira.keller", "instructor"} {
		b := s.as(name)
		for _, p := range s.LMS.routes() {
			method, path, _ := strings.Cut(p.Pattern, " ")
			path = strings.NewReplacer("{$}", "", "{lesson}", uuid.NewString(), "{person}", "tom.brandt", "{reason}", "git.secret_committed", "{mail}", uuid.NewString(), "{campaign}", uuid.NewString()).Replace(path)
			if path == "/console/events" && name == "instructor" {
				continue // it does not end; the console's own test reads its head
			}
			if method == "GET" {
				check(p.Pattern, b.get(path), "no-store")
			} else if path != "/sign-out" {
				check(p.Pattern, b.post(path, nil), "no-store")
			}
		}
		check("nowhere", b.get("/nowhere"), "no-store")
	}
	b := s.browser()
	p := b.get(css)
	check(css, p, "immutable")
	r, _ := http.NewRequest("GET", s.web.URL+css, nil)
	r.Header.Set("If-None-Match", p.header.Get("ETag"))
	if again := b.send(r); again.status != http.StatusNotModified || again.body != "" || p.header.Get("ETag") == "" {
		t.Errorf("asset that is known: %d, %d bytes", again.status, len(again.body))
	}
	r, _ = http.NewRequest("POST", s.web.URL+"/sign-out", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	check("cross-site", b.send(r), "no-store")

	link := s.link(`{"person":"mira.keller"}`)
	_, token, _ := strings.Cut(link.Path, "token=")
	p = b.post("/sign-in", url.Values{"token": {token}})
	c := p.header.Get("Set-Cookie")
	for _, want := range []string{"session=", "Path=/", "HttpOnly", "SameSite=Strict"} {
		if !strings.Contains(c, want) {
			t.Errorf("cookie %q lacks %s", c, want)
		}
	}
	if strings.Contains(c, "Expires") || s.rows(`SELECT count(*) FROM training.session WHERE $1 LIKE '%' || token || '%'`, c) != 0 {
		t.Errorf("cookie %q outlives the browser, or is what the table holds", c)
	}
}

func TestRequestsFromOtherSitesChangeNothing(t *testing.T) {
	s := newSchool(t)
	b := s.as("mira.keller")
	before := s.rows(`SELECT count(*) FROM audit.own`)
	for _, path := range []string{"/training", "/sign-out", "/sign-in"} {
		for _, h := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Origin": {"https://evil.example"}}, {"Origin": {"null"}}} {
			r, _ := http.NewRequest("POST", s.web.URL+path, strings.NewReader("module=phishing"))
			r.Header = h.Clone()
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if p := b.send(r); p.status != http.StatusForbidden {
				t.Errorf("POST %s with %v: %d", path, h, p.status)
			}
		}
		r, _ := http.NewRequest("POST", s.web.URL+path, strings.NewReader(`{"module":"phishing"}`))
		r.Header.Set("Content-Type", "application/json")
		if p := b.send(r); p.status != http.StatusUnsupportedMediaType {
			t.Errorf("POST %s as JSON: %d", path, p.status)
		}
	}
	if after := s.rows(`SELECT count(*) FROM audit.own`); after != before {
		t.Errorf("%d audit rows for refused requests", after-before)
	}
	if p := b.get("/"); p.status != 200 {
		t.Errorf("signed out by another site: %d", p.status)
	}
}

func TestLinkWorksOnceHoweverManyTryAndLookingDoesNotUseItUp(t *testing.T) {
	s := newSchool(t)
	link := s.link(`{"person":"mira.keller"}`)
	_, token, _ := strings.Cut(link.Path, "token=")
	if n := s.rows(`SELECT count(*) FROM training.link WHERE encode(token, 'escape') LIKE '%' || $1 || '%'`, token); n != 0 {
		t.Error("the token is in the table")
	}
	if left := time.Until(link.Expires); left < 14*time.Minute || left > 15*time.Minute {
		t.Errorf("works for %v", left)
	}
	for range 3 {
		if p := s.browser().get(link.Path); p.status != 200 || !strings.Contains(p.body, `id="sign-in"`) {
			t.Fatalf("look: %d", p.status)
		}
	}
	var mu sync.Mutex
	counts := map[int]int{}
	var group sync.WaitGroup
	for range 12 {
		group.Go(func() {
			p := s.browser().post("/sign-in", url.Values{"token": {token}})
			mu.Lock()
			counts[p.status]++
			mu.Unlock()
		})
	}
	group.Wait()
	if diff := cmp.Diff(map[int]int{303: 1, 403: 11}, counts); diff != "" {
		t.Error(diff)
	}
	late := s.link(`{"role":"instructor"}`)
	s.exec(`UPDATE training.link SET expires = now() - interval '1 second' WHERE used IS NULL`)
	_, token, _ = strings.Cut(late.Path, "token=")
	if p := s.browser().post("/sign-in", url.Values{"token": {token}}); p.status != 403 || !strings.Contains(p.text(), "does not work any more") {
		t.Errorf("late: %d", p.status)
	}
	if diff := cmp.Diff([]string{"link.made", "sign_in", "link.made"}, kinds(s.chain())); diff != "" {
		t.Error(diff)
	}
}

func (s *school) exec(query string) {
	s.t.Helper()
	if _, err := s.db.Pool.Exec(s.t.Context(), query); err != nil {
		s.t.Fatal(err)
	}
}

func TestSessionEndsBySigningOutBeingIdleOrLeaving(t *testing.T) {
	s := newSchool(t)
	out, idle, left := s.as("mira.keller"), s.as("mira.keller"), s.as("tom.brandt")
	u, _ := url.Parse(s.web.URL)
	cookie := out.Jar.Cookies(u)
	if p := out.post("/sign-out", nil); p.status != 303 || p.location() != "/sign-in" {
		t.Errorf("sign out: %d", p.status)
	}
	out.Jar.SetCookies(u, cookie)
	if p := out.get("/"); p.status != 401 {
		t.Errorf("with the old cookie: %d", p.status)
	}
	if p := idle.get("/"); p.status != 200 {
		t.Errorf("before: %d", p.status)
	}
	if n := s.rows(`SELECT count(*) FROM training.session WHERE expiry BETWEEN now() + interval '29 minutes' AND now() + interval '31 minutes'`); n != 2 {
		t.Errorf("%d sessions end after half an hour, want 2", n)
	}
	s.scorer.set(func() {
		s.scorer.people = slices.DeleteFunc(s.scorer.people, func(p risk.Person) bool { return p.ID == "tom.brandt" })
	})
	s.LMS.scorer.Roster.Forget()
	if p := left.get("/"); p.status != 403 {
		t.Errorf("after leaving: %d", p.status)
	}
	if p := left.get("/"); p.status != 401 {
		t.Errorf("after leaving, again: %d", p.status)
	}
	s.exec(`UPDATE training.session SET expiry = now() - interval '1 second'`)
	if p := idle.get("/"); p.status != 401 {
		t.Errorf("idle: %d", p.status)
	}
}

var dataScore = regexp.MustCompile(`id="risk-score" data-score="([0-9.]+)"`)

func (b *browser) score() float64 {
	b.s.t.Helper()
	m := dataScore.FindStringSubmatch(b.get("/").body)
	if m == nil {
		b.s.t.Fatal("the page shows no score")
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return v
}

func TestPassingTheQuizOfALessonAboutWhatHappenedLowersTheScore(t *testing.T) {
	s := newSchool(t)
	b := s.as("mira.keller")
	before := b.score()
	home := b.get("/").text()
	for _, want := range []string{"Committed 3 secrets", "payments: config/prod.env", "What would lower it", "Keep secrets out of code", "Medium"} {
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
	if missing.status != 422 || !strings.Contains(missing.text(), "3 questions have no answer yet") || strings.Count(missing.body, "checked") != 1 {
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
	if len(events) != 1 || events[0].Module != module || len(events[0].Teaches) == 0 || *events[0].Score != 1 || !events[0].At.Equal(labNow) || events[0].ID != "training:"+strings.TrimPrefix(path, "/training/") {
		t.Errorf("events %+v", events)
	}
	if _, offset := events[0].At.Zone(); offset != 7200 {
		t.Errorf("the event's offset is %d s, not the person's", offset)
	}
	s.heard() // the page has the score a moment before the receipt is kept
	if diff := cmp.Diff([]string{"link.made", "sign_in", "lesson.asked", "lesson.written", "attempt", "completion", "delivery"}, kinds(s.chain())); diff != "" {
		t.Error(diff)
	}
}

func (s *school) assess(person string) risk.Assessment {
	s.t.Helper()
	a, err := s.LMS.scorer.Risk(s.t.Context(), person)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func TestThreeFailuresEndALessonAndOneAttemptCountsOnce(t *testing.T) {
	s := newSchool(t)
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
	if !strings.Contains(p.text(), "2 attempts left") || strings.Contains(p.text(), quiz[0].Why) || strings.Contains(p.body, "effect-card") || !strings.Contains(p.text(), "Wrong") {
		t.Errorf("after the first: %s", p.text())
	}
	b.attempt(path, "phishing", 2, 4)
	b.attempt(path, "phishing", 3, 2)
	p = b.get(path + "/result")
	if !strings.Contains(p.text(), "Not passed") || !strings.Contains(p.text(), quiz[0].Why) || !strings.Contains(p.text(), quiz[0].Options[quiz[0].Answer]) {
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
		t.Error("a failed lesson cannot be taken anew")
	}
}

func TestTrainingReachesTheScorerOnceAlthoughAnswersAreLostAndItWasAway(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newSchool(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	s.scorer.set(func() { s.scorer.lose = 2 })
	b.attempt(path, "secret-hygiene", 1, 0)
	s.await("delivery", func() bool { return s.rows(`SELECT count(*) FROM training.outbox WHERE delivered IS NOT NULL`) == 1 })
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
	s.scorer.set(func() { s.scorer.away = true })
	if p := b.attempt(path, "phishing", 1, 0); p.status != 303 {
		t.Fatalf("grade while the scorer is away: %d %s", p.status, p.text())
	}
	if p := b.get(path + "/result"); p.status != 200 || !strings.Contains(p.text(), "the new score is then shown here") {
		t.Errorf("result while the scorer is away: %d %s", p.status, p.text())
	}
	if p := b.get("/"); p.status != 503 || p.header.Get("Retry-After") == "" || !strings.Contains(p.text(), "Training so far") || !strings.Contains(p.text(), "Passed") {
		t.Errorf("my risk while the scorer is away: %d %s", p.status, p.text())
	}
	if p := b.get("/training"); p.status != 503 || !strings.Contains(p.text(), "Catalogue") {
		t.Errorf("my training while the scorer is away: %d", p.status)
	}
	if p := b.post("/training", url.Values{"module": {"malware"}}); p.status != 503 {
		t.Errorf("start while the scorer is away: %d", p.status)
	}
	s.scorer.set(func() { s.scorer.away = false })
	s.await("delivery", func() bool { return s.rows(`SELECT count(*) FROM training.outbox WHERE delivered IS NULL`) == 0 })
	if p := b.get(path + "/result"); !strings.Contains(p.body, `data-after="0.`) {
		t.Errorf("result afterwards: %s", p.text())
	}
}

func TestLessonIsBuiltInAndSaysSoWhenTheGatewayFails(t *testing.T) {
	s := newSchool(t)
	b := s.as("mira.keller")
	for _, c := range []struct {
		module, say string
		edit        func(*lesson.Lesson)
		fail        error
	}{
		{"phishing", "the model cannot be reached", nil, httpjson.Errorf(503, "away", "away")},
		{"malware", "the model cannot be reached", func(l *lesson.Lesson) { l.Summary = "<script>alert(1)</script> see https://evil.example" }, nil},
		{"policy", "the model cannot be reached", func(l *lesson.Lesson) { l.Module = "phishing" }, nil},
		{"data-handling", "the model took too long", func(l *lesson.Lesson) { l.Origin, l.Model, l.Fallback = lesson.Authored, "", lesson.ModelTimeout }, nil},
	} {
		s.gateway.set(func() { s.gateway.edit, s.gateway.fail = c.edit, c.fail })
		p := b.get(b.start(c.module))
		if p.status != 200 || !strings.Contains(p.text(), "Built-in lesson, because "+c.say) || strings.Contains(p.body, "evil.example") || !strings.Contains(p.text(), lesson.BuiltIn(c.module).Title) {
			t.Errorf("%s: %d %s", c.module, p.status, p.text())
		}
	}
	s.gateway.set(func() { s.gateway.fail = httpjson.Errorf(429, "over_quota", "used up").After(90 * time.Second) })
	p := b.get(b.start("authentication"))
	if wait, _ := strconv.Atoi(p.header.Get("Retry-After")); p.status != 429 || wait < 80 || wait > 90 || !strings.Contains(p.text(), "Too many requests") {
		t.Errorf("over quota: %d, Retry-After %d", p.status, wait)
	}
	s.gateway.set(func() { s.gateway.fail = nil })
	if p := b.get(b.start("authentication")); p.status != 200 {
		t.Errorf("asked again: %d", p.status)
	}
}

func TestPageShowsThatALessonIsBeingWrittenAndThenTheLesson(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newSchool(t)
	hold := make(chan struct{})
	s.gateway.set(func() { s.gateway.hold = hold })
	b := s.as("mira.keller")
	path := b.start("phishing")
	p := b.get(path)
	if p.status != 200 || !strings.Contains(p.body, `<noscript><meta http-equiv="refresh" content="1"></noscript>`) || !strings.Contains(p.text(), "Your lesson is being written") {
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
	s := newSchool(t)
	b := s.as("mira.keller")
	s.exec(`INSERT INTO training.lesson (person, module, state, request, asked, again) SELECT 'mira.keller', 'policy', 'refused', '{}', now(), now() FROM generate_series(1, 20)`)
	if p := b.post("/training", url.Values{"module": {"phishing"}}); p.status != 429 || p.header.Get("Retry-After") == "" {
		t.Errorf("the twenty-first: %d", p.status)
	}
}

func TestTextOfStrangersIsShownAsText(t *testing.T) {
	s := newSchool(t)
	hostile := `"><script>alert(1)</script><img src=x onerror=alert(2)>`
	s.scorer.set(func() {
		s.scorer.people[0].Name = "Mira " + hostile
		s.scorer.people[0].Team = hostile
		for i := range s.scorer.events["mira.keller"] {
			s.scorer.events["mira.keller"][i].Detail = hostile
		}
	})
	b, err := json.Marshal(exercise.Exercise{ID: "x", Title: hostile, Brief: hostile, State: "playing", Attack: []string{"javascript:x"}, Steps: []exercise.Step{{At: "1", Who: hostile, What: hostile, Outcome: hostile}}})
	if err != nil {
		t.Fatal(err)
	}
	if w := s.wire(s.console.PostExercise, "POST", "/v1/exercises", "application/json", string(b)); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	mira, teacher := s.as("mira.keller"), s.as("instructor")
	path := mira.start("phishing")
	pages := map[string]shown{}
	for _, p := range []string{"/", "/training", path, path + "/quiz"} {
		pages[p] = mira.get(p)
	}
	for _, p := range []string{"/organisation", "/people", "/people?q=" + url.QueryEscape(hostile), "/people/mira.keller", "/exercises", "/audit?person=" + url.QueryEscape(hostile), "/people?team=" + url.QueryEscape(hostile)} {
		pages[p] = teacher.get(p)
	}
	pages["/team"] = s.as("vera.holm").get("/team")
	foreign := regexp.MustCompile(`(?i)(src|href|action)="(https?:|//|javascript:|data:)`)
	for path, p := range pages {
		if p.status != 200 {
			t.Errorf("%s: %d", path, p.status)
		}
		own := regexp.MustCompile(`<script src="/static/[a-z]+\.[0-9a-f]{16}\.js" defer></script>`)
		p.body = own.ReplaceAllString(p.body, "")
		for _, bad := range []string{"<script", "<img src=x", "<style", ` style=`, ` onerror="`} {
			if strings.Contains(strings.ToLower(p.body), bad) {
				t.Errorf("%s holds %s", path, bad)
			}
		}
		if m := foreign.FindString(p.body); m != "" {
			t.Errorf("%s holds %s", path, m)
		}
	}
}

func TestPagesAreSmallOnceCompressed(t *testing.T) {
	s := newSchool(t)
	b := s.as("instructor")
	r, _ := http.NewRequest("GET", s.web.URL+"/organisation", nil)
	r.Header.Set("Accept-Encoding", "br, gzip;q=0.8")
	resp, err := b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	packed, err := io.ReadAll(resp.Body)
	if err != nil || resp.Header.Get("Content-Encoding") != "gzip" || len(packed) > 60<<10 {
		t.Fatalf("%d bytes, encoding %q, %v", len(packed), resp.Header.Get("Content-Encoding"), err)
	}
	z, err := gzip.NewReader(strings.NewReader(string(packed)))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(z); err != nil || !strings.Contains(string(text), "</html>") {
		t.Errorf("unpacked: %v", err)
	}
	r.Header.Set("Accept-Encoding", "gzip;q=0")
	if p := b.send(r); p.header.Get("Content-Encoding") != "" {
		t.Error("compressed for one who does not take it")
	}
}

func TestMeshRoutesRefuseWhatIsWrongBeforeAnythingElse(t *testing.T) {
	s := newSchool(t)
	for _, c := range []struct {
		name        string
		h           func(http.ResponseWriter, *http.Request) error
		contentType string
		body        string
		want        int
	}{
		{"link", s.auth.PostLink, "application/probe", `{"role":"instructor"}`, 415},
		{"exercise", s.console.PostExercise, "application/probe", `{}`, 415},
		{"reset", s.PostReset, "application/probe", `{}`, 415},
		{"reset", s.PostReset, "", ``, 415},
		{"link of nobody", s.auth.PostLink, "application/json", `{}`, 422},
		{"link of a stranger", s.auth.PostLink, "application/json", `{"person":"no.body"}`, 404},
		{"link of a bad id", s.auth.PostLink, "application/json", `{"person":"<b>"}`, 422},
		{"link of an unknown role", s.auth.PostLink, "application/json", `{"role":"owner"}`, 422},
		{"link of an instructor with a person", s.auth.PostLink, "application/json", `{"role":"instructor","person":"mira.keller"}`, 422},
		{"link of a manager without reports", s.auth.PostLink, "application/json", `{"role":"manager","person":"tom.brandt"}`, 409},
		{"link with more", s.auth.PostLink, "application/json", `{"person":"mira.keller","admin":true}`, 400},
		{"exercise without anything", s.console.PostExercise, "application/json", `{}`, 422},
		{"exercise with more", s.console.PostExercise, "application/json", `{"x":1}`, 400},
		{"exercise in no state", s.console.PostExercise, "application/json", `{"id":"a","title":"b","state":"lost"}`, 422},
		{"records", s.training.PutTraining, "application/probe", `{}`, 415},
		{"records with more", s.training.PutTraining, "application/json", `{"x":1}`, 400},
		{"records of another source", s.training.PutTraining, "application/json", `{"events":[{"id":"git:x","at":"2026-09-01T10:00:00Z","person":"mira.keller","source":"git","verb":"git.commit"}]}`, 422},
		{"records of nobody", s.training.PutTraining, "application/json", `{"events":[{"id":"training:x","at":"2026-09-01T10:00:00Z","accounts":["email:x"],"source":"training","verb":"training.stale"}]}`, 422},
		{"revocation", s.auth.PostRevocation, "application/probe", `{}`, 415},
		{"revocation of nobody", s.auth.PostRevocation, "application/json", `{"role":"person","before":"2026-01-01T00:00:00Z"}`, 422},
		{"revocation of an unknown role", s.auth.PostRevocation, "application/json", `{"name":"mira.keller","role":"owner","before":"2026-01-01T00:00:00Z"}`, 422},
		{"revocation without a time", s.auth.PostRevocation, "application/json", `{"name":"mira.keller","role":"person"}`, 422},
		{"revocation of what is yet to come", s.auth.PostRevocation, "application/json", `{"name":"mira.keller","role":"person","before":"2999-01-01T00:00:00Z"}`, 422},
		{"revocation with more", s.auth.PostRevocation, "application/json", `{"name":"mira.keller","role":"person","before":"2026-01-01T00:00:00Z","x":1}`, 400},
		{"reset with more", s.PostReset, "application/json", `{"x":1}`, 400},
	} {
		if w := s.wire(c.h, "POST", "/", c.contentType, c.body); w.Code != c.want {
			t.Errorf("%s: %d, want %d: %s", c.name, w.Code, c.want, w.Body)
		}
	}
	if n := len(s.chain()); n != 0 {
		t.Errorf("%d audit rows for refused orders", n)
	}
	if l := s.link(`{"role":"manager","person":"vera.holm"}`); l.Role != "manager" || l.Person != "vera.holm" || !strings.HasPrefix(l.Path, "/sign-in?token=") {
		t.Errorf("link %+v", l)
	}
	if l := s.link(`{"role":"instructor"}`); l.Role != "instructor" || l.Person != "" {
		t.Errorf("link %+v", l)
	}
	s.scorer.set(func() { s.scorer.away = true })
	s.LMS.scorer.Roster.Forget()
	if w := s.wire(s.auth.PostLink, "POST", "/", "application/json", `{"person":"mira.keller"}`); w.Code != 503 ||
		w.Header().Get("Retry-After") == "" {
		t.Errorf("link while the scorer is away: %d", w.Code)
	}
	s.link(`{"role":"instructor"}`)
}

func TestASilentSourceIsShownAsMissingAndNotAsInnocence(t *testing.T) {
	s := newSchool(t)
	const words = "For days, no events have come from: "
	learner, instructor := s.as("mira.keller"), s.as("instructor")
	for path, who := range map[string]*browser{"/": learner, "/organisation": instructor} {
		if strings.Contains(who.get(path).text(), words) {
			t.Errorf("%s: every source is heard from, and one is called silent", path)
		}
	}
	s.scorer.set(func() { s.scorer.missing = []activity.Source{activity.SIEM, activity.Git} })
	s.LMS.scorer.Company.Forget()
	if text := learner.get("/").text(); !strings.Contains(text, words+"alerts, code.") {
		t.Errorf("my risk does not name the silent sources: %.600s", text)
	}
	if text := instructor.get("/organisation").text(); !strings.Contains(text, words+"alerts, code.") {
		t.Errorf("the organisation does not name the silent sources: %.600s", text)
	}
}

func TestExercisesAreStoredByIdAndShown(t *testing.T) {
	s := newSchool(t)
	s.exercise("one", "playing")
	s.exercise("two", "planned")
	s.exercise("one", "passed")
	w := s.wire(s.console.GetExercises, "GET", "/v1/exercises", "", "")
	var all []exercise.Exercise
	if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil || len(all) != 2 || all[1].ID != "one" || all[1].State != "passed" || len(all[1].Steps) != 3 || all[1].Begun.IsZero() {
		t.Errorf("%v %+v", err, all)
	}
	p := s.as("instructor").get("/exercises")
	if !strings.Contains(p.text(), "A token leaves the building") || !strings.Contains(p.text(), "2 of 3 steps, 1 failed") {
		t.Errorf("%s", p.text())
	}
	s.exercise("two", "playing")
	p = s.as("instructor").get("/exercises")
	if refresh := p.header.Get("Refresh"); refresh != "" || strings.Contains(p.body, `http-equiv="refresh"`) {
		t.Errorf("a page loads itself again, and nobody can stop it: %q", refresh)
	}
	for _, want := range []string{`id="played" role="status" aria-atomic="false" class="column" data-live`, `id="still" aria-pressed="false" hidden`, `<noscript><a href="/exercises">Look again</a></noscript>`} {
		if !strings.Contains(p.body, want) {
			t.Errorf("the page of a live exercise has no %s", want)
		}
	}
}

func TestResetTakesAwayTrainingAndKeepsTheAuditAndWhoIsSignedIn(t *testing.T) {
	s := newSchool(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	b.attempt(path, "secret-hygiene", 1, 0)
	s.exercise("one", "passed")
	s.await("delivery", func() bool { return s.rows(`SELECT count(*) FROM training.outbox WHERE delivered IS NULL`) == 0 })
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
	s := newSchool(t)
	one, other := s.as("mira.keller"), s.as("tom.brandt")
	gone, kept := one.start("secret-hygiene"), other.start("secret-hygiene")
	s.exercise("leaked-secret-1", "passed")
	s.exercise("leaked-secret-2", "passed")
	for _, body := range []string{`{}`, `{"all":true}`, `{"mark":"x"}`, `{"all":true,"mark":"x","exercises":["leaked-secret-1"]}`, `{"mark":"x","exercises":["leaked-secret-1"]}`} {
		if w := s.wire(s.PostReset, "POST", "/v1/reset", "application/json", body); w.Code != 422 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if w := s.wire(s.PostReset, "POST", "/v1/reset", "application/json", `{"exercises":["leaked-secret-1"],"people":["mira.keller"]}`); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if n := s.rows(`SELECT count(*) FROM training.exercise WHERE id = 'leaked-secret-2'`); n != 1 || s.rows(`SELECT count(*) FROM training.exercise`) != 1 {
		t.Error("want the other exercise left, and it alone")
	}
	if p := one.get(gone); p.status != 404 {
		t.Errorf("the lesson of the cast afterwards: %d", p.status)
	}
	if p := other.get(kept); p.status != 200 {
		t.Errorf("somebody else's lesson afterwards: %d", p.status)
	}
}

func TestExportedAuditIsOneUnbrokenChain(t *testing.T) {
	s := newSchool(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	b.attempt(path, "secret-hygiene", 1, 0)
	s.await("delivery", func() bool { return s.rows(`SELECT count(*) FROM training.outbox WHERE delivered IS NULL`) == 0 })
	s.as("instructor").get("/people/mira.keller")
	all := s.chain()
	prev := ""
	for i, e := range all {
		text := strings.Join([]string{e.Chain, fmt.Sprint(e.Seq), fmt.Sprint(e.At.UnixMicro()), e.Kind, e.Person, e.Event, e.Prev, e.Detail}, "\n")
		sum := sha256.Sum256([]byte(text))
		if e.Chain != "lms" || e.Seq != int64(i+1) || e.Prev != prev || e.Hash != hex.EncodeToString(sum[:]) {
			t.Fatalf("entry %d breaks the chain: %+v", i+1, e)
		}
		prev = e.Hash
	}
	if !slices.ContainsFunc(all, func(e audit.Row) bool { return e.Kind == "view" && e.Person == "mira.keller" }) {
		t.Error("an instructor's look at a person is not in the audit")
	}
	w := s.wire(s.auditlog.GetAudit, "GET", "/v1/audit?after=2&limit=1", "", "")
	if n := strings.Count(w.Body.String(), "\n"); n != 1 || !strings.Contains(w.Body.String(), `"seq":3,`) {
		t.Errorf("one entry after the second: %s", w.Body)
	}
	page := s.as("instructor").get("/audit?event=" + url.QueryEscape("training:"+strings.TrimPrefix(path, "/training/")))
	if n := strings.Count(page.body, "<tr>"); n != 3 { // head, completion, delivery
		t.Errorf("%d rows for one event", n)
	}
}

func TestRecordsOfBeforeReachTheScorerOnce(t *testing.T) {
	s := newSchool(t)
	body := `{"events":[{"id":"training:stale-1","at":"2026-09-01T10:00:00+02:00","person":"tom.brandt","source":"training","verb":"training.stale"},
		{"id":"training:overdue-1","at":"2026-09-02T10:00:00+02:00","person":"tom.brandt","source":"training","verb":"training.overdue_module","module":"phishing"}]}`
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

func TestLostDatabaseIsAnsweredAsSuch(t *testing.T) {
	config := server.Config(t, "postgres", "lms")
	config.ConnConfig.Host = t.TempDir() // nobody listens there
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	l, err := New(Config{Pool: pool, Scorer: newFakeScorer(t).call, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/organisation"} {
		r := httptest.NewRequest("GET", path, nil)
		r.AddCookie(&http.Cookie{Name: "session", Value: "x"})
		w := httptest.NewRecorder()
		l.Pages().ServeHTTP(w, r)
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "Not available at the moment") || strings.Contains(w.Body.String(), "dial") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestDetailsReachTheGatewayWithoutNames(t *testing.T) {
	people := []risk.Standing{}
	for _, p := range company() {
		people = append(people, risk.Standing{Person: p})
	}
	for in, want := range map[string]string{
		"payments: config/prod.env":                   "payments: config/prod.env",
		"key of Mira Keller, mira.keller@EXAMPLE.org": "key of [person], [person]",
		"github mira-keller pushed for Tom Brandt":    "github [person] pushed for [person]",
		"Keller's laptop":                             "[person]'s laptop",
		"\xff\xfebad":                                 "bad",
	} {
		if got := training.Anonymise(in, people); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := training.Anonymise(strings.Repeat("é", 400), people); len(got) > 500 {
		t.Errorf("%d bytes", len(got))
	}
}
