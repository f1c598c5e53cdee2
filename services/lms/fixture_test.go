package lms

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
)

// fixture is an LMS with its peers, for requests by browsers and by the command line.
type fixture struct {
	*LMS
	t       testing.TB
	scorer  *fakeScorer
	gateway *fakeGateway
	web     *httptest.Server

	mu        sync.Mutex
	decisions []audit.Entry
}

// newFixture starts an LMS. Of its people, Mira has a history of events and Tom has none; Vera leads six people, Mira
// and Tom among them; Otto leads two.
func newFixture(t testing.TB, change ...func(*fixture, *Config)) *fixture {
	t.Helper()
	s := &fixture{t: t, scorer: newFakeScorer(t), gateway: &fakeGateway{}}
	s.scorer.people = roster()
	s.scorer.events = history()
	s.scorer.accounts = 3
	var pages http.Handler
	s.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { pages.ServeHTTP(w, r) }))
	cfg := Config{
		Pool: database(
			t,
		), Scorer: s.scorer.call, Gateway: s.gateway.call, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Refusals: func(e audit.Entry) { s.mu.Lock(); defer s.mu.Unlock(); s.decisions = append(s.decisions, e) },
	}
	for _, c := range change {
		c(s, &cfg)
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// Tests change the company between two requests, so nothing is remembered, however long asking takes.
	l.scorer.Roster.Fresh, l.scorer.Roster.Usable, l.scorer.Roster.AtMost = 0, 0, 0
	l.scorer.Figures.Fresh, l.scorer.Figures.Usable, l.scorer.Figures.AtMost = 0, 0, 0
	l.scorer.Causes.Fresh, l.scorer.Causes.Usable, l.scorer.Causes.AtMost = 0, 0, 0 // and what is known of teams
	s.LMS = l
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.Deliver(ctx) }()
	pages = l.Pages()
	t.Cleanup(func() { s.web.Close(); stop(); <-done })
	return s
}

var names = []string{
	"Mira Keller",
	"Tom Brandt",
	"Vera Holm",
	"Otto Lang",
	"Ines Duarte",
	"Jonas Weber",
	"Lea Fontaine",
	"Piotr Nowak",
	"Sara Lindqvist",
	"Noah Petit",
	"Emma Rossi",
	"Luca Moretti",
}

func roster() []risk.Person {
	var list []risk.Person
	for i, name := range names {
		id := strings.ToLower(strings.ReplaceAll(name, " ", "."))
		p := risk.Person{
			ID:       id,
			Name:     name,
			Email:    id + "@example.org",
			Role:     risk.Roles[i%len(risk.Roles)],
			Team:     "payments",
			Manager:  "vera.holm",
			Joined:   "2025-03-01",
			Zone:     "Europe/Berlin",
			Accounts: []string{"github:" + strings.ReplaceAll(id, ".", "-")},
		}
		if i > 7 {
			p.Team, p.Manager = "platform", ""
		}
		if id == "noah.petit" || id == "emma.rossi" {
			p.Manager = "otto.lang"
		}
		if id == "vera.holm" || id == "otto.lang" {
			p.Manager, p.Role = "", risk.SRE
		}
		list = append(list, p)
	}
	return list
}

func history() map[string][]activity.Event {
	zone := time.FixedZone("", 2*3600)
	all := map[string][]activity.Event{}
	add := func(person string, days float64, v activity.Verb, detail string) {
		n := len(all[person])
		e := activity.Event{
			ID:     fmt.Sprintf("%s:%s/%d", v.Source(), person, n),
			At:     labNow.Add(-time.Duration(days * 24 * float64(time.Hour))).In(zone),
			Person: person,
			Source: v.Source(),
			Verb:   v,
			Detail: detail,
		}
		if v == activity.OverdueSecurityTicket {
			e.Ticket = "SEC-41"
		}
		if v == activity.OverdueModule {
			e.Module = "phishing"
		}
		all[person] = append(all[person], e)
	}
	for i := range 40 {
		add("mira.keller", float64(i)*.7, activity.Commit, "payments")
	}
	add("mira.keller", 1.2, activity.SecretCommitted, "payments: config/prod.env")
	add("mira.keller", 3.3, activity.SecretCommitted, "payments: scripts/deploy.sh")
	add("mira.keller", 8.1, activity.SecretCommitted, "ledger: .env")
	add("mira.keller", 2.4, activity.ServiceAccountKey, "key AKIA… of ci-deploy")
	add("mira.keller", 5.4, activity.ServiceAccountKey, "key of report-export")
	add("mira.keller", .4, activity.OffHoursAccess, "console: prod-payments at 02:14")
	add("mira.keller", 12.4, activity.CrossAccountAccess, "sandbox → prod")
	add("mira.keller", 4.2, activity.PhishingClick, "Invoice overdue.html")
	add("mira.keller", 9.2, activity.FailedAuthentication, "7 in 5 minutes")
	add("mira.keller", 20, activity.OverdueModule, "Recognise and report phishing")
	add("mira.keller", 15, activity.OverdueSecurityTicket, "SEC-41 Rotate the ledger's keys")
	for i := range 5 {
		add("mira.keller", float64(i)*1.9+.2, activity.UnreviewedCommit, "payments: main")
	}
	for i := range 24 { // a compromised account
		add(
			"luca.moretti",
			float64(i)*.6,
			[]activity.Verb{activity.PrivilegeEscalation, activity.ServiceAccountKey, activity.CrossAccountAccess}[i%3],
			fmt.Sprintf("prod-ledger, session %d from an address never seen before", i),
		)
		if i < 6 {
			add("luca.moretti", float64(i)+.1, activity.MalwareDetected, "loader in ~/Downloads")
		}
	}
	for i, name := range names[3:] {
		id := strings.ToLower(strings.ReplaceAll(name, " ", "."))
		for j := range i * 2 {
			add(
				id,
				float64(j)*2.3+.3,
				[]activity.Verb{
					activity.SecretCommitted, activity.ServiceAccountKey, activity.PhishingClick, activity.MalwareDetected,
					activity.ForcePush, activity.PrivilegeEscalation, activity.OverdueModule,
				}[(i+j)%7],
				"something of "+id,
			)
		}
	}
	return all
}

