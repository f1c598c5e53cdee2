package riskscorer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
)

var (
	gitCollector  = topology.Workload{Name: "git-collector", Kind: topology.KindCollector, Source: "git"}
	jiraCollector = topology.Workload{Name: "jira-collector", Kind: topology.KindCollector, Source: "jira"}
	dashboard     = topology.Workload{Name: "lms", Kind: topology.KindDashboard}
	instructor    = topology.Workload{Name: "instructor", Kind: topology.KindOperator}
)

// lab is a Scorer on a database of its own.
type lab struct {
	*Scorer
	t    testing.TB
	pool *pgxpool.Pool
}

func newLab(t testing.TB) *lab {
	t.Helper()
	return replica(t, database(t))
}

func replica(t testing.TB, pool *pgxpool.Pool) *lab {
	return &lab{New(pool, risk.MustProfile(risk.Default), "security-training.example.org", nil,
		slog.New(slog.DiscardHandler)), t, pool}
}

// call runs one request as caller and answers status and body, as mesh would.
func (l *lab) call(caller topology.Workload, method, target, contentType, body string) (int, string) {
	l.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r = r.WithContext(mesh.WithCaller(r.Context(), caller, "2a"))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	mux := http.NewServeMux()
	for pattern, h := range map[string]mesh.HandlerFunc{
		"POST /v1/events": l.Events, "GET /v1/people": l.People, "PUT /v1/people": l.PutPeople,
		"GET /v1/people/{person}/risk": l.Risk,
		"GET /v1/organisation":         l.Organisation, "GET /v1/watermarks": l.Watermarks, "GET /v1/clock": l.Clock,
		"PUT /v1/clock": l.PutClock,
		"GET /v1/audit": l.Audit, "POST /v1/reset": l.Reset,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				var typed *httpjson.Error
				if !errors.As(err, &typed) {
					l.t.Logf("%s: %v", pattern, err)
				}
				httpjson.WriteError(w, err)
			}
		})
	}
	mux.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func (l *lab) get(target string, v any) {
	l.t.Helper()
	code, body := l.call(instructor, "GET", target, "", "")
	if code != 200 {
		l.t.Fatalf("GET %s: %d %s", target, code, body)
	}
	if err := json.Unmarshal([]byte(body), v); err != nil {
		l.t.Fatalf("GET %s: %v", target, err)
	}
}

func (l *lab) put(caller topology.Workload, method, target string, v any) (int, string) {
	l.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.call(caller, method, target, "application/json", string(text))
}

// send submits events as a batch whose first seq is from.
func (l *lab) send(caller topology.Workload, from uint64, events ...activity.Event) (int, []activity.Receipt) {
	l.t.Helper()
	code, body := l.call(caller, "POST", "/v1/events", "application/x-ndjson", ndjson(l.t, from, events...))
	var receipts []activity.Receipt
	for line := range strings.Lines(body) {
		var r activity.Receipt
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			l.t.Fatalf("receipt %s: %v", line, err)
		}
		receipts = append(receipts, r)
	}
	return code, receipts
}

