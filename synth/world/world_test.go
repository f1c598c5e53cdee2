package world

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/collector"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
)

var secret = []byte("shared by simulator and collector")

// memory is an oracle's own source.Memory.
type memory map[string][]byte

func (m memory) Get(k string) []byte    { return m[k] }
func (m memory) Put(k string, v []byte) { m[k] = v }
func (m memory) Delete(k string)        { delete(m, k) }

// expected computes, outside the lab, the events of acts by id.
func expected(t testing.TB, company []risk.Person, acts []routine.Act) map[string]activity.Event {
	t.Helper()
	traces, err := Traces(company, acts)
	if err != nil {
		t.Fatal(err)
	}
	events := map[string]activity.Event{}
	for _, row := range source.Table {
		m := memory{}
		for _, r := range traces[string(row.Source)] {
			r.Body = source.Scrub(r.Body)
			list, err := row.Events(r, m)
			if err != nil {
				t.Fatalf("%s: %v\n%s", row.Source, err, r.Body)
			}
			for _, e := range list {
				events[e.ID] = e
			}
		}
		for k := range m {
			if strings.HasPrefix(k, "await") {
				t.Errorf("%s: %s still waits", row.Source, k)
			}
		}
	}
	return events
}

func vendors(acts []routine.Act) []routine.Act {
	return slices.DeleteFunc(slices.Clone(acts), func(a routine.Act) bool { return a.Source == activity.Training })
}

// tally counts events by person (behind the account) and verb.
func tally(company []risk.Person, events map[string]activity.Event) map[string]int {
	owner := map[string]string{}
	for _, p := range company {
		for _, a := range p.Accounts {
			owner[a] = p.ID
		}
	}
	n := map[string]int{}
	for _, e := range events {
		who := ""
		for _, a := range e.Accounts {
			if who == "" {
				who = owner[a]
			}
		}
		n[who+" "+string(e.Verb)]++
	}
	return n
}

func company(seed uint64, n int) ([]people.Person, []risk.Person) {
	staff := append(people.Company(seed, n, people.Published), people.Contractors(seed, n)...)
	return staff, people.Roster(staff)
}

func TestVendorsSayOfEachActWhatItWasAndWhoseItWas(t *testing.T) {
	needtest.Unhurried(t, "all records of 50 people and 30 days are written and read")
	staff, roster := company(42, 50)
	acts := vendors(routine.Month(staff, 30))
	events := expected(t, roster, acts)
	got := tally(roster, events)
	want := map[string]int{}
	for _, a := range acts {
		want[a.Person+" "+string(a.Verb)]++
	}
	// What an act makes in addition to its own verb carries no risk: its commit and push, its ticket's update.
	for _, m := range []map[string]int{want, got} {
		maps.DeleteFunc(m, func(k string, _ int) bool {
			_, verb, _ := strings.Cut(k, " ")
			return slices.Contains([]activity.Verb{activity.Commit, activity.Push, activity.TicketUpdated}, activity.Verb(verb))
		})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("person, verb and count (-acts +events):\n%s", diff)
	}
	at := map[string]time.Time{}
	for _, a := range acts {
		at[a.ID] = a.At
	}
	for _, e := range events {
		if e.At.Before(risk.Epoch.AddDate(0, 0, -31)) || e.At.After(risk.Epoch.Add(time.Minute)) {
			t.Errorf("%s happened at %v", e.ID, e.At)
		}
	}
	t.Logf("%d acts, %d events", len(acts), len(events))
}

