package riskscorer

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/risk"
)

// TestScorerServesItsRoutesOverTheMesh runs the scorer as a member: every listed route has its handler, callers are who
// their certificates say, and a refusal is written where it was made.
func TestScorerServesItsRoutesOverTheMesh(t *testing.T) {
	text, err := os.ReadFile("../../manifests/chart/topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	net := meshtest.Start(t, text)
	node := net.Join(t, "risk-scorer")
	New(database(t), risk.MustProfile(risk.Default), node.Topology().TrustDomain, node.Audit(),
		slog.New(slog.DiscardHandler)).Register(node)
	net.Serve(t, node)

	call := func(from *mesh.Node, method, path, contentType, body string) (int, string) {
		t.Helper()
		resp, err := from.Peer("risk-scorer").Do(t.Context(), method, path, contentType, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(answer)
	}
	instructor, git, jira, lms := net.Join(t, "instructor"), net.Join(t, "git-collector"), net.Join(t, "jira-collector"),
		net.Join(t, "lms")
	roster, err := json.Marshal([]risk.Person{person("mira", risk.DataEngineer)})
	if err != nil {
		t.Fatal(err)
	}
	if code, body := call(instructor, http.MethodPut, "/v1/people", "application/json", string(roster)); code != 200 {
		t.Fatalf("roster: %d %s", code, body)
	}
	secret := ndjson(t, 1, commit(1, "mira", activity.SecretCommitted, time.Hour))
	if code, body := call(git, http.MethodPost, "/v1/events", "application/x-ndjson", secret); code != 200 ||
		!strings.Contains(body, `"stored"`) {
		t.Fatalf("git's event: %d %s", code, body)
	}
	if code, body := call(jira, http.MethodPost, "/v1/events", "application/x-ndjson", secret); code != 403 ||
		!strings.Contains(body, "foreign_source") {
		t.Errorf("git's event from jira: %d %s, want 403", code, body)
	}
	pass := ndjson(t, 1, activity.Event{ID: "training:1", At: risk.Epoch, Person: "mira", Source: activity.Training,
		Verb: activity.TrainingPassed, Module: "secret-hygiene", Teaches: []activity.Verb{activity.SecretCommitted}})
	score := func() risk.Score {
		t.Helper()
		var a risk.Assessment
		if code, body := call(lms, http.MethodGet, "/v1/people/mira/risk", "", ""); code != 200 ||
			json.Unmarshal([]byte(body), &a) != nil {
			t.Fatalf("risk: %d %s", code, body)
		}
		return a.Score
	}
	before := score()
	if code, body := call(lms, http.MethodPost, "/v1/events", "application/x-ndjson", pass); code != 200 ||
		!strings.Contains(body, `"stored"`) {
		t.Fatalf("a pass: %d %s", code, body)
	}
	if after := score(); before == 0 || after.Float() > .51*before.Float() {
		t.Errorf("score %v before a pass and %v after, want half", before, after)
	}
	entry := net.AwaitAudit(t, "risk-scorer", "the refusal of a foreign source",
		func(e audit.Entry) bool { return e.Reason == "foreign_source" })
	if !strings.HasSuffix(entry.Peer, "/jira-collector") || entry.Serial == "" || entry.Event == "" {
		t.Errorf("audit entry %+v: want who it was and which event", entry)
	}
}