func ndjson(t testing.TB, from uint64, events ...activity.Event) string {
	var b bytes.Buffer
	for i := range events {
		if err := json.NewEncoder(&b).Encode(activity.Entry{Seq: from + uint64(i), Event: &events[i]}); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func person(id string, role risk.Role) risk.Person {
	return risk.Person{ID: id, Name: strings.ToUpper(id), Email: id + "@example.org", Role: role, Team: "payments",
		Joined: "2025-03-01", Zone: "Europe/Berlin",
		Accounts: []string{"github:" + id, "email:" + id + "@example.org", "jira:" + id}}
}

func (l *lab) roster(people ...risk.Person) {
	l.t.Helper()
	if code, body := l.put(instructor, "PUT", "/v1/people", people); code != 200 {
		l.t.Fatalf("roster: %d %s", code, body)
	}
}

func (l *lab) one(query string) int64 {
	l.t.Helper()
	var n int64
	if err := l.pool.QueryRow(context.Background(), query).Scan(&n); err != nil {
		l.t.Fatal(err)
	}
	return n
}

func commit(n int, who string, verb activity.Verb, ago time.Duration) activity.Event {
	return activity.Event{ID: fmt.Sprintf("git:%s/%s/%d", verb, who, n), At: risk.Epoch.Add(-ago).In(time.FixedZone("",
		7200)), Accounts: []string{"github:nobody", "GitHub:" + strings.ToUpper(who)}, Source: activity.Git, Verb: verb,
		Detail: "payments"}
}

func TestEventScoreAndAuditRowCommitTogether(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.BackendDeveloper), person("tomas", risk.BackendDeveloper))
	code, receipts := l.send(gitCollector, 1, commit(1, "mira", activity.SecretCommitted, time.Hour), commit(2, "mira",
		activity.Commit, time.Hour))
	want := []activity.Receipt{{Seq: 1, ID: "git:git.secret_committed/mira/1", Status: activity.Stored},
		{Seq: 2, ID: "git:git.commit/mira/2", Status: activity.Stored}}
	if d := cmp.Diff(want, receipts); d != "" || code != 200 {
		t.Fatalf("%d, receipts differ:\n%s", code, d)
	}
	var a risk.Assessment
	l.get("/v1/people/mira/risk", &a)
	if a.Score < 100_000_000_000 || a.Score > 105_000_000_000 || len(a.Reasons) != 1 ||
		a.Reasons[0].Verb != activity.SecretCommitted {
		t.Errorf("assessment %+v: want 0.30 · 0.35 with its reason", a)
	}
	if len(a.Trend) != trendDays+1 || a.Trend[0].Score != 0 || a.Trend[trendDays].Score != a.Score {
		t.Errorf("trend %v: want 31 points from 0 to now", a.Trend)
	}
	if a.Contributions[0].At.Format("-07:00") != "+02:00" {
		t.Errorf("the person's own offset is lost: %v", a.Contributions[0].At)
	}
	if stored := l.one(`SELECT score FROM risk.score WHERE person = 'mira'`); stored < int64(a.Score) ||
		stored > int64(a.Score)+1e9 {
		t.Errorf("stored score %d, read %d", stored, a.Score)
	}
	var collector, serial string
	if err := l.pool.QueryRow(t.Context(), `SELECT collector, serial FROM risk.event LIMIT 1`).Scan(&collector,
		&serial); err != nil || collector != "spiffe://security-training.example.org/git-collector" || serial != "2a" {
		t.Errorf("provenance %q %q, %v", collector, serial, err)
	}
	_, log := l.call(instructor, "GET", "/v1/audit", "", "")
	if !strings.Contains(log, "git:git.secret_committed/mira/1") || !strings.Contains(log, "git:git.commit/mira/2") {
		t.Errorf("an event's id is in no audit line:\n%s", log)
	}
	l.get("/v1/people/tomas/risk", &a)
	if a.Score != 0 || a.Level != risk.Low {
		t.Errorf("the bystander has %v", a.Score)
	}
	if code, _ := l.call(instructor, "GET", "/v1/people/nobody/risk", "", ""); code != 404 {
		t.Errorf("an unknown person: %d, want 404", code)
	}
}

func TestReplayIsADuplicateAndCountsOnce(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	e := commit(1, "mira", activity.SecretCommitted, 0)
	_, first := l.send(gitCollector, 1, e, e)
	_, again := l.send(gitCollector, 3, e)
	var got []activity.Status
	for _, r := range append(first, again...) {
		got = append(got, r.Status)
	}
	if d := cmp.Diff([]activity.Status{activity.Stored, activity.Duplicate, activity.Duplicate}, got); d != "" {
		t.Errorf("receipts differ:\n%s", d)
	}
	if n := l.one(`SELECT count(*) FROM risk.event`); n != 1 {
		t.Errorf("%d events stored, want 1", n)
	}
	var p scorerapi.Progress
	l.get("/v1/watermarks", &p)
	if len(p.Watermarks) != 1 || p.Watermarks[0].Collector != "git-collector" || p.Watermarks[0].Seq != 3 {
		t.Errorf("watermarks %+v, want git-collector at 3", p.Watermarks)
	}
}