func TestPayloadsNeverShowASecretOnceScrubbed(t *testing.T) {
	a := routine.Act{ID: "000000000000000000000000", At: risk.Epoch, Person: "mira", Source: activity.Git,
		Verb: activity.SecretCommitted}
	found := 0
	for i := range 20 {
		a.ID = fmt.Sprintf("%024d", i)
		list, err := records(a, cast{"mira": {ID: "mira", Accounts: []string{"github:mira"}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if bytes.Contains(r.Body, []byte(fakeSecret(a))) {
				found++
			}
			if bytes.Contains(source.Scrub(r.Body), []byte(fakeSecret(a))) {
				t.Errorf("%s shows its secret after scrubbing", r.Kind)
			}
		}
	}
	if found < 21 { // one alert each, and some commit messages
		t.Errorf("only %d payloads had a secret to begin with", found)
	}
}

func TestSamePlayIsTheSameBytes(t *testing.T) {
	staff, roster := company(7, 10)
	acts := vendors(routine.Month(staff, 3))
	a, err := Traces(roster, acts)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Traces(roster, acts)
	if err != nil {
		t.Fatal(err)
	}
	if len(a) != 4 || !reflect.DeepEqual(a, b) {
		t.Errorf("%d sources, and the second time not the same", len(a))
	}
}

func TestFaultsOfAPlayAreAllNamed(t *testing.T) {
	err := Play{ID: "No!", Kind: "dance", People: -1, Days: 400, Mix: "odd", Acts: []routine.Act{{}}}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, word := range []string{"id ", "kind ", "people ", "days ", "mix ", "act 0"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not named: %v", word, err)
		}
	}
}

// net is the four vendors with their real collectors, and a scorer that keeps what it gets.
type net struct {
	*meshtest.Net
	mu     sync.Mutex
	events map[string]activity.Event
	lines  int
	ahead  time.Duration // how far an event lay before the lab's clock at most
	clock  risk.Clock
	refuse int // how many batches to turn away first
	caller *mesh.Node
}

func start(t testing.TB) *net {
	t.Helper()
	text, err := os.ReadFile("../../manifests/chart/topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	n := &net{
		Net:    meshtest.Start(t, text),
		events: map[string]activity.Event{},
		clock:  risk.Clock{Now: risk.Epoch, Pace: 1},
		refuse: 3,
	}
	scorer := n.Join(t, "risk-scorer")
	for _, r := range scorer.Self().Routes() {
		scorer.Handle(r, func(http.ResponseWriter, *http.Request) error { return nil })
	}
	scorer.Handle("POST /v1/events", n.score)
	scorer.Handle("GET /v1/clock", func(w http.ResponseWriter, _ *http.Request) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		return httpjson.Write(w, http.StatusOK, n.clock)
	})
	n.Serve(t, scorer)
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	run := func(name string, serve func(context.Context, *mesh.Node) error) {
		node := n.Join(t, name)
		group.Go(func() {
			if err := serve(ctx, node); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		meshtest.AwaitPort(t, n.Addr(name))
	}
	for _, w := range n.Topology.OfKind(topology.KindSimulator) {
		run(w.Name, func(ctx context.Context, node *mesh.Node) error { return Serve(ctx, node, secret) })
	}
	for _, w := range n.Topology.OfKind(topology.KindCollector) {
		folder := t.TempDir()
		run(w.Name, func(ctx context.Context, node *mesh.Node) error {
			return collector.Serve(ctx, node, folder, secret, 100_000)
		})
	}
	n.caller = n.Join(t, "instructor")
	return n
}

func (n *net) score(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse--; n.refuse >= 0 {
		return httpjson.Errorf(http.StatusServiceUnavailable, "database_away", "try again")
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	for d := json.NewDecoder(bytes.NewReader(body)); d.More(); {
		var e activity.Entry
		if err := d.Decode(&e); err != nil {
			return err
		}
		receipt := activity.Receipt{Seq: e.Seq, Status: activity.Stored}
		if e.Event != nil {
			if err := e.Event.Validate(); err != nil {
				return err
			}
			n.ahead = max(n.ahead, e.Event.At.Sub(n.clock.Now))
			if _, known := n.events[e.Event.ID]; known {
				receipt.Status = activity.Duplicate
			} else {
				n.events[e.Event.ID] = *e.Event
			}
		}
		n.lines++
		if err := out.Encode(receipt); err != nil {
			return err
		}
	}
	return nil
}

func (n *net) tick(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.clock.Now = n.clock.Now.Add(d)
}

func (n *net) play(t testing.TB, p Play) {
	t.Helper()
	body, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range n.Topology.OfKind(topology.KindSimulator) {
		resp, err := n.caller.Peer(w.Name).Post(t.Context(), "/v1/plays", "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		if err := httpjson.ReadAnswer(resp, 1<<20, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func ask[T any](t testing.TB, n *net, name, path string) T {
	t.Helper()
	resp, err := n.caller.Peer(name).Get(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	var v T
	if err := httpjson.ReadAnswer(resp, 1<<20, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// settled waits until the play is over and every collector's spool is empty.
func (n *net) settled(t testing.TB, id string) map[string]Status {
	t.Helper()
	out := map[string]Status{}
	for _, w := range n.Topology.OfKind(topology.KindSimulator) {
		meshtest.Await(t, w.Name+" to end "+id, func() bool {
			out[w.Name] = ask[Status](t, n, w.Name, "/v1/plays/"+id)
			return out[w.Name].State != Running
		})
		if s := out[w.Name]; s.State != Done || s.Delivered != s.Issued || len(s.Refused) != 0 {
			t.Fatalf("%s: %+v", w.Name, s)
		}
	}
	for _, w := range n.Topology.OfKind(topology.KindCollector) {
		meshtest.Await(t, w.Name+"'s spool to be empty", func() bool {
			c := ask[collectorapi.Spool](t, n, w.Name, "/v1/spool")
			return c.Watermark == ask[collectorapi.Spool](t, n, w.Name, "/v1/spool").Watermark &&
				c.Accepted == c.Stored+c.Duplicate &&
				c.Awaiting == 0
		})
	}
	return out
}

func (n *net) difference(want map[string]activity.Event) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return cmp.Diff(want, n.events)
}

// The company's month through signatures, mutual TLS, spools and batches: nothing lost but in gaps, nothing twice,
// nothing invented.
func TestHistoryArrivesOnceThroughTheRealCollectors(t *testing.T) {
	days := 10
	if testing.Short() {
		days = 2
	}
	n := start(t)
	began := time.Now()
	n.play(t, Play{ID: "history", Kind: History, Seed: 42, People: 50, Days: days})
	status := n.settled(t, "history")
	t.Logf("%d events in %v", len(n.events), time.Since(began))
	staff, roster := company(42, 50)
	done := vendors(routine.Month(staff, days))
	recorded := routine.Recorded(42, done)
	if diff := n.difference(expected(t, roster, recorded)); diff != "" {
		t.Errorf("(-expected +arrived):\n%.4000s", diff)
	}
	acts, lost := 0, 0
	for _, s := range status {
		acts, lost = acts+s.Acts, lost+s.Lost
	}
	if acts != len(recorded) || lost != len(done)-len(recorded) {
		t.Errorf("simulators speak of %d acts and %d lost ones, want %d and %d", acts, lost, len(recorded),
			len(done)-len(recorded))
	}
	duplicates := 0
	for _, s := range status {
		duplicates += s.Duplicates
	}
	if duplicates == 0 || n.lines <= len(n.events) {
		t.Errorf("no redelivery was tried: %d duplicates, %d lines for %d events", duplicates, n.lines, len(n.events))
	}

	// A timeline, with a stranger to the company, waits for the lab's clock.
	mira := risk.Person{ID: "mira", Name: "Mira", Email: "mira@example.org", Role: "backend_developer", Team: "cast",
		Joined: "2025-01-01", Zone: "Europe/Berlin",
		Accounts: []string{"github:mira-k", "email:mira@example.org", "jira:5b10a", "okta:mira@example.org", "aws:mira"}}
	late := routine.Act{ID: "aaaaaaaaaaaaaaaa", At: risk.Epoch.Add(time.Hour), Person: "mira", Source: activity.IAM,
		Verb: activity.OffHoursAccess}
	early := routine.Act{ID: "bbbbbbbbbbbbbbbb", At: risk.Epoch, Person: "mira", Source: activity.Git,
		Verb: activity.SecretCommitted, Repository: "payments", Count: 3}
	n.play(t, Play{ID: "t", Kind: Timeline, Cast: []risk.Person{mira}, Acts: []routine.Act{late, early}})
	miras := func() map[string]int {
		n.mu.Lock()
		defer n.mu.Unlock()
		got := tally([]risk.Person{mira}, n.events)
		maps.DeleteFunc(got, func(k string, _ int) bool { return !strings.HasPrefix(k, "mira ") })
		return got
	}
	meshtest.Await(t, "three secrets", func() bool { return miras()["mira git.secret_committed"] == 3 })
	if s := ask[Status](t, n, "sim-iam", "/v1/plays/t"); s.State != Running || s.Issued != 0 {
		t.Errorf("an act of the future: %+v", s)
	}
	n.tick(time.Hour)
	n.settled(t, "t")
	if diff := cmp.Diff(map[string]int{"mira git.commit": 3, "mira git.push": 3, "mira git.secret_committed": 3,
		"mira iam.off_hours_access": 1}, miras()); diff != "" {
		t.Error(diff)
	}
	n.mu.Lock()
	for _, e := range n.events {
		// A secret is found 20 s after it was pushed. But for that, and the seconds between repetitions, nothing of a
		// timeline gets new dates.
		if after := e.At.Sub(early.At); slices.Contains(e.Accounts, "github:mira-k") && after != 0 &&
			after != 7*time.Second && after != 14*time.Second && e.Verb != activity.SecretCommitted {
			t.Errorf("%s of a timeline is dated %v after its act", e.ID, after)
		}
		if slices.Contains(e.Accounts, "okta:mira@example.org") && !e.At.Equal(late.At) {
			t.Errorf("%s of a timeline is dated %v, its act happened at %v", e.ID, e.At, late.At)
		}
	}
	n.mu.Unlock()

	// Ordinary life goes on from the clock's hour, until it is stopped.
	n.mu.Lock()
	before := len(n.events)
	n.mu.Unlock()
	n.play(t, Play{ID: "live", Kind: Live, Seed: 42, People: 50})
	meshtest.Await(t, "a day's acts", func() bool {
		n.tick(10 * time.Minute)
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.events) > before+20
	})
	resp, err := n.caller.Peer("sim-git").Do(t.Context(), http.MethodDelete, "/v1/plays/live", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var s Status
	if err := httpjson.ReadAnswer(resp, 1<<20, &s); err != nil || s.State != Stopped {
		t.Errorf("deleted: %+v, %v", s, err)
	}
	n.mu.Lock()
	var ordinary []routine.Act
	for day := 0; !risk.Epoch.AddDate(0, 0, day).After(n.clock.Now); day++ {
		ordinary = append(ordinary, routine.Day(staff, day)...)
	}
	ordinary = vendors(routine.Recorded(42, ordinary))
	known := expected(t, append(roster, mira), slices.Concat(recorded, ordinary, expand(early), expand(late)))
	for id, e := range n.events {
		if want, ok := known[id]; !ok || !cmp.Equal(want, e) {
			t.Errorf("%s is not what vendors have on record, or in another way: %s", id, cmp.Diff(want, e))
		}
	}
	if n.ahead > 9*time.Minute {
		t.Errorf("an event lay %v ahead of the lab's clock: "+
			"services/riskscorer takes 9 minutes, by its own test, and refuses 11", n.ahead)
	}
	n.mu.Unlock()
	if _, err := n.caller.Peer("sim-git").Post(t.Context(), "/v1/plays", "text/plain", nil); err != nil {
		t.Error(err)
	}
}

// A vendor whose clock is wrong tells of an act when it happens, and dates it by its clock.
func TestOrdinaryLifeIsToldWhenItHappensAndDatedByTheVendorsClock(t *testing.T) {
	row, err := source.Find(activity.Git)
	if err != nil {
		t.Fatal(err)
	}
	staff, roster := company(1, 50)
	acts := slices.DeleteFunc(slices.Concat(routine.Day(staff, 0), routine.Day(staff, 1)),
		func(a routine.Act) bool { return a.Source != activity.Git })
	happened, dated := expected(t, roster, acts), expected(t, roster, routine.Recorded(1, acts))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	clock, seen, joined := risk.Clock{Now: risk.Epoch, Pace: 1}, map[string]time.Duration{}, memory{}
	send := func(_ context.Context, _ topology.Route, h http.Header, body []byte) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		events, err := row.Events(source.Record{Kind: h.Get("X-GitHub-Event"), Body: source.Scrub(body)}, joined)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			if diff := cmp.Diff(dated[e.ID], e); diff != "" {
				t.Errorf("(-recorded +told):\n%s", diff)
			}
			seen[e.ID] = clock.Now.Sub(happened[e.ID].At)
		}
		if len(seen) == len(dated) {
			cancel()
		}
		return &http.Response{StatusCode: http.StatusAccepted, Body: http.NoBody}, nil
	}
	w := newWorld(ctx, row, secret, send, func(context.Context) (risk.Clock, error) {
		mu.Lock()
		defer mu.Unlock()
		clock.Now = clock.Now.Add(5 * time.Second)
		return clock, nil
	})
	w.look = time.Microsecond
	on, err := w.begin(Play{ID: "live", Kind: Live, Seed: 1, People: 50})
	if err != nil {
		t.Fatal(err)
	}
	<-on.over
	if len(seen) != len(dated) || len(dated) < 50 {
		t.Fatalf("%d events were told of, want %d", len(seen), len(dated))
	}
	for id, after := range seen {
		// An alert is dated half a minute after the push that it comes with; deliveries under way see the clock go on.
		if after < -30*time.Second || after > 2*time.Minute {
			t.Errorf("%s was told of %v after it happened", id, after)
		}
	}
}

func TestOktaLogIsOnlyForTheTokenAndKeepsItsLimit(t *testing.T) {
	row, err := source.Find(activity.IAM)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t.Context(), row, secret, nil, nil)
	p := &play{status: Status{Refused: map[string]int{}}}
	for i := range 25 {
		w.log.append(p, fmt.Appendf(nil, `{"uuid":"%d","published":"2026-09-14T10:00:00.000Z"}`, i))
	}
	get := func(uri, token string) (*http.Response, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, uri, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", token)
		}
		rec := &recorder{header: http.Header{}, status: 200}
		if err := w.serveLog(rec, r); err != nil {
			httpjson.WriteError(rec, err)
		}
		return &http.Response{StatusCode: rec.status, Header: rec.header}, rec.body.String()
	}
	for _, bad := range []string{"", "SSWS other", "Bearer " + string(secret)} {
		if resp, _ := get("/api/v1/logs", bad); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("token %q: %d", bad, resp.StatusCode)
		}
	}
	token := "SSWS " + string(secret)
	seen := 0
	uri := "/api/v1/logs?limit=10&since=2026-01-01T00:00:00Z"
	for range 4 {
		resp, body := get(uri, token)
		seen += strings.Count(body, "uuid")
		next := resp.Header.Values("Link")[1]
		uri = strings.TrimPrefix(strings.TrimSuffix(next, `>; rel="next"`), "<https://example.okta.com")
	}
	if seen != 25 || p.read().Delivered != 25 {
		t.Errorf("%d events seen, %d delivered, want 25", seen, p.read().Delivered)
	}
	// A cursor of a log that is gone begins again.
	if _, body := get("/api/v1/logs?limit=1000&after=gone.7", token); strings.Count(body, "uuid") != 25 {
		t.Errorf("a foreign cursor gave %s", body)
	}
	for range perMinute {
		get("/api/v1/logs", token)
	}
	if resp, _ := get("/api/v1/logs", token); resp.StatusCode != http.StatusTooManyRequests ||
		resp.Header.Get("X-Rate-Limit-Remaining") != "0" {
		t.Errorf("over the limit: %d %v", resp.StatusCode, resp.Header)
	}
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
