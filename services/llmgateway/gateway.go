// Package llmgateway is the only access to a language model: it turns a lesson.Request into a lesson.Lesson.
//
// Callers choose the topic, never the instructions. Their data is redacted and fenced. The model's answer is checked
// against the lesson's schema and reduced to plain text. If the model fails for any reason, the built-in lesson is
// served, marked as such. The API key stays in this process and is sent to the model's host only.
package llmgateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/env"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/llmgateway/gatewayapi"
	"example.org/security-training/services/mesh"
)

const (
	geminiURL = "https://generativelanguage.googleapis.com/"

	longestRequest = 64 << 10
)

// Config is what a Gateway needs.
type Config struct {
	Origin       lesson.Origin // lesson.Gemini or lesson.Stub
	Model        string        // "gemini-2.5-flash"
	Key          Key           // passed to the SDK and nowhere else
	BaseURL      string        // of the API
	HTTP         *http.Client  // used to call it; redirects are never followed
	Deadline     time.Duration // of one generation with all its retries
	BreakerPause time.Duration // how long the breaker stays open
	Caller       Quota         // of one workload
	Person       Quota         // of one subject
	Now          func() time.Time
	Log          *slog.Logger
	Audit        func(audit.Entry) // gets one entry for each valid request; its Peer is the caller's name
}

// Key is an API key that no formatting shows.
type Key string

// String implements fmt.Stringer.
func (Key) String() string { return "[key]" }

// GoString implements fmt.GoStringer.
func (Key) GoString() string { return "[key]" }

// LogValue implements slog.LogValuer.
func (Key) LogValue() slog.Value { return slog.StringValue("[key]") }

// Gateway answers requests for lessons. Its methods are safe for concurrent use.
type Gateway struct {
	cfg             Config
	author          *author
	callers, people *buckets
}