func TestForeignSourceIsRefusedWhole(t *testing.T) {
	l := newLab(t)
	file := filepath.Join(t.TempDir(), "audit")
	decisions, err := audit.Open(file, "risk-scorer")
	if err != nil {
		t.Fatal(err)
	}
	l.refused = decisions.Write
	l.roster(person("mira", risk.SRE))
	good := commit(1, "mira", activity.SecretCommitted, 0)
	for name, c := range map[string]struct {
		caller topology.Workload
		events []activity.Event
	}{
		"jira sends git":          {jiraCollector, []activity.Event{good}},
		"the dashboard sends git": {dashboard, []activity.Event{good}},
		"git sends jira behind a good event": {gitCollector, []activity.Event{good, {ID: "jira:1", At: risk.Epoch,
			Accounts: []string{"jira:mira"}, Source: activity.Jira, Verb: activity.OverdueSecurityTicket}}},
		"an operator sends anything": {instructor, []activity.Event{good}},
		"git sends training in git's name": {gitCollector, []activity.Event{{ID: "training:1", At: risk.Epoch,
			Person: "mira", Source: activity.Training, Verb: activity.TrainingPassed}}},
	} {
		code, body := l.call(c.caller, "POST", "/v1/events", "application/x-ndjson", ndjson(t, 1, c.events...))
		if code != 403 || !strings.Contains(body, "foreign_source") {
			t.Errorf("%s: %d %s, want 403 foreign_source", name, code, body)
		}
	}
	if n := l.one(`SELECT count(*) FROM risk.event`); n != 0 {
		t.Errorf("%d events stored of refused batches", n)
	}
	if n := l.one(`SELECT count(*) FROM risk.watermark`); n != 0 {
		t.Error("a refused batch moved a watermark")
	}
	if err := decisions.Close(); err != nil {
		t.Fatal(err)
	}
	tip, err := audit.Tip(file)
	if err != nil || tip.Reason != "foreign_source" || tip.Seq != 5 {
		t.Errorf("last audit entry %+v, %v: want five refusals", tip, err)
	}
}

func TestCollectorCannotNameAPerson(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	e := commit(1, "stranger", activity.SecretCommitted, 0)
	e.Person = "mira"
	l.send(gitCollector, 1, e, commit(2, "mira", activity.Commit, 0))
	if n := l.one(`SELECT count(*) FROM risk.event WHERE person IS NOT NULL AND id = '` + e.ID + `'`); n != 0 {
		t.Error("a collector's word gave an event a person")
	}
	pass := activity.Event{ID: "training:1", At: risk.Epoch, Person: "mira", Source: activity.Training,
		Verb: activity.TrainingPassed}
	if _, r := l.send(dashboard, 1, pass); r[0].Status != activity.Stored {
		t.Errorf("training event: %+v", r)
	}
	if n := l.one(`SELECT count(*) FROM risk.event WHERE person = 'mira' AND source = 'training'`); n != 1 {
		t.Error("the learning system's event has no person")
	}
}

func TestEventAheadOfTheLabsClockIsRejected(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	ahead, near, old := commit(1, "mira", activity.ForcePush, -11*time.Minute), commit(2, "mira", activity.ForcePush,
		-9*time.Minute), commit(3, "mira", activity.ForcePush, 49*time.Hour)
	code, receipts := l.send(gitCollector, 1, ahead, near, old)
	if code != 200 || receipts[0].Status != activity.Rejected || receipts[0].Reason != "too_far_ahead" ||
		receipts[1].Status != activity.Stored || receipts[2].Status != activity.Stored {
		t.Errorf("%d %+v", code, receipts)
	}
	if n := l.one(`SELECT count(*) FROM risk.event WHERE late`); n != 1 {
		t.Errorf("%d events are flagged late, want the one of 49 hours ago", n)
	}
	if code, receipts = l.send(gitCollector, 4, ahead); code != 422 || len(receipts) != 1 {
		t.Errorf("nothing but the future: %d %+v, want 422 with a receipt", code, receipts)
	}
	if code, body := l.put(instructor, "PUT", "/v1/clock",
		scorerapi.ClockChange{Now: risk.Epoch.Add(time.Hour)}); code != 200 {
		t.Fatalf("clock: %d %s", code, body)
	}
	if _, receipts = l.send(gitCollector, 5, ahead); receipts[0].Status != activity.Stored {
		t.Errorf("an hour later: %+v", receipts)
	}
}