// wire calls a mesh route as the command line does.
func (s *fixture) wire(h mesh.HandlerFunc, method, target, contentType, body string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(
		mesh.WithCaller(s.t.Context(), topology.Workload{Name: "instructor", Kind: topology.KindOperator}, "1f"),
		method,
		target,
		strings.NewReader(body),
	)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	if err := h(w, r); err != nil {
		httpjson.WriteError(w, err)
	}
	return w
}

func (s *fixture) link(order string) lmsapi.Link {
	s.t.Helper()
	w := s.wire(s.auth.PostLink, "POST", "/v1/links", "application/json", order)
	var l lmsapi.Link
	if err := json.Unmarshal(w.Body.Bytes(), &l); w.Code != 201 || err != nil {
		s.t.Fatalf("link for %s: %d %s", order, w.Code, w.Body)
	}
	return l
}

// browser is an HTTP client with cookies.
type browser struct {
	*http.Client
	s *fixture
}

func (s *fixture) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &browser{
		Client: &http.Client{
			Jar:           jar,
			Timeout:       2 * time.Minute,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		s: s,
	}
}

// as is a browser that is signed in as a person or a role; for "" it is not signed in.
func (s *fixture) as(who string) *browser {
	s.t.Helper()
	b := s.browser()
	order := `{"person":"` + who + `"}`
	switch who {
	case "":
		return b
	case site.RoleInstructor, site.RoleAdmin:
		order = `{"role":"` + who + `"}`
	}
	_, token, _ := strings.Cut(s.link(order).Path, "token=")
	if p := b.post("/sign-in", url.Values{"token": {token}}); p.status != 303 {
		s.t.Fatalf("sign in as %s: %d", who, p.status)
	}
	return b
}

type shown struct {
	status int
	header http.Header
	body   string
}

func (p shown) location() string { return p.header.Get("Location") }

