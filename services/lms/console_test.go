package lms

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/topology"
)

// withConductor is a fixture whose conductor has sent its scenarios.
func withConductor(t *testing.T) *fixture {
	t.Helper()
	text, err := os.ReadFile("../../manifests/chart/topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	topo, err := topology.FromYAML(text)
	if err != nil {
		t.Fatal(err)
	}
	s := newFixture(t, func(_ *fixture, cfg *Config) { cfg.Topology = func() *topology.Topology { return topo } })
	body := `{"fresh":true,"strangers":[{"name":"forged","what":"signed by another CA"}],
		"scenarios":[{"name":"leaked-secret","title":"A token leaves","brief":"Late.","difficulty":2,"minutes":15,
		"attack":["T1552.001"],"steps":3,"hints":[{"cost":10,"text":"Look at the author."}],"debrief":"Revoke it."}]}`
	if w := s.wire(s.console.PutScenarios, "PUT", "/v1/scenarios", "application/json", body); w.Code != 204 {
		t.Fatalf("announce: %d %s", w.Code, w.Body)
	}
	return s
}

func (s *fixture) orders(wait string) exercise.Orders {
	s.t.Helper()
	w := s.wire(s.console.GetOrders, "GET", "/v1/orders"+wait, "", "")
	var o exercise.Orders
	if err := json.Unmarshal(w.Body.Bytes(), &o); w.Code != 200 || err != nil {
		s.t.Fatalf("orders: %d %s", w.Code, w.Body)
	}
	return o
}

func (s *fixture) report(number, body string) int {
	s.t.Helper()
	return s.wire(func(w http.ResponseWriter, r *http.Request) error {
		r.SetPathValue("order", number)
		return s.console.PostOrder(w, r)
	}, "POST", "/v1/orders/"+number, "application/json", body).Code
}

func TestAnOrderOfTheConsoleReachesTheConductorOnceAndItsResultIsShown(t *testing.T) {
	s := withConductor(t)
	got := make(chan exercise.Orders, 1)
	go func() { got <- s.orders("?wait=20s") }()
	instructor := s.as(site.RoleInstructor)
	if p := instructor.get("/console"); p.status != 200 || !strings.Contains(p.body, `id="play-leaked-secret"`) {
		t.Fatalf("console: %d %s", p.status, p.body)
	}
	first := <-got // the first page view
	if !first.Watched {
		t.Errorf("the conductor is not told that the console is watched: %+v", first)
	}
	go func() { got <- s.orders("?wait=20s&watched=true") }()
	cell := "forged|llm-gateway|POST /v1/generate"
	if p := instructor.post("/console/orders", url.Values{"kind": {"try"}, "cell": {cell}}); p.status != 303 ||
		p.location() != "/console/matrix?callee=llm-gateway" {
		t.Fatalf("try: %d %s %s", p.status, p.location(), p.body)
	}
	o := <-got
	if len(o.Orders) != 1 || o.Orders[0].Kind != "try" || o.Orders[0].Caller != "forged" {
		t.Fatalf("orders %+v", o)
	}
	for _, step := range []struct {
		body string
		want int
	}{
		{`{"state":"done"}`, 409}, // not taken
		{`{"state":"taken"}`, 204}, {`{"state":"taken"}`, 409}, {`{"state":"perhaps"}`, 422},
		{
			`{"state":"done","note":"as expected","result":{"tried":{"expected":"Refused","measured":"Refused",
				"shown":"spiffe://x/lms","saw":"the handshake failed","reason":"unknown_issuer","wrote":"seq 12"}}}`,
			204,
		},
		{`{"state":"failed"}`, 409},
	} {
		if code := s.report("1", step.body); code != step.want {
			t.Errorf("report %s: %d, want %d", step.body, code, step.want)
		}
	}
	if code := s.report("77", `{"state":"taken"}`); code != 404 {
		t.Errorf("an order that is not there: %d", code)
	}
	page := instructor.get("/console/matrix?callee=llm-gateway")
	for _, want := range []string{"unknown_issuer", "the handshake failed", `value="` + cell + `"`} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the matrix does not show %q", want)
		}
	}
	kinds := map[string]bool{}
	for _, e := range s.chain() {
		kinds[e.Kind] = true
	}
	if !kinds["order"] || !kinds["order.done"] {
		t.Errorf("the audit has no order and no end of it: %v", kinds)
	}
}