func TestClockOnlyMovesForward(t *testing.T) {
	l := newLab(t)
	var c risk.Clock
	l.get("/v1/clock", &c)
	if c.Now.Before(risk.Epoch) || c.Now.After(risk.Epoch.Add(time.Minute)) || c.Pace != 1 {
		t.Errorf("a new lab's clock is %+v", c)
	}
	if code, _ := l.put(instructor, "PUT", "/v1/clock",
		scorerapi.ClockChange{Now: risk.Epoch.Add(-time.Second)}); code != 409 {
		t.Errorf("backward: %d, want 409", code)
	}
	if code, _ := l.put(instructor, "PUT", "/v1/clock", scorerapi.ClockChange{Now: risk.Epoch.Add(24 * time.Hour),
		Pace: 3600}); code != 200 {
		t.Errorf("forward: %d", code)
	}
	var then risk.Clock
	l.get("/v1/clock", &c)
	l.get("/v1/clock", &then)
	if c.Pace != 3600 || c.Now.Before(risk.Epoch.Add(24*time.Hour)) || !then.Now.After(c.Now) {
		t.Errorf("clock %+v, then %+v", c, then)
	}
	for _, bad := range []string{`{"pace": -1}`, `{"pace": 1e9}`} {
		if code, _ := l.call(instructor, "PUT", "/v1/clock", "application/json", bad); code != 422 {
			t.Errorf("%s: %d, want 422", bad, code)
		}
	}
}

func TestBadBatchIsRefusedWithItsLine(t *testing.T) {
	l := newLab(t)
	for body, want := range map[string]struct {
		code int
		word string
	}{
		`{"seq":1}` + "\nnonsense":           {400, "line 2"},
		`{"seq":1,"colour":"red"}`:           {400, "colour"},
		`{"seq":1} {"seq":2}`:                {400, "text after"},
		`{"seq":2}` + "\n" + `{"seq":2}`:     {400, "seq 2 after 2"},
		strings.Repeat(`{"seq":1}`, 1900000): {413, "body_too_large"},
	} {
		code, answer := l.call(gitCollector, "POST", "/v1/events", "application/x-ndjson", body)
		if code != want.code || !strings.Contains(answer, want.word) {
			t.Errorf("%.40s: %d %s, want %d with %q", body, code, answer, want.code, want.word)
		}
	}
	for _, route := range []string{"POST /v1/events", "PUT /v1/people", "PUT /v1/clock", "POST /v1/reset"} {
		method, path, _ := strings.Cut(route, " ")
		if code, _ := l.call(instructor, method, path, "text/x-probe", ""); code != 415 {
			t.Errorf("%s with a wrong type: %d, want 415", route, code)
		}
	}
}