func (b *browser) send(r *http.Request) shown {
	b.s.t.Helper()
	resp, err := b.Do(r)
	if err != nil {
		b.s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return shown{resp.StatusCode, resp.Header, string(body)}
}

func (b *browser) get(path string) shown {
	b.s.t.Helper()
	r, err := http.NewRequest("GET", b.s.web.URL+path, nil)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return b.send(r)
}

func (b *browser) post(path string, form url.Values) shown {
	b.s.t.Helper()
	r, err := http.NewRequest("POST", b.s.web.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", b.s.web.URL)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.send(r)
}

// start begins a lesson of a module, waits until it is written, and returns its path.
func (b *browser) start(module string) string {
	b.s.t.Helper()
	p := b.post("/training", url.Values{"module": {module}})
	if p.status != 303 || !strings.HasPrefix(p.location(), "/training/") {
		b.s.t.Fatalf("start %s: %d %s", module, p.status, p.body)
	}
	b.s.gateway.mu.Lock()
	held := b.s.gateway.hold != nil
	b.s.gateway.mu.Unlock()
	if id, err := uuid.Parse(strings.TrimPrefix(p.location(), "/training/")); err != nil {
		b.s.t.Fatal(err)
	} else if !held {
		<-b.s.training.WriteLesson(id) // a page waits for so long only, and this computer may be slow
	}
	return p.location()
}

// attempt answers the quiz of the lesson at path: the first wrong questions wrongly, the others rightly.
func (b *browser) attempt(path, module string, number, wrong int) shown {
	b.s.t.Helper()
	form := url.Values{"attempt": {fmt.Sprint(number)}}
	for i, q := range lesson.BuiltIn(module).Quiz {
		a := q.Answer
		if i < wrong {
			a = (a + 1) % lesson.Options
		}
		form.Set(fmt.Sprintf("q%d", i+1), fmt.Sprint(a))
	}
	return b.post(path+"/quiz", form)
}

var tags = regexp.MustCompile(`<[^>]*>`)

// text is the text of a page without markup.
func (p shown) text() string {
	return strings.Join(strings.Fields(tags.ReplaceAllString(p.body, " ")), " ")
}

// campaign begins a campaign as an instructor, and returns its path.
func (s *fixture) campaign(template, team string) string {
	s.t.Helper()
	p := s.as(site.RoleInstructor).post("/drills", url.Values{"lure": {template}, "team": {team}})
	if p.status != 303 || !strings.HasPrefix(p.location(), "/drills/") {
		s.t.Fatalf("begin a drill: %d %s", p.status, p.text())
	}
	return p.location()
}

// message is the id of a person's message from a template.
func (s *fixture) message(person, template string) string {
	s.t.Helper()
	var id string
	if err := s.db.Pool.QueryRow(s.t.Context(), `SELECT id::text FROM training.mail WHERE person = $1
		AND lure = $2`, person, template).Scan(&id); err != nil {
		s.t.Fatal(err)
	}
	return id
}

// one returns the single text that a query selects.
func (s *fixture) one(query string) string {
	s.t.Helper()
	var text string
	if err := s.db.Pool.QueryRow(s.t.Context(), query).Scan(&text); err != nil {
		s.t.Fatal(err)
	}
	return text
}

// awaitDelivery waits until every event is delivered.
func (s *fixture) awaitDelivery() {
	s.t.Helper()
	s.await("delivery", func() bool { return s.rows(`SELECT count(*) FROM training.outbox WHERE delivered IS NULL`) == 0 })
}

func (s *fixture) exercise(id string, state exercise.State) {
	s.t.Helper()
	e := exercise.Exercise{
		ID:         id,
		Title:      "A token leaves the building at 02:14",
		Brief:      "A developer commits a key at the end of a long day.\nTwo hours later it is used from elsewhere.",
		Difficulty: 2,
		Minutes:    15,
		Attack:     []string{"T1552.001"},
		State:      state,
		Steps: []exercise.Step{
			{At: "17h14m", Who: "mira.keller", What: "commits a secret to payments, three times", Outcome: "delivered"},
			{At: "17h20m", Who: "mira.keller", What: "creates a service account key", Outcome: "failed"},
			{At: "17h30m", Who: "tom.brandt", What: "stays LOW", Outcome: ""},
		},
	}
	b, err := json.Marshal(e)
	if err != nil {
		s.t.Fatal(err)
	}
	if w := s.wire(s.console.PostExercise, "POST", "/v1/exercises", "application/json", string(b)); w.Code != 204 {
		s.t.Fatalf("exercise: %d %s", w.Code, w.Body)
	}
}

// rows returns the number that a query selects, as the role of the service.
func (s *fixture) rows(query string, args ...any) int {
	s.t.Helper()
	var n int
	if err := s.db.Pool.QueryRow(s.t.Context(), query, args...).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// chain is the exported audit chain.
func (s *fixture) chain() []audit.Row {
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

func (s *fixture) await(what string, cond func() bool) {
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

func (s *fixture) exec(query string) {
	s.t.Helper()
	if _, err := s.db.Pool.Exec(s.t.Context(), query); err != nil {
		s.t.Fatal(err)
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

func (s *fixture) assess(person string) risk.Assessment {
	s.t.Helper()
	a, err := s.LMS.scorer.Risk(s.t.Context(), person)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// records requests the results as the command line does.
func (s *fixture) records() exercise.Results {
	s.t.Helper()
	w := s.wire(s.training.GetResults, "GET", "/v1/results", "", "")
	var r exercise.Results
	if err := json.Unmarshal(w.Body.Bytes(), &r); w.Code != 200 || err != nil {
		s.t.Fatalf("results: %d %s", w.Code, w.Body)
	}
	return r
}

// forget requests the deletion of the records with this mark.
func (s *fixture) forget(mark string) *httptest.ResponseRecorder {
	s.t.Helper()
	return s.wire(s.PostReset, "POST", "/v1/reset", "application/json", `{"all":true,"mark":"`+mark+`"}`)
}

// forgetRecords deletes all records.
func (s *fixture) forgetRecords() *httptest.ResponseRecorder {
	s.t.Helper()
	return s.forget(s.records().Mark)
}

// certificateOf is the number on the certificate of the passed lesson at a path.
func (s *fixture) certificateOf(b *browser, lesson string) string {
	s.t.Helper()
	p := b.get("/certificates/" + strings.TrimPrefix(lesson, "/training/"))
	number := regexp.MustCompile(`[0-9A-Z]{6}(-[0-9A-Z]{1,6}){5,}`).FindString(p.body)
	if p.status != 200 || number == "" {
		s.t.Fatalf("certificate of %s: %d %s", lesson, p.status, p.text())
	}
	return number
}