// New returns a gateway. Its errors never contain the key.
func New(ctx context.Context, cfg Config) (*Gateway, error) {
	a, err := newAuthor(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &Gateway{cfg: cfg, author: a, callers: newBuckets(cfg.Caller), people: newBuckets(cfg.Person)}, nil
}

// Generate answers POST /v1/generate: 200 with a lesson.Lesson, generated or built in; 415, 400 or 413 for a body that
// is not a lesson.Request, 422 with all its faults, 429 with Retry-After when the caller's or the person's quota is
// used up.
func (g *Gateway) Generate(w http.ResponseWriter, r *http.Request) error {
	var req lesson.Request
	if err := httpjson.Read(w, r, longestRequest, &req); err != nil {
		return err
	}
	if err := req.Validate(); err != nil {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_request", "lesson request: %v", err)
	}
	prompt, err := userPrompt(req)
	if err != nil {
		return err
	}

	start := g.cfg.Now()
	caller := mesh.Caller(r.Context()).Name
	entry := audit.Entry{
		Kind:   "lesson",
		Peer:   caller,
		Serial: mesh.CallerSerial(r.Context()),
		Route:  string(gatewayapi.RouteGenerate),
	}
	estimate := (len(systemPrompt) + len(prompt)) / 4
	claim, wait := take(start, estimate, g.callers.of(caller, start), g.people.of(caller+" "+req.Subject, start))
	if claim == nil {
		entry.Reason, entry.Detail = "over_quota", g.detail(req, usage{}, 0, 0)
		g.cfg.Audit(entry)
		return httpjson.Errorf(http.StatusTooManyRequests, "over_quota",
			"the quota of lessons for this caller or person is used up").After(wait)
	}

	content, used, tries, err := g.author.write(r.Context(), prompt)
	now := g.cfg.Now()
	claim.charge(now, used.total())
	entry.Detail = g.detail(req, used, tries, now.Sub(start))

	var failed *failure
	switch {
	case err == nil:
		entry.Reason = "generated"
		g.cfg.Audit(entry)
		return httpjson.Write(w, http.StatusOK, lesson.Lesson{
			Module: req.Topic(), Content: content, Origin: g.cfg.Origin, Model: g.cfg.Model,
		})
	case errors.As(err, &failed):
		entry.Reason = "fallback_" + string(failed.reason)
		g.cfg.Audit(entry)
		g.cfg.Log.Warn("serve built-in lesson", "reason", failed.reason, "cause", failed.act, "model", g.cfg.Model,
			"tries", tries)
		l := lesson.BuiltIn(req.Topic())
		l.Fallback = failed.reason
		return httpjson.Write(w, http.StatusOK, l)
	default: // the caller is gone
		entry.Reason = "caller_gone"
		g.cfg.Audit(entry)
		return httpjson.Errorf(http.StatusServiceUnavailable, "caller_gone", "the caller did not wait for the lesson")
	}
}

// detail describes a generation and its cost, without text of the prompt or the lesson, and without names.
func (g *Gateway) detail(req lesson.Request, u usage, tries int, took time.Duration) string {
	return fmt.Sprintf("subject=%s module=%s model=%s prompt_tokens=%d thought_tokens=%d answer_tokens=%d tries=%d ms=%d",
		req.Subject, req.Topic(), g.cfg.Model, u.Prompt, u.Thoughts, u.Answer, tries, took.Milliseconds())
}

// Run joins the mesh and serves until ctx ends. Settings in addition to the mesh's: LLM_BACKEND (gemini, the default,
// or stub), GEMINI_MODEL, GEMINI_API_KEY_FILE (or, less secure, GEMINI_API_KEY; the stub needs none), LLM_TIMEOUT, and
// the quotas LLM_CALLER_REQUESTS and LLM_CALLER_TOKENS per minute, LLM_PERSON_REQUESTS and LLM_PERSON_TOKENS per hour.
func Run(ctx context.Context, lookup env.Lookup) error {
	node, err := mesh.FromEnv(ctx, lookup)
	if err != nil {
		return err
	}
	if err := Mount(ctx, node, lookup); err != nil {
		return err
	}
	return node.Serve(ctx)
}

// Mount adds the gateway's handlers to node, with the settings of Run.
func Mount(ctx context.Context, node *mesh.Node, lookup env.Lookup) error {
	cfg, err := settings(lookup)
	if err != nil {
		return err
	}
	if cfg.Origin == lesson.Gemini {
		cfg.BaseURL, cfg.HTTP = geminiURL, node.Egress()
	} else {
		peer, err := node.Serving(gatewayapi.RouteModel)
		if err != nil {
			return fmt.Errorf("find the model's stand-in: %w", err)
		}
		cfg.BaseURL, cfg.HTTP = "https://"+peer.Name()+"/", peer.HTTP()
	}
	cfg.Log = node.Log()
	cfg.Audit = func(e audit.Entry) {
		if e.Peer != "" {
			e.Peer = node.Topology().ID(e.Peer).String()
		}
		node.Audit().Write(e)
	}
	g, err := New(ctx, cfg)
	if err != nil {
		return err
	}
	node.Handle(gatewayapi.RouteGenerate, g.Generate)
	return nil
}

// settings reads all settings except the mesh's.
func settings(lookup env.Lookup) (Config, error) {
	r := env.Read(lookup)
	cfg := Config{
		Origin:       lesson.Origin(r.OneOf("LLM_BACKEND", string(lesson.Gemini), string(lesson.Stub))),
		Model:        r.Optional("GEMINI_MODEL", "gemini-2.5-flash"),
		Deadline:     r.Duration("LLM_TIMEOUT", 40*time.Second),
		BreakerPause: 15 * time.Second,
		Caller:       Quota{r.Int("LLM_CALLER_REQUESTS", 300), r.Int("LLM_CALLER_TOKENS", 1_500_000), time.Minute},
		Person:       Quota{r.Int("LLM_PERSON_REQUESTS", 30), r.Int("LLM_PERSON_TOKENS", 200_000), time.Hour},
		Now:          time.Now,
	}
	switch {
	case r.Optional("GEMINI_API_KEY_FILE", "") != "":
		cfg.Key = Key(r.Secret("GEMINI_API_KEY_FILE"))
	case cfg.Origin == lesson.Gemini:
		cfg.Key = Key(r.Required("GEMINI_API_KEY"))
	default:
		cfg.Key = Key(r.Optional("GEMINI_API_KEY", "none"))
	}
	return cfg, r.Err()
}