func TestEventThatCannotBeStoredDelaysNobody(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	poison := commit(2, "mira", activity.ForcePush, 0)
	poison.Detail = "a\x00b" // valid JSON, and nothing that a jsonb can hold
	invalid := commit(3, "mira", activity.ForcePush, 0)
	invalid.Bytes = -1
	_, receipts := l.send(gitCollector, 1, commit(1, "mira", activity.ForcePush, 0), poison, invalid, commit(4, "mira",
		activity.ForcePush, 0))
	var got []activity.Status
	for _, r := range receipts {
		got = append(got, r.Status)
	}
	if d := cmp.Diff([]activity.Status{activity.Stored, activity.DeadLettered, activity.DeadLettered, activity.Stored},
		got); d != "" {
		t.Fatalf("receipts differ:\n%s", d)
	}
	if n := l.one(`
		SELECT count(*) FROM risk.dead_letter
		WHERE reason LIKE 'cannot_be_stored: failed 5 times%' OR reason LIKE 'invalid_event: bytes -1%'`); n != 2 {
		t.Errorf("%d dead letters with their reason, want 2", n)
	}
	l.send(gitCollector, 5, poison)
	if n := l.one(`SELECT count(*) FROM risk.dead_letter`); n != 2 {
		t.Errorf("%d dead letters after a replay, want 2", n)
	}
	var p scorerapi.Progress
	l.get("/v1/watermarks", &p)
	if p.Watermarks[0].Seq != 5 || p.DeadLetters != 2 || p.Events != 2 {
		t.Errorf("progress %+v", p)
	}
}

func TestAccountsOfNobodyAreKeptApartUntilTheirOwnerIsKnown(t *testing.T) {
	l := newLab(t)
	l.roster(person("tomas", risk.SRE))
	l.send(gitCollector, 1, commit(1, "mira", activity.SecretCommitted, 0), commit(2, "mira", activity.SecretCommitted,
		time.Hour))
	var p scorerapi.Progress
	l.get("/v1/watermarks", &p)
	if len(p.Unknown) != 1 || p.Unknown[0].Account != "github:nobody" || p.Unknown[0].Events != 2 {
		t.Errorf("unknown accounts %+v", p.Unknown)
	}
	var o risk.Organisation
	l.get("/v1/organisation", &o)
	if o.People != 1 || o.Score != 0 || o.Accounts != 1 {
		t.Errorf("organisation %+v: events without a person count", o)
	}
	l.roster(person("mira", risk.SRE))
	var a risk.Assessment
	l.get("/v1/people/mira/risk", &a)
	if len(a.Contributions) != 2 {
		t.Errorf("%d contributions after the owner is known, want 2", len(a.Contributions))
	}
	p = scorerapi.Progress{}
	l.get("/v1/watermarks", &p)
	if len(p.Unknown) != 0 {
		t.Errorf("still unknown: %+v", p.Unknown)
	}
	taken := person("eve", risk.SRE)
	taken.Accounts = append(taken.Accounts, "github:MIRA")
	if code, body := l.put(instructor, "PUT", "/v1/people", []risk.Person{taken}); code != 409 {
		t.Errorf("another's account: %d %s, want 409", code, body)
	}
	bad := []risk.Person{{ID: "A"}, {ID: "b", Name: "B", Role: "sre", Joined: "yesterday", Zone: "UTC"}}
	if code, body := l.put(instructor, "PUT", "/v1/people", bad); code != 422 || !strings.Contains(body, `\"A\"`) ||
		!strings.Contains(body, "yesterday") {
		t.Errorf("faulty roster: %d %s", code, body)
	}
}

func TestTwoHundredEventsAnHourCount(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	var flood []activity.Event
	for i := range 1200 {
		e := commit(i, "mira", activity.LargeFile, 20*24*time.Hour)
		flood = append(flood, e)
	}
	l.send(gitCollector, 1, flood...)
	if n := l.one(`SELECT count(*) FROM risk.event`); n != 1200 {
		t.Errorf("%d stored, want all", n)
	}
	var a risk.Assessment
	l.get("/v1/people/mira/risk", &a)
	if len(a.Reasons) != 1 || a.Reasons[0].Count != risk.HourlyCap {
		t.Errorf("reasons %+v, want %d events to count", a.Reasons, risk.HourlyCap)
	}
}

