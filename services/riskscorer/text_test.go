package riskscorer

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
)

func TestWhatIsNoTextIsTheCallersFaultOnEveryRoute(t *testing.T) {
	text, err := os.ReadFile("../../manifests/chart/topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	n := meshtest.Start(t, text)
	node := n.Join(t, "risk-scorer")
	New(
		database(t),
		risk.MustProfile(risk.Default),
		node.Topology().TrustDomain,
		node.Audit(),
		slog.New(slog.DiscardHandler),
	).Register(node)
	n.Serve(t, node)
	n.RefusesWhatIsNoText(t, "risk-scorer", map[string][]string{
		"PUT /v1/people": {`[{"id":"a\u0000b","name":"x","role":"software-engineer"}]`},
		"POST /v1/events": {
			`{"seq":1,"event":{"id":"git:a\u0000b","source":"git","verb":"git.secret_committed","person":"\u0000"}}`,
		},
	})
}

func TestABodyWhoseChunksCannotBeReadIsTheCallersFault(t *testing.T) {
	s := New(database(t), risk.MustProfile(risk.Default), "example.org", nil, slog.New(slog.DiscardHandler))
	for contentType, handler := range map[string]mesh.HandlerFunc{"application/x-ndjson": s.Events,
		"application/json": s.PutPeople} {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			caller := topology.Workload{Name: "git-collector", Source: "git"}
			if err := handler(w, r.WithContext(mesh.WithCaller(r.Context(), caller, "1f"))); err != nil {
				httpjson.WriteError(w, err)
			}
		}))
		defer web.Close()
		conn, err := net.Dial("tcp", web.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		request := "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: " + contentType +
			"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 400 || !strings.Contains(string(body), "body_cut") {
			t.Errorf("%s: %d %s, want 400", contentType, resp.StatusCode, body)
		}
	}
}
