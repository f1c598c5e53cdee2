package stubgemini_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genai"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lesson"
	"example.org/security-training/synth/stubgemini"
)

const prompt = `{"module":"secret-hygiene","reasons":[` +
	`{"verb":"git.secret_committed","count":3,"detail":"payments: config/prod.env"},` +
	`{"verb":"iam.service_account_key","count":1}]}`

func serve(t *testing.T, s *stubgemini.Server) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1beta/models/{call}", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Call(w, r); err != nil {
			httpjson.WriteError(w, err)
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

func client(t *testing.T, server *httptest.Server, key string) *genai.Client {
	c, err := genai.NewClient(t.Context(), &genai.ClientConfig{APIKey: key, Backend: genai.BackendGeminiAPI,
		HTTPClient:  server.Client(),
		HTTPOptions: genai.HTTPOptions{BaseURL: server.URL}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func asLesson() *genai.GenerateContentConfig {
	return &genai.GenerateContentConfig{ResponseMIMEType: "application/json", ResponseJsonSchema: lesson.Schema()}
}

func TestSDKGetsALessonOfTheSchemaAboutTheReasons(t *testing.T) {
	c := client(t, serve(t, &stubgemini.Server{}), "a-key")
	resp, err := c.Models.GenerateContent(t.Context(), "gemini-2.5-flash", genai.Text(prompt), asLesson())
	if err != nil {
		t.Fatal(err)
	}
	got, err := lesson.FromJSON([]byte(resp.Text()))
	if err != nil {
		t.Fatalf("%v\n%s", err, resp.Text())
	}
	for _, want := range []string{"committed 3 secrets", "payments: config/prod.env", "service account key"} {
		if !strings.Contains(got.Summary, want) {
			t.Errorf("summary %q does not mention %q", got.Summary, want)
		}
	}
	if resp.ModelVersion != "gemini-2.5-flash" || resp.ResponseID == "" {
		t.Errorf("modelVersion %q, responseId %q", resp.ModelVersion, resp.ResponseID)
	}
	u := resp.UsageMetadata
	if u.PromptTokenCount == 0 || u.CandidatesTokenCount == 0 ||
		u.TotalTokenCount != u.PromptTokenCount+u.CandidatesTokenCount+u.ThoughtsTokenCount {
		t.Errorf("usage %+v", u)
	}
}

func TestTheSameRequestGetsTheSameAnswer(t *testing.T) {
	ask := func(text string) *genai.GenerateContentResponse {
		resp, err := client(t, serve(t, &stubgemini.Server{}), "k").Models.GenerateContent(t.Context(), "gemini-2.5-flash",
			genai.Text(text), asLesson())
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	a, b, other := ask(prompt), ask(prompt), ask(prompt+" ")
	if diff := cmp.Diff(a.Text(), b.Text()); diff != "" || a.ResponseID != b.ResponseID {
		t.Error(diff)
	}
	if other.ResponseID == a.ResponseID {
		t.Error("another request has the same responseId")
	}
}

func TestAnswerFitsAnySchema(t *testing.T) {
	c := client(t, serve(t, &stubgemini.Server{}), "k")
	resp, err := c.Models.GenerateContent(t.Context(), "gemini-2.5-flash", genai.Text(prompt),
		&genai.GenerateContentConfig{
			ResponseMIMEType: "application/json",
			ResponseSchema: &genai.Schema{Type: genai.TypeObject, Properties: map[string]*genai.Schema{
				"title":    {Type: genai.TypeString, MaxLength: genai.Ptr[int64](10)},
				"severity": {Type: genai.TypeString, Enum: []string{"only"}},
				"numbers": {Type: genai.TypeArray, MinItems: genai.Ptr[int64](2), MaxItems: genai.Ptr[int64](2),
					Items: &genai.Schema{Type: genai.TypeInteger, Minimum: genai.Ptr(7.0)}},
				"sure": {Type: genai.TypeBoolean},
			}},
		})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := resp.Text(), `{"numbers":[7,7],"severity":"only","sure":false,"title":"Keep secre"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSDKReadsTheStreamToItsEnd(t *testing.T) {
	c := client(t, serve(t, &stubgemini.Server{}), "k")
	var text strings.Builder
	var last *genai.GenerateContentResponse
	n := 0
	for resp, err := range c.Models.GenerateContentStream(t.Context(), "gemini-2.5-flash", genai.Text(prompt),
		asLesson()) {
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(resp.Text())
		last, n = resp, n+1
	}
	if n < 2 || last.Candidates[0].FinishReason != genai.FinishReasonStop {
		t.Fatalf("%d chunks, the last is %+v", n, last)
	}
	whole, err := c.Models.GenerateContent(t.Context(), "gemini-2.5-flash", genai.Text(prompt), asLesson())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(whole.Text(), text.String()); diff != "" {
		t.Errorf("stream and single answer differ: %s", diff)
	}
}

func TestSDKCountsTokens(t *testing.T) {
	c := client(t, serve(t, &stubgemini.Server{}), "k")
	got, err := c.Models.CountTokens(t.Context(), "gemini-2.5-flash", genai.Text("twelve chars"), nil)
	if err != nil || got.TotalTokens != 3 {
		t.Errorf("got %+v, %v, want 3", got, err)
	}
}

func TestErrorsAreTheAPIsOwn(t *testing.T) {
	server := serve(t, &stubgemini.Server{})
	for _, c := range []struct {
		key, model, status string
		code               int
	}{
		{"k", "stub-429", "RESOURCE_EXHAUSTED", 429},
		{"k", "stub-500", "INTERNAL", 500},
		{"k", "stub-503", "UNAVAILABLE", 503},
		{"k", "gpt-2", "NOT_FOUND", 404},
		{"invalid", "gemini-2.5-flash", "INVALID_ARGUMENT", 400},
	} {
		for name, call := range map[string]func(*genai.Client) error{
			"single": func(g *genai.Client) error {
				_, err := g.Models.GenerateContent(t.Context(), c.model, genai.Text(prompt), asLesson())
				return err
			},
			"stream": func(g *genai.Client) error {
				for _, err := range g.Models.GenerateContentStream(t.Context(), c.model, genai.Text(prompt), asLesson()) {
					return err
				}
				return nil
			},
		} {
			var api genai.APIError
			if err := call(client(t, server, c.key)); !errors.As(err, &api) || api.Code != c.code || api.Status != c.status {
				t.Errorf("%s %s: %v, want %d %s", c.model, name, err, c.code, c.status)
			}
		}
	}
}

func TestSilentFailuresAreWhatTheyAreInLife(t *testing.T) {
	c := client(t, serve(t, &stubgemini.Server{}), "k")
	for model, want := range map[string]genai.FinishReason{
		"stub-safety": genai.FinishReasonSafety, "stub-max-tokens": genai.FinishReasonMaxTokens,
		"stub-truncated": genai.FinishReasonMaxTokens, "stub-malformed": genai.FinishReasonStop,
	} {
		resp, err := c.Models.GenerateContent(t.Context(), model, genai.Text(prompt), asLesson())
		if err != nil || len(resp.Candidates) != 1 || resp.Candidates[0].FinishReason != want {
			t.Errorf("%s: %+v, %v", model, resp, err)
			continue
		}
		if empty := model == "stub-safety" || model == "stub-max-tokens"; empty != (resp.Text() == "") {
			t.Errorf("%s: text %q", model, resp.Text())
		}
		if _, err := lesson.FromJSON([]byte(resp.Text())); err == nil {
			t.Errorf("%s: gave a lesson", model)
		}
	}
	resp, err := c.Models.GenerateContent(t.Context(), "stub-blocked", genai.Text(prompt), asLesson())
	if err != nil || len(resp.Candidates) != 0 || resp.PromptFeedback == nil ||
		resp.PromptFeedback.BlockReason != genai.BlockedReasonProhibitedContent {
		t.Errorf("stub-blocked: %+v, %v", resp, err)
	}
}

func TestTimeoutLastsUntilTheCallerGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{})
	stub := &stubgemini.Server{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		r.SetPathValue("call", "stub-timeout:generateContent")
		if err := stub.Call(w, r); err != nil {
			httpjson.WriteError(w, err)
		}
	}))
	defer server.Close()
	go func() { <-entered; cancel() }()
	if _, err := client(t, server, "k").Models.GenerateContent(ctx, "stub-timeout", genai.Text(prompt),
		nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestWrongMediaTypeMissingKeyAndUnknownMethodAreRefused(t *testing.T) {
	server := serve(t, &stubgemini.Server{})
	for _, c := range []struct {
		call, contentType, key, body string
		want                         int
	}{
		{"gemini-2.5-flash:generateContent", "text/plain", "k", `{}`, 415},
		{"gemini-2.5-flash:generateContent", "application/json", "", `{}`, 403},
		{"gemini-2.5-flash:generateContent", "application/json", "k", `{`, 400},
		{"gemini-2.5-flash:generateContent", "application/json", "k", `{"contents":[]}`, 400},
		{"gemini-2.5-flash:dance", "application/json", "k", `{"contents":[{"parts":[{"text":"x"}]}]}`, 404},
		{"gemini-2.5-flash", "application/json", "k", `{"contents":[{"parts":[{"text":"x"}]}]}`, 404},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1beta/models/"+c.call,
			strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", c.contentType)
		req.Header.Set("x-goog-api-key", c.key)
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d", c.call, c.contentType, resp.StatusCode, c.want)
		}
	}
}
