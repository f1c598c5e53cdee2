package lms

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
)

var labNow = time.Date(2026, 10, 1, 10, 0, 0, 0, time.UTC)

// fakeScorer scores by the real model what it holds in memory.
type fakeScorer struct {
	profile *risk.Profile

	mu         sync.Mutex
	people     []risk.Person
	events     map[string][]activity.Event
	seen       map[string]bool
	accounts   int
	missing    []activity.Source // that have been silent for too long
	away       bool
	lose       int            // how many answers to POST /v1/events are lost after the events were taken
	speechless int            // how many times a risk is not told from the next POST /v1/events on
	asked      map[string]int // by path
	posts      int
	later      time.Duration // how much the lab's clock has moved on since labNow
}

func newFakeScorer(t testing.TB) *fakeScorer {
	p, err := risk.ProfileByName(risk.Default)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeScorer{profile: p, events: map[string][]activity.Event{}, seen: map[string]bool{}, asked: map[string]int{}}
}

func (f *fakeScorer) set(change func()) { f.mu.Lock(); defer f.mu.Unlock(); change() }

func (f *fakeScorer) call(_ context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return nil, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	path, query, _ := strings.Cut(path, "?")
	f.asked[path]++
	if f.posts > 0 && f.speechless > 0 && strings.HasSuffix(path, "/risk") {
		f.speechless--
		return nil, errors.New("connection reset")
	}
	switch {
	case method == "GET" && path == "/v1/people":
		list := []risk.Standing{}
		for _, p := range f.people {
			if p.Run != "" && query != "runs=all" {
				continue
			}
			s := f.profile.Score(p.Role, f.events[p.ID], labNow)
			standing := risk.Standing{Person: p, At: labNow.Add(f.later), Score: s, Level: f.profile.Level(s), Frequency: f.profile.Level(s).Frequency()}
			standing.Due, _ = f.profile.Due(p.Role, f.events[p.ID], standing.Level, labNow)
			standing.Escalation = standing.Frequency.Escalate(standing.Due, labNow.Add(f.later))
			if name, ok := strings.CutPrefix(query, "shadow="); ok {
				other := risk.MustProfile(name)
				score := other.Score(p.Role, f.events[p.ID], labNow)
				standing.Shadow = &risk.Shadow{Profile: name, Version: other.Version, Score: score, Level: other.Level(score)}
			}
			list = append(list, standing)
		}
		slices.SortStableFunc(list, func(a, b risk.Standing) int { return int(min(1, max(-1, b.Score-a.Score))) })
		return answer(w, list)
	case method == "GET" && path == "/v1/organisation":
		var list []risk.Standing
		for _, p := range f.people {
			if p.Run == "" {
				list = append(list, risk.Standing{Person: p, Score: f.profile.Score(p.Role, f.events[p.ID], labNow)})
			}
		}
		o := f.profile.Organise(list, labNow)
		o.Accounts, o.Missing = f.accounts, f.missing
		for i := range 31 {
			at := labNow.Add(time.Duration(i-30) * 24 * time.Hour)
			var then []risk.Standing
			for _, p := range f.people {
				then = append(then, risk.Standing{Person: p, Score: f.profile.Score(p.Role, f.events[p.ID], at)})
			}
			o.Trend = append(o.Trend, risk.Point{At: at, Score: f.profile.Organise(then, at).Score})
		}
		return answer(w, o)
	case method == "GET" && path == "/v1/clock":
		return answer(w, risk.Clock{Now: labNow.Add(f.later), Pace: 1})
	case method == "GET" && strings.HasSuffix(path, "/risk"):
		id := strings.TrimSuffix(strings.TrimPrefix(path, "/v1/people/"), "/risk")
		i := slices.IndexFunc(f.people, func(p risk.Person) bool { return p.ID == id })
		if i < 0 {
			httpjson.WriteError(w, httpjson.Errorf(404, "unknown_person", "nobody"))
			return w.Result(), nil
		}
		p := f.people[i]
		// A moment later than any pass, which acts on what was before it.
		a := f.profile.Assess(p.ID, p.Role, f.events[id], labNow.Add(f.later+time.Second))
		var times []time.Time
		for i := range 31 {
			times = append(times, labNow.Add(time.Duration(i-30)*24*time.Hour))
		}
		a.Trend, a.Missing = f.profile.Trend(p.Role, f.events[id], times), f.missing
		return answer(w, a)
	case method == "POST" && path == "/v1/events" && contentType == "application/x-ndjson":
		f.posts++
		w.Header().Set("Content-Type", "application/x-ndjson")
		lines := bufio.NewScanner(bytes.NewReader(body))
		for lines.Scan() {
			var e activity.Entry
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return nil, err
			}
			r := activity.Receipt{Seq: e.Seq, ID: e.Event.ID, Status: activity.Stored}
			if err := e.Event.Validate(); err != nil || e.Event.Source != activity.Training {
				r.Status, r.Reason = activity.Rejected, fmt.Sprint(err)
			} else if f.seen[e.Event.ID] {
				r.Status = activity.Duplicate
			} else {
				f.seen[e.Event.ID] = true
				f.events[e.Event.Person] = append(f.events[e.Event.Person], *e.Event)
			}
			_ = json.NewEncoder(w).Encode(r)
		}
		if f.lose > 0 {
			f.lose--
			return nil, errors.New("connection reset")
		}
		return w.Result(), nil
	}
	return nil, fmt.Errorf("no route %s %s %s", method, path, contentType)
}

func answer(w *httptest.ResponseRecorder, v any) (*http.Response, error) {
	err := httpjson.Write(w, 200, v)
	return w.Result(), err
}