func TestOnlyAnAdminGivesAndTakesIdentitiesAndNobodyShutsTheConsoleOut(t *testing.T) {
	s := withConductor(t)
	_, token, _ := strings.Cut(s.link(`{"role":"admin"}`).Path, "token=")
	admin := s.browser()
	if p := admin.post("/sign-in", url.Values{"token": {token}}); p.status != 303 {
		t.Fatalf("sign in as admin: %d", p.status)
	}
	instructor, learner := s.as(site.RoleInstructor), s.as("mira.keller")
	take := func(w string) url.Values { return url.Values{"kind": {"withdraw"}, "workload": {w}} }
	order := func(kind, cell string) url.Values { return url.Values{"kind": {kind}, "cell": {cell}} }
	for _, c := range []struct {
		who    string
		b      *browser
		path   string
		form   url.Values
		status int
	}{
		{"an instructor", instructor, "/console/identities", take("llm-gateway"), 403},
		{"a learner", learner, "/console/identities", take("llm-gateway"), 403},
		{"a learner", learner, "/console/orders", url.Values{"kind": {"reset"}}, 403},
		{"a learner", learner, "/console/hints", url.Values{"number": {"1"}}, 403},
		{"nobody", s.browser(), "/console/orders", url.Values{"kind": {"reset"}}, 401},
		{"an admin", admin, "/console/identities", take("llm-gateway"), 303},
		{"an admin", admin, "/console/identities", take("lms"), 422},
		{"an admin", admin, "/console/identities", take("postgres"), 422},
		{"an admin", admin, "/console/identities", take("mallory"), 422},
		{"an admin, by the wrong door", admin, "/console/orders", take("llm-gateway"), 422},
		{"an instructor", instructor, "/console/orders", order("revoke", "instructor|lms|GET /v1/orders"), 422},
		{"an instructor", instructor, "/console/orders", order("revoke", "forged|llm-gateway|POST /v1/generate"), 422},
		{"an instructor", instructor, "/console/orders", order("try", "forged|llm-gateway|DELETE /v1/everything"), 422},
		{"an instructor", instructor, "/console/orders", order("revoke", "lms|llm-gateway|POST /v1/generate"), 303},
		{"an instructor", instructor, "/console/orders", url.Values{"kind": {"play"}, "scenario": {"../etc/passwd"}}, 422},
		{"an instructor", instructor, "/console/orders", url.Values{"kind": {"format"}}, 422},
		{"an instructor", instructor, "/console/orders", url.Values{"kind": {"story"}, "event": {"x"}}, 422},
	} {
		if p := c.b.post(c.path, c.form); p.status != c.status {
			t.Errorf("%s posts %v to %s: %d, want %d", c.who, c.form, c.path, p.status, c.status)
		}
	}
	if p := instructor.post(
		"/console/orders",
		url.Values{"kind": {"reset"}, "exercise": {"leaked-secret-1"}, "back": {"https://evil.example/"}},
	); p.location() != "/console" {
		t.Errorf("a form leads to %q", p.location())
	}
	for _, path := range []string{
		"/console", "/console/matrix", "/console/identities", "/console/story", "/console/records",
		"/console/results/results.csv", "/console/events",
	} {
		if p := learner.get(path); p.status != 403 {
			t.Errorf("a learner gets %s: %d", path, p.status)
		}
	}
	if got := s.orders("").Orders; len(got) != 3 {
		t.Errorf("%d orders are waiting, want the three that were allowed: %+v", len(got), got)
	}
}

func TestAHintIsShownForItsPriceOnce(t *testing.T) {
	s := withConductor(t)
	if w := s.wire(
		s.console.PostExercise, "POST", "/v1/exercises", "application/json",
		`{"id":"leaked-secret-abc","title":"A token leaves","brief":"Late.","difficulty":2,"minutes":15,"attack":[],
			"state":"playing","steps":[{"at":"1h","who":"mira","what":"pushes","outcome":"happened"}]}`,
	); w.Code != 204 {
		t.Fatalf("exercise: %d %s", w.Code, w.Body)
	}
	instructor := s.as(site.RoleInstructor)
	before := instructor.get("/console").text()
	if !strings.Contains(before, "100 of 100 points") || strings.Contains(before, "Look at the author.") ||
		!strings.Contains(before, "Show for 10 points") {
		t.Errorf("before: %s", before)
	}
	for range 2 {
		if p := instructor.post("/console/hints", url.Values{
			"exercise": {"leaked-secret-abc"}, "number": {"1"},
		}); p.status != 303 {
			t.Fatalf("hint: %d %s", p.status, p.body)
		}
	}
	after := instructor.get("/console").text()
	if !strings.Contains(after, "90 of 100 points") || !strings.Contains(after, "Look at the author.") {
		t.Errorf("after: %s", after)
	}
	if strings.Contains(after, "Revoke it.") {
		t.Error("the debrief is shown while the exercise is on")
	}
	if p := instructor.post("/console/hints", url.Values{
		"exercise": {"leaked-secret-abc"}, "number": {"2"},
	}); p.status != 404 {
		t.Errorf("a hint that is not there: %d", p.status)
	}
}

