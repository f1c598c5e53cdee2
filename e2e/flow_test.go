package e2e

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/play"
	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/world"
)

// member joins the mesh as a workload, by an identity that the CA mints for the test.
func member(t *testing.T, name string) *mesh.Node {
	t.Helper()
	svid, bundles, err := l.Mint(t.Context(), l.topo.ID(name), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	held := &mesh.Held{}
	held.Set(svid, bundles)
	cfg := l.Mesh()
	cfg.Identities, cfg.AuditFile, cfg.Log = held, t.TempDir()+"/audit", slog.New(slog.DiscardHandler)
	node, err := mesh.Join(t.Context(), name, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// These are the five steps that the first design names for LMS → LLM gateway.
func TestALessonTravelsFromTheLMSToTheModelAndBack(t *testing.T) {
	lms, gateway := named(t, topology.KindDashboard, ""), serving(t, generate)
	entries, err := lab.Entries(t.Context(), l.Lab, lms)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) == 0 || entries[0].Kind != "start" || entries[0].Peer != l.topo.ID(lms).String() {
		t.Fatal("1. the LMS did not begin with its own X.509-SVID")
	}
	node := member(t, lms)
	request := lesson.Request{
		Subject: "subject-of-a-test",
		Role:    "backend_developer",
		Level:   risk.Medium,
		Reasons: []lesson.Reason{{Verb: activity.SecretCommitted, Count: 3, Detail: "payments: config/prod.env"}},
	}
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	resp, err := node.Peer(gateway).Post(t.Context(), generate.Path(), "application/json", body)
	if err != nil {
		t.Fatalf("2. the LMS cannot reach the gateway over HTTPS: %v", err)
	}
	defer resp.Body.Close()
	var got lesson.Lesson
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("5. no lesson came back over mTLS: %d, %v", resp.StatusCode, err)
	}
	awaitAudit(t, gateway, "3. the decision about the LMS's certificate", func(e audit.Entry) bool {
		return !e.At.Before(before) && e.Kind == "decision" && e.Peer == l.topo.ID(lms).String() &&
			e.Route == string(generate) &&
			e.Outcome == string(topology.Allowed)
	})
	model := named(t, topology.KindModel, "")
	awaitAudit(t, model, "4. the gateway's call to the model", func(e audit.Entry) bool {
		return !e.At.Before(before) && e.Peer == l.topo.ID(gateway).String() && e.Outcome == string(topology.Allowed)
	})
	if len(got.Objectives) < 2 || len(got.Practices) < 2 || len(got.Quiz) < 3 || got.Origin != lesson.Stub {
		t.Errorf(
			"the lesson is thin: %d objectives, %d practices, %d questions, origin %s",
			len(got.Objectives),
			len(got.Practices),
			len(got.Quiz),
			got.Origin,
		)
	}
}

// These are the four steps that the first design names for collectors → risk scorer.
func TestAnActTravelsFromTheVendorToTheDatabase(t *testing.T) {
	collector, scorer := named(t, topology.KindCollector, "git"), serving(t, "POST /v1/events")
	person := anybody(t)
	before := assess(t, person)
	began := time.Now()
	run := fmt.Sprintf("flow-%d", began.UnixNano())
	perform(
		t,
		run,
		routine.Act{
			ID:         run,
			Person:     person,
			Source:     activity.Git,
			Verb:       activity.SecretCommitted,
			Repository: "payments",
			Path:       "config/prod.env",
			Detail:     "flow",
		},
	)
	awaitAudit(t, scorer, "1. and 2. the collector's POST with a certificate that was checked", func(e audit.Entry) bool {
		return !e.At.Before(began) && e.Peer == l.topo.ID(collector).String() && e.Route == "POST /v1/events" &&
			e.Outcome == string(topology.Allowed)
	})
	after := assess(t, person)
	if after.Position <= before.Position {
		t.Fatalf("3. the scorer's log did not grow: %d, then %d", before.Position, after.Position)
	}
	var contribution *risk.Contribution
	for _, c := range after.Contributions {
		if c.Verb == activity.SecretCommitted && strings.Contains(c.Event, "git:secret/") &&
			!c.At.Before(before.At.Add(-time.Hour)) {
			contribution = &c
		}
	}
	if contribution == nil {
		t.Fatalf("4. no contribution of the committed secret is stored: %+v", after.Contributions)
	}
	entries, err := lab.Entries(t.Context(), l.Lab, collector)
	if err != nil {
		t.Fatal(err)
	}
	told := false
	for _, e := range entries {
		told = told || e.Event == contribution.Event
	}
	if !told {
		t.Errorf("the collector's audit does not name %s: one search must tell the story", contribution.Event)
	}
}

func TestACollectorMaySubmitItsOwnSourceAlone(t *testing.T) {
	collector, scorer := named(t, topology.KindCollector, "git"), serving(t, "POST /v1/events")
	node := member(t, collector)
	line, err := json.Marshal(activity.Entry{Seq: 1, Event: &activity.Event{
		ID:       "siem:forged-by-a-test",
		At:       time.Now(),
		Accounts: []string{"email:x@example.org"},
		Source:   activity.SIEM,
		Verb:     activity.MalwareDetected,
	}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	resp, err := node.Peer(scorer).Post(t.Context(), "/v1/events", "application/x-ndjson", append(line, '\n'))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a foreign source was answered %d, want 403", resp.StatusCode)
	}
	awaitAudit(t, scorer, "a foreign source", func(e audit.Entry) bool {
		return !e.At.Before(began) && e.Peer == l.topo.ID(collector).String() && e.Reason == "foreign_source"
	})
}

// anybody is a person of the company without a storyline, which the test's own events would disturb.
func anybody(t testing.TB) string {
	t.Helper()
	staff := people.Company(l.st.Spec.Seed, l.st.Spec.People, people.Published)
	for _, p := range staff {
		if p.Left == "" && p.Label == risk.Low {
			return p.ID
		}
	}
	return staff[0].ID
}

// perform has the simulators report acts at the lab's current time, and waits until they are scored.
func perform(t testing.TB, run string, acts ...routine.Act) {
	t.Helper()
	clock, err := l.op.Clock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range acts {
		acts[i].At = clock.Now
	}
	play := world.Play{ID: run, Kind: world.Timeline, Seed: l.st.Spec.Seed, People: l.st.Spec.People, Acts: acts}
	if err := l.op.Perform(t.Context(), play); err != nil {
		t.Fatal(err)
	}
	if err := l.op.AwaitScored(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func assess(t testing.TB, person string) risk.Assessment {
	t.Helper()
	var a risk.Assessment
	if err := l.op.Call(
		t.Context(), serving(t, "GET /v1/people/{person}/risk"), http.MethodGet, "/v1/people/"+person+"/risk", nil, &a,
	); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestEachScenarioHolds(t *testing.T) {
	for _, name := range play.Names() {
		t.Run(name, func(t *testing.T) {
			out, err := command(t.Context(), l.name, "play", name).run()
			if err != nil || !strings.Contains(out, "✓ "+name) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