// fakeGateway writes the built-in lesson as if a model had.
type fakeGateway struct {
	mu    sync.Mutex
	asked []lesson.Request
	edit  func(*lesson.Lesson)
	fail  error
	hold  chan struct{} // when set, answers wait for it
}

func (g *fakeGateway) call(ctx context.Context, _, path, _ string, body []byte) (*http.Response, error) {
	var req lesson.Request
	if err := json.Unmarshal(body, &req); err != nil || path != "/v1/generate" {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	g.mu.Lock()
	g.asked = append(g.asked, req)
	edit, fail, hold := g.edit, g.fail, g.hold
	g.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w := httptest.NewRecorder()
	if fail != nil {
		httpjson.WriteError(w, fail)
		return w.Result(), nil
	}
	l := lesson.BuiltIn(req.Module)
	l.Origin, l.Model = lesson.Stub, "gemini-2.5-flash"
	if edit != nil {
		edit(&l)
	}
	return answer(w, l)
}

func (g *fakeGateway) set(change func()) { g.mu.Lock(); defer g.mu.Unlock(); change() }

// school is an LMS with everything around it, as a browser and an instructor's command line see it.
type school struct {
	*LMS
	t       testing.TB
	scorer  *fakeScorer
	gateway *fakeGateway
	web     *httptest.Server

	mu        sync.Mutex
	decisions []audit.Entry
}

// company: mira, who did things; tom, who did not; vera, who leads six people, mira and tom among them; otto, who leads
// two.
func newSchool(t testing.TB, change ...func(*school, *Config)) *school {
	t.Helper()
	s := &school{t: t, scorer: newFakeScorer(t), gateway: &fakeGateway{}}
	s.scorer.people = company()
	s.scorer.events = history()
	s.scorer.accounts = 3
	var pages http.Handler
	s.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { pages.ServeHTTP(w, r) }))
	cfg := Config{
		Pool: database(t), Scorer: s.scorer.call, Gateway: s.gateway.call, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Decisions: func(e audit.Entry) { s.mu.Lock(); defer s.mu.Unlock(); s.decisions = append(s.decisions, e) },
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

var names = []string{"Mira Keller", "Tom Brandt", "Vera Holm", "Otto Lang", "Ines Duarte", "Jonas Weber", "Lea Fontaine", "Piotr Nowak", "Sara Lindqvist", "Noah Petit", "Emma Rossi", "Luca Moretti"}

func company() []risk.Person {
	var list []risk.Person
	for i, name := range names {
		id := strings.ToLower(strings.ReplaceAll(name, " ", "."))
		p := risk.Person{ID: id, Name: name, Email: id + "@example.org", Role: risk.Roles[i%len(risk.Roles)], Team: "payments", Manager: "vera.holm", Joined: "2025-03-01", Zone: "Europe/Berlin",
			Accounts: []string{"github:" + strings.ReplaceAll(id, ".", "-")}}
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
		e := activity.Event{ID: fmt.Sprintf("%s:%s/%d", v.Source(), person, n), At: labNow.Add(-time.Duration(days * 24 * float64(time.Hour))).In(zone), Person: person, Source: v.Source(), Verb: v, Detail: detail}
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
	for i := range 24 { // an account that somebody else uses
		add("luca.moretti", float64(i)*.6, []activity.Verb{activity.PrivilegeEscalation, activity.ServiceAccountKey, activity.CrossAccountAccess}[i%3], fmt.Sprintf("prod-ledger, session %d from an address never seen before", i))
		if i < 6 {
			add("luca.moretti", float64(i)+.1, activity.MalwareDetected, "loader in ~/Downloads")
		}
	}
	for i, name := range names[3:] {
		id := strings.ToLower(strings.ReplaceAll(name, " ", "."))
		for j := range i * 2 {
			add(id, float64(j)*2.3+.3, []activity.Verb{activity.SecretCommitted, activity.ServiceAccountKey, activity.PhishingClick, activity.MalwareDetected, activity.ForcePush, activity.PrivilegeEscalation, activity.OverdueModule}[(i+j)%7], "something of "+id)
		}
	}
	return all
}

// wire calls a mesh route as the instructor's command line does.
func (s *school) wire(h mesh.HandlerFunc, method, target, contentType, body string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(mesh.WithCaller(s.t.Context(), topology.Workload{Name: "instructor", Kind: topology.KindOperator}, "1f"), method, target, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	if err := h(w, r); err != nil {
		httpjson.WriteError(w, err)
	}
	return w
}

func (s *school) link(order string) lmsapi.Link {
	s.t.Helper()
	w := s.wire(s.auth.PostLink, "POST", "/v1/links", "application/json", order)
	var l lmsapi.Link
	if err := json.Unmarshal(w.Body.Bytes(), &l); w.Code != 201 || err != nil {
		s.t.Fatalf("link for %s: %d %s", order, w.Code, w.Body)
	}
	return l
}

// browser is one person's, with cookies.
type browser struct {
	*http.Client
	s *school
}

func (s *school) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &browser{Client: &http.Client{Jar: jar, Timeout: 2 * time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, s: s}
}

// as is a browser that is signed in: as a person, or as "instructor"; nobody for "".
func (s *school) as(who string) *browser {
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

// start begins a lesson of module and answers its path once it is written.
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

// attempt answers the quiz at path with the right answers to all but the first wrong questions.
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

// text is a page without its markup.
func (p shown) text() string {
	return strings.Join(strings.Fields(tags.ReplaceAllString(p.body, " ")), " ")
}