func TestWhoWatchesHearsOfAChangeAtOnce(t *testing.T) {
	s := withConductor(t)
	instructor := s.as(site.RoleInstructor)
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.web.URL+"/console/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := instructor.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || kind != site.EventStream ||
		resp.Header.Get("Content-Security-Policy") != site.Policy {
		t.Fatalf("%d %s", resp.StatusCode, kind)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Scan()
	feed := `{"lines":[{"at":"2026-11-23T10:00:00Z","kind":"score","person":"mira.keller","what":"scores 0.412 now",
		"event":"git:secret/payments/1/a","level":"MEDIUM"}],
		"identities":[{"workload":"lms","spiffe_id":"spiffe://x/lms","state":"ready","serial":"1f"}],"revoked":[]}`
	if w := s.wire(s.console.PostFeed, "POST", "/v1/feed", "application/json", feed); w.Code != 204 {
		t.Fatalf("feed: %d %s", w.Code, w.Body)
	}
	for lines.Scan() && lines.Text() != "event: changed" {
	}
	if lines.Err() != nil || lines.Text() != "event: changed" {
		t.Errorf("the stream ended with %q: %v", lines.Text(), lines.Err())
	}
	page := instructor.get("/console?view=projector")
	for _, want := range []string{"scores 0.412 now", "mira.keller", "/console/story?event=git%3asecret", "projector"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the console does not show %q", want)
		}
	}
	if p := instructor.get("/console/identities"); !strings.Contains(p.body, "spiffe://x/lms") ||
		strings.Contains(p.body, `value="withdraw"`) {
		t.Error("an instructor sees no identities, or buttons that are for an admin")
	}
}

