package stubgemini_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.org/security-training/manifests"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/env"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/llmgateway"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/stubgemini"
)

func TestGatewayTellsEachOfTheStubsModesApart(t *testing.T) {
	server := serve(t, &stubgemini.Server{})
	for model, want := range map[string]lesson.Fallback{
		"gemini-2.5-flash": "", "gemini-3-pro": "", "stub-hostile": "",
		"stub-429": lesson.ModelQuota, "stub-safety": lesson.ModelSafety, "stub-blocked": lesson.ModelSafety,
		"stub-max-tokens": lesson.ModelMaxTokens, "stub-truncated": lesson.ModelMaxTokens,
		"stub-malformed": lesson.ModelMalformed,
		"stub-503":       lesson.ModelUnavailable, "stub-redirect": lesson.ModelRedirect, "stub-timeout": lesson.ModelTimeout,
		"no-such": lesson.ModelRefused,
	} {
		t.Run(model, func(t *testing.T) {
			deadline := 10 * time.Second
			if model == "stub-timeout" {
				deadline = 50 * time.Millisecond
			}
			quota := llmgateway.Quota{Requests: 10, Tokens: 100_000, Window: time.Minute}
			g, err := llmgateway.New(t.Context(), llmgateway.Config{
				Origin: lesson.Stub, Model: model, Key: "k", BaseURL: server.URL, HTTP: server.Client(), Deadline: deadline,
				Caller: quota, Person: quota, Now: time.Now, Log: slog.New(slog.DiscardHandler), Audit: func(audit.Entry) {},
			})
			if err != nil {
				t.Fatal(err)
			}
			body := `{"subject":"p-3f2a9c1e","role":"sre","level":"HIGH",` +
				`"reasons":[{"verb":"iam.off_hours_access","count":4,"detail":"prod-billing at 02:14"}]}`
			r := httptest.NewRequestWithContext(mesh.WithCaller(t.Context(), topology.Workload{Name: "lms"}, ""),
				http.MethodPost, "/v1/generate", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			if err := g.Generate(w, r); err != nil {
				t.Fatal(err)
			}
			var got lesson.Lesson
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if err := got.Validate(); err != nil {
				t.Error(err)
			}
			if got.Fallback != want || got.Module != "access-hygiene" || (got.Origin == lesson.Stub) != (want == "") {
				t.Errorf("origin %q fallback %q module %q, want fallback %q", got.Origin, got.Fallback, got.Module, want)
			}
			if want == "" && !strings.Contains(got.Summary, "prod-billing at 02:14") {
				t.Errorf("summary %q is not about what happened", got.Summary)
			}
			if text := w.Body.String(); strings.Contains(text, "evil.example") || strings.Contains(text, "onclick") ||
				strings.Contains(text, "\u202e") {
				t.Errorf("markup, a link or an invisible character survived: %s", text)
			}
		})
	}
}

func TestLessonIsWrittenThroughTheMeshAndItsCallerAudited(t *testing.T) {
	net := meshtest.Start(t, manifests.Topology())
	stub := net.Join(t, "stub-gemini")
	stubgemini.Mount(stub)
	net.Serve(t, stub)
	gateway := net.Join(t, "llm-gateway")
	if err := llmgateway.Mount(t.Context(), gateway, env.Map(map[string]string{"LLM_BACKEND": "stub"})); err != nil {
		t.Fatal(err)
	}
	net.Serve(t, gateway)

	body := []byte(`{"subject":"p-3f2a9c1e","role":"backend_developer","level":"MEDIUM",` +
		`"reasons":[{"verb":"git.secret_committed","count":3}]}`)
	resp, err := net.Join(t, "lms").Peer("llm-gateway").Post(t.Context(), "/v1/generate", "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	var got lesson.Lesson
	if err := httpjson.ReadAnswer(resp, 1<<20, &got); err != nil {
		t.Fatal(err)
	}
	if err := got.Validate(); err != nil || got.Origin != lesson.Stub || got.Model != "gemini-2.5-flash" ||
		!strings.Contains(got.Summary, "committed 3 secrets") {
		t.Errorf("%+v, %v", got, err)
	}
	entry := net.AwaitAudit(t, "llm-gateway", "the generation", func(e audit.Entry) bool { return e.Kind == "lesson" })
	if entry.Reason != "generated" || entry.Peer != net.Topology.ID("lms").String() || strings.Contains(entry.Detail,
		"committed") {
		t.Errorf("%+v", entry)
	}
	if resp, err = net.Join(t, "git-collector").Peer("llm-gateway").Post(t.Context(), "/v1/generate", "application/json",
		body); err == nil {
		resp.Body.Close()
		t.Errorf("a collector got %d from the gateway", resp.StatusCode)
	}
}