func TestAwayDatabaseAnswers503WithRetryAfter(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	l.send(gitCollector, 1, commit(1, "mira", activity.ForcePush, 0))
	if err := cluster.Stop(); err != nil {
		t.Fatal(err)
	}
	stopped := true
	t.Cleanup(func() {
		if stopped {
			_ = cluster.Start()
		}
	})
	for _, try := range []func() (int, string){
		func() (int, string) {
			return l.call(gitCollector, "POST", "/v1/events", "application/x-ndjson",
				ndjson(t, 2, commit(2, "mira", activity.ForcePush, 0)))
		},
		func() (int, string) { return l.call(instructor, "GET", "/v1/people/mira/risk", "", "") },
		func() (int, string) { return l.call(instructor, "GET", "/v1/clock", "", "") },
		func() (int, string) { return l.put(instructor, "PUT", "/v1/people", []risk.Person{}) },
	} {
		if code, body := try(); code != 503 || strings.Contains(body, "socket") || !strings.Contains(body, "database_away") {
			t.Errorf("%d %s, want 503 without internals", code, body)
		}
	}
	if e := httpjson.FromError(l.unavailable(context.DeadlineExceeded)); e.RetryAfter <= 0 {
		t.Error("no Retry-After")
	}
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	stopped = false
	meshtest.Await(t, "the scorer to be back", func() bool {
		if code, _ := l.call(instructor, "GET", "/v1/clock", "", ""); code != 200 {
			return false
		}
		code, receipts := l.send(gitCollector, 2, commit(2, "mira", activity.ForcePush, 0))
		return code == 200 && receipts[0].Status == activity.Stored
	})
	var a risk.Assessment
	l.get("/v1/people/mira/risk", &a)
	if len(a.Contributions) != 2 {
		t.Errorf("%d contributions, want both events", len(a.Contributions))
	}
}

func BenchmarkHistory(b *testing.B) {
	l := newLab(b)
	var people []risk.Person
	for i := range 50 {
		people = append(people, person(fmt.Sprintf("p%d", i), risk.SRE))
	}
	l.roster(people...)
	verbs := []activity.Verb{activity.SecretCommitted, activity.ForcePush, activity.Commit, activity.Commit,
		activity.Commit, activity.Commit, activity.Commit}
	seq := uint64(1)
	b.ResetTimer()
	for b.Loop() { // 10,000 events of 50 people in batches of 1,000
		for range 10 {
			var batch []activity.Event
			for i := range 1000 {
				batch = append(batch, commit(int(seq)+i, people[i%50].ID, verbs[i%len(verbs)], time.Duration(i)*40*time.Minute))
			}
			if code, _ := l.send(gitCollector, seq, batch...); code != 200 {
				b.Fatal(code)
			}
			seq += 1000
		}
	}
}

func TestCappedEventsAreComputedOnceAndAgainWhenThereAreMore(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira.keller", risk.BackendDeveloper))
	for n := range 2 {
		if code, _ := l.send(gitCollector, uint64(n+1), commit(n+1, "mira.keller", activity.UnreviewedCommit,
			time.Duration(n)*time.Minute)); code != 200 {
			t.Fatal(code)
		}
		for range 2 {
			var a risk.Assessment
			l.get("/v1/people/mira.keller/risk", &a)
			if events := l.cache.get(
				"mira.keller",
				l.cache.people["mira.keller"].Value.(*cacheEntry).events.era,
			); len(events.events) != n+1 ||
				len(events.counted) != n+1 {
				t.Errorf("of %d events %d are remembered, %d of them as counted", n+1, len(events.events),
					len(events.counted))
			}
		}
	}
}

func TestTheChainIsAskedInOneWayAtATime(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira.keller", risk.BackendDeveloper))
	l.send(gitCollector, 1, commit(1, "mira.keller", activity.UnreviewedCommit, 0))
	for _, bad := range []string{"event=x&after=1", "person=mira.keller", "event=x&since=2026-01-01T00:00:00Z",
		"after=-1"} {
		if code, _ := l.call(instructor, "GET", "/v1/audit?"+bad, "", ""); code != 400 {
			t.Errorf("%s: %d", bad, code)
		}
	}
	if code, body := l.call(instructor, "GET", "/v1/audit?after=0&limit=1", "", ""); code != 200 || strings.Count(body,
		"\n") != 1 {
		t.Errorf("one row: %d %s", code, body)
	}
}