func TestAFeedThatCannotBeKeptIsRefusedAndTheNextOneIsTaken(t *testing.T) {
	s := withConductor(t)
	for line, want := range map[string]struct {
		status int
		code   string
	}{
		`{"at":"2026-11-23T10:00:00Z","kind":"event","what":"a\u0000b"}`: {400, "bad_text"},
		`{"at":"2026-11-23T10:00:00Z","kind":"gossip","what":"x"}`:       {422, "bad_feed"},
	} {
		w := s.wire(s.console.PostFeed, "POST", "/v1/feed", "application/json", `{"lines":[`+line+`]}`)
		if w.Code != want.status || !strings.Contains(w.Body.String(), want.code) {
			t.Errorf("%s: %d %s", line, w.Code, w.Body)
		}
	}
	if w := s.wire(
		s.console.PostFeed, "POST", "/v1/feed", "application/json",
		`{"lines":[{"at":"2026-11-23T10:00:00Z","kind":"event","what":"x"}]}`,
	); w.Code != 204 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestTheFeedSurvivesARestartAndKeepsItsLatestLines(t *testing.T) {
	s := withConductor(t)
	s.as("mira.keller")
	var told exercise.Feed
	for i := range exercise.FeedMost + 40 {
		told.Lines = append(
			told.Lines,
			exercise.FeedLine{
				At:     time.Now().UTC().Add(-time.Duration(exercise.FeedMost+40-i) * time.Second),
				Kind:   "event",
				Person: "tom.brandt",
				What:   fmt.Sprintf("git: commit %04d", i),
				Event:  fmt.Sprintf("git:commit/%d", i),
			},
		)
	}
	for lines := range slices.Chunk(told.Lines, exercise.FeedMost) {
		text, err := json.Marshal(exercise.Feed{Lines: lines})
		if err != nil {
			t.Fatal(err)
		}
		if w := s.wire(s.console.PostFeed, "POST", "/v1/feed", "application/json", string(text)); w.Code != 204 {
			t.Fatalf("feed: %d %s", w.Code, w.Body)
		}
	}
	if n := s.rows(`SELECT count(*) FROM training.feed`); n != exercise.FeedMost {
		t.Errorf("%d lines are kept, want %d", n, exercise.FeedMost)
	}
	before := s.as(site.RoleInstructor).get("/console").body

	again, err := New(s.cfg) // the same database, and no memory
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(again.Pages())
	defer web.Close()
	next := &fixture{LMS: again, t: t, scorer: s.scorer, gateway: s.gateway, web: web}
	after := next.as(site.RoleInstructor).get("/console").body
	feed := func(page string) string {
		_, text, _ := strings.Cut(page, `id="feed"`)
		text, _, _ = strings.Cut(text, "</ol>")
		return text
	}
	for _, want := range []string{
		fmt.Sprintf("git: commit %04d", exercise.FeedMost+39), "/people/mira.keller", "signs in",
	} {
		if !strings.Contains(feed(before), want) || !strings.Contains(feed(after), want) {
			t.Errorf(
				"%q: before the restart %v, after it %v",
				want,
				strings.Contains(feed(before), want),
				strings.Contains(feed(after), want),
			)
		}
	}
	if n := strings.Count(feed(after), fmt.Sprintf("git: commit %04d", exercise.FeedMost+39)); n != 1 {
		t.Errorf("the latest line is shown %d times", n)
	}
	if p := next.as(site.RoleInstructor).get("/console").body; strings.Count(
		feed(p),
		fmt.Sprintf("git: commit %04d", exercise.FeedMost+39),
	) != 1 {
		t.Error("another look shows it twice")
	}
}

func TestWhatChangesOnTheConsoleIsAnnouncedByItselfAlone(t *testing.T) {
	s := withConductor(t)
	s.exercise("leaked-secret-1", exercise.Playing)
	b := s.as(site.RoleInstructor)
	if p := b.post("/console/orders", url.Values{"kind": {"verify"}}); p.status != 303 {
		t.Fatalf("verify: %d", p.status)
	}
	for path, want := range map[string][]string{
		"/console": {
			`id="run" role="status" aria-atomic="false" data-live`, `id="orders" role="status" aria-atomic="false" data-live`,
			`id="feed" role="log"`, `id="trouble" role="alert"`, `id="listening" role="status"`,
		},
		"/console/identities": {`id="orders" role="status" aria-atomic="false" data-live`, `id="trouble" role="alert"`},
		"/console/matrix":     {`id="tries" role="status" aria-atomic="false" data-live`, `id="trouble" role="alert"`},
		"/console/story":      {`id="verified" role="status" aria-atomic="false" data-live`, `id="trouble" role="alert"`},
		"/exercises":          {`id="played" role="status" aria-atomic="false"`, `id="trouble" role="alert"`},
	} {
		page := b.get(path).body
		for _, x := range append(want, `id="still" aria-pressed="false"`, `Look again</a></noscript>`) {
			if !strings.Contains(page, x) {
				t.Errorf("%s has no %s", path, x)
			}
		}
		if strings.Contains(page, `http-equiv="refresh"`) {
			t.Errorf("%s loads itself again, and it cannot be stopped", path)
		}
	}
}

func TestExercisesAreStoredByIdAndShown(t *testing.T) {
	s := newFixture(t)
	s.exercise("one", "playing")
	s.exercise("two", "planned")
	s.exercise("one", "passed")
	w := s.wire(s.console.GetExercises, "GET", "/v1/exercises", "", "")
	var all []exercise.Exercise
	if err := json.Unmarshal(w.Body.Bytes(), &all); err != nil || len(all) != 2 || all[1].ID != "one" ||
		all[1].State != "passed" ||
		len(all[1].Steps) != 3 ||
		all[1].Begun.IsZero() {
		t.Errorf("%v %+v", err, all)
	}
	p := s.as("instructor").get("/exercises")
	if !strings.Contains(p.text(), "A token leaves the building") ||
		!strings.Contains(p.text(), "2 of 3 steps, 1 failed") {
		t.Errorf("%s", p.text())
	}
	s.exercise("two", "playing")
	p = s.as("instructor").get("/exercises")
	if refresh := p.header.Get("Refresh"); refresh != "" || strings.Contains(p.body, `http-equiv="refresh"`) {
		t.Errorf("a page loads itself again, and it cannot be stopped: %q", refresh)
	}
	for _, want := range []string{
		`id="played" role="status" aria-atomic="false" class="column" data-live`, `id="still" aria-pressed="false" hidden`,
		`<noscript><a href="/exercises">Look again</a></noscript>`,
	} {
		if !strings.Contains(p.body, want) {
			t.Errorf("the page of a live exercise has no %s", want)
		}
	}
}

// What one conductor has taken is given to no other, and what is done is not given again.
func TestAnOrderThatWasTakenIsHandedOutNoMore(t *testing.T) {
	s := withConductor(t)
	instructor := s.as(site.RoleInstructor)
	cell := "forged|llm-gateway|POST /v1/generate"
	if p := instructor.post("/console/orders", url.Values{"kind": {"try"}, "cell": {cell}}); p.status != 303 {
		t.Fatalf("try: %d %s", p.status, p.body)
	}
	waiting := func() int { return len(s.orders("").Orders) }
	if n := waiting(); n != 1 {
		t.Fatalf("%d orders wait, want 1", n)
	}
	for _, state := range []string{"taken", "done"} {
		if code := s.report("1", `{"state":"`+state+`"}`); code != 204 {
			t.Fatalf("report %s: %d", state, code)
		}
		if n := waiting(); n != 0 {
			t.Errorf("an order that is %s is handed out again", state)
		}
	}
}
