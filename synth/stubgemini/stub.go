// Package stubgemini simulates the Gemini API with reproducible answers: it speaks the API's protocol on a real socket,
// answers equal requests equally, and fails on request.
//
// A model whose name begins with "gemini-" answers. The models below answer as their name says:
//
//	stub-429         429 RESOURCE_EXHAUSTED with RetryInfo
//	stub-500         500 INTERNAL
//	stub-503         503 UNAVAILABLE
//	stub-safety      200, finishReason SAFETY, no parts
//	stub-blocked     200, promptFeedback.blockReason, no candidate
//	stub-max-tokens  200, finishReason MAX_TOKENS, the whole budget spent on thinking, no parts
//	stub-truncated   200, finishReason MAX_TOKENS, half of the answer
//	stub-malformed   200, finishReason STOP, prose in place of JSON
//	stub-hostile     200, a lesson full of HTML, links, invisible and direction-changing characters
//	stub-timeout     holds the request until the client gives up
//	stub-redirect    307 to Server.RedirectTo
//
// Any other model is 404 NOT_FOUND. A request without x-goog-api-key is 403 PERMISSION_DENIED; the key "invalid" is
// 400 INVALID_ARGUMENT with the reason API_KEY_INVALID; every other key is accepted.
package stubgemini

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"unicode/utf8"

	"example.org/security-training/services/env"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/llmgateway/gatewayapi"
	"example.org/security-training/services/mesh"
)

const longestBody = 4 << 20

// Server answers calls. Its zero value is ready.
type Server struct {
	RedirectTo string // where stub-redirect points; empty: a host that does not exist
}

// Run joins the mesh and serves until ctx ends.
func Run(ctx context.Context, lookup env.Lookup) error {
	node, err := mesh.FromEnv(ctx, lookup)
	if err != nil {
		return err
	}
	Mount(node)
	return node.Serve(ctx)
}

// Mount adds the stub's handlers to node.
func Mount(node *mesh.Node) { node.Handle(gatewayapi.RouteModel, new(Server).Call) }

// The used parts of the API's messages; other parts of a request are ignored.
type (
	part struct {
		Text    string `json:"text,omitempty"`
		Thought bool   `json:"thought,omitempty"`
	}
	content struct {
		Role  string `json:"role,omitempty"`
		Parts []part `json:"parts,omitempty"`
	}
	request struct {
		Contents          []content         `json:"contents"`
		SystemInstruction *content          `json:"systemInstruction"`
		GenerationConfig  *generationConfig `json:"generationConfig"`
		// GenerateContentRequest is the other form of countTokens.
		GenerateContentRequest *request `json:"generateContentRequest,omitempty"`
	}
	generationConfig struct {
		MaxOutputTokens    int     `json:"maxOutputTokens"`
		ResponseMIMEType   string  `json:"responseMimeType"`
		ResponseSchema     *schema `json:"responseSchema"`
		ResponseJSONSchema *schema `json:"responseJsonSchema"`
	}
	candidate struct {
		Content       *content       `json:"content,omitempty"`
		FinishReason  string         `json:"finishReason,omitempty"`
		Index         int            `json:"index"`
		SafetyRatings []safetyRating `json:"safetyRatings,omitempty"`
	}
	safetyRating struct {
		Category    string `json:"category"`
		Probability string `json:"probability"`
		Blocked     bool   `json:"blocked,omitempty"`
	}
	promptFeedback struct {
		BlockReason string `json:"blockReason"`
	}
	usage struct {
		PromptTokenCount     int `json:"promptTokenCount"`
		CandidatesTokenCount int `json:"candidatesTokenCount,omitempty"`
		ThoughtsTokenCount   int `json:"thoughtsTokenCount,omitempty"`
		TotalTokenCount      int `json:"totalTokenCount"`
	}
	response struct {
		Candidates     []candidate     `json:"candidates,omitempty"`
		PromptFeedback *promptFeedback `json:"promptFeedback,omitempty"`
		UsageMetadata  usage           `json:"usageMetadata"`
		ModelVersion   string          `json:"modelVersion"`
		ResponseID     string          `json:"responseId"`
	}
	fault struct {
		Code    int           `json:"code"`
		Message string        `json:"message"`
		Status  string        `json:"status"`
		Details []faultDetail `json:"details,omitempty"`
	}
	faultDetail struct {
		Type       string `json:"@type"`
		Reason     string `json:"reason,omitempty"`
		Domain     string `json:"domain,omitempty"`
		RetryDelay string `json:"retryDelay,omitempty"`
	}
	tokenCount struct {
		TotalTokens         int             `json:"totalTokens"`
		PromptTokensDetails []modalityCount `json:"promptTokensDetails"`
	}
	modalityCount struct {
		Modality   string `json:"modality"`
		TokenCount int    `json:"tokenCount"`
	}
)

// Call answers POST /v1beta/models/{call}, where call is model:generateContent, model:streamGenerateContent or
// model:countTokens. Faults are answered in the API's form; only a wrong media type and a body that is too long are
// returned as errors.
func (s *Server) Call(w http.ResponseWriter, r *http.Request) error {
	if err := httpjson.RequireType(r, "application/json"); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longestBody))
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	model, method, _ := strings.Cut(r.PathValue("call"), ":")
	if f := admit(r.Header.Get("x-goog-api-key")); f != nil {
		return refuse(w, f)
	}
	if s.RedirectTo == "" {
		s = &Server{RedirectTo: "https://elsewhere.invalid/"}
	}
	switch model {
	case "stub-timeout":
		<-r.Context().Done()
		return nil
	case "stub-redirect":
		w.Header().Set("Location", s.RedirectTo)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return nil
	}
	if f := failure(model); f != nil {
		return refuse(w, f)
	}
	var req request
	if err := json.Unmarshal(body, &req); err != nil {
		return refuse(w, &fault{Code: 400, Status: "INVALID_ARGUMENT", Message: "Invalid JSON payload received."})
	}
	if req.GenerateContentRequest != nil {
		req.Contents = append(req.Contents, req.GenerateContentRequest.Contents...)
		req.SystemInstruction = req.GenerateContentRequest.SystemInstruction
	}
	if req.prompt() == "" {
		return refuse(w, &fault{Code: 400, Status: "INVALID_ARGUMENT",
			Message: "* GenerateContentRequest.contents: contents is not specified"})
	}
	switch method {
	case "countTokens":
		n := req.tokens()
		return httpjson.Write(w, http.StatusOK, tokenCount{TotalTokens: n, PromptTokensDetails: []modalityCount{{"TEXT", n}}})
	case "generateContent":
		answer, f := req.answer(model)
		if f != nil {
			return refuse(w, f)
		}
		return httpjson.Write(w, http.StatusOK, answer)
	case "streamGenerateContent":
		answer, f := req.answer(model)
		if f != nil {
			return refuse(w, f)
		}
		if r.URL.Query().Get("alt") != "sse" {
			return httpjson.Write(w, http.StatusOK, chunks(answer))
		}
		return stream(w, chunks(answer))
	}
	return refuse(w, &fault{Code: 404, Status: "NOT_FOUND", Message: "There is no such method: " + method})
}

// admit checks a key; nil if it is accepted.
func admit(key string) *fault {
	switch key {
	case "":
		return &fault{Code: 403, Status: "PERMISSION_DENIED",
			Message: "Method doesn't allow unregistered callers (callers without established identity). " +
				"Please use API Key or other form of API consumer identity to call this API."}
	case "invalid":
		return &fault{Code: 400, Status: "INVALID_ARGUMENT", Message: "API key not valid. Please pass a valid API key.",
			Details: []faultDetail{{Type: "type.googleapis.com/google.rpc.ErrorInfo", Reason: "API_KEY_INVALID",
				Domain: "googleapis.com"}}}
	}
	return nil
}

// failure is the error that a model stands for, nil for one that answers.
func failure(model string) *fault {
	switch model {
	case "stub-429":
		return &fault{Code: 429, Status: "RESOURCE_EXHAUSTED",
			Message: "You exceeded your current quota, please check your plan and billing details.",
			Details: []faultDetail{{Type: "type.googleapis.com/google.rpc.RetryInfo", RetryDelay: "7s"}}}
	case "stub-500":
		return &fault{Code: 500, Status: "INTERNAL", Message: "An internal error has occurred."}
	case "stub-503":
		return &fault{Code: 503, Status: "UNAVAILABLE", Message: "The model is overloaded. Please try again later."}
	case "stub-safety", "stub-blocked", "stub-max-tokens", "stub-truncated", "stub-malformed", "stub-hostile":
		return nil
	}
	if !strings.HasPrefix(model, "gemini-") {
		return &fault{Code: 404, Status: "NOT_FOUND", Message: "models/" + model +
			" is not found for API version v1beta, or is not supported for generateContent."}
	}
	return nil
}

func refuse(w http.ResponseWriter, f *fault) error {
	return httpjson.Write(w, f.Code, struct {
		Error *fault `json:"error"`
	}{f})
}

// prompt is the text of all turns of the user.
func (r *request) prompt() string {
	var b strings.Builder
	for _, c := range r.Contents {
		if c.Role == "model" {
			continue
		}
		for _, p := range c.Parts {
			b.WriteString(p.Text)
			b.WriteByte('\n')
		}
	}
	return strings.TrimSpace(b.String())
}

// tokens estimates the prompt's size at four characters each, as the API's documentation does.
func (r *request) tokens() int {
	n := tokens(r.prompt())
	if r.SystemInstruction != nil {
		for _, p := range r.SystemInstruction.Parts {
			n += tokens(p.Text)
		}
	}
	return n
}

func tokens(s string) int { return (utf8.RuneCountInString(s) + 3) / 4 }

// hash identifies the request: equal requests to the same model get equal answers.
func (r *request) hash(model string) ([32]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return [32]byte{}, fmt.Errorf("encode request: %w", err)
	}
	return sha256.Sum256(append([]byte(model+"\n"), b...)), nil
}

// answer is the complete answer of a model that does not fail.
func (r *request) answer(model string) (*response, *fault) {
	sum, err := r.hash(model)
	if err != nil {
		return nil, &fault{Code: 500, Status: "INTERNAL", Message: err.Error()}
	}
	rng := rand.New(rand.NewPCG(binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:16])))
	cfg := generationConfig{}
	if r.GenerationConfig != nil {
		cfg = *r.GenerationConfig
	}
	shape := cfg.ResponseSchema
	if shape == nil {
		shape = cfg.ResponseJSONSchema
	}
	asJSON := cfg.ResponseMIMEType == "application/json"
	if shape != nil && !asJSON {
		return nil, &fault{Code: 400, Status: "INVALID_ARGUMENT",
			Message: "Response schema is only supported with response mime type application/json."}
	}
	budget := cfg.MaxOutputTokens
	if budget == 0 {
		budget = 8192
	}
	text, err := write(rng, r.prompt(), shape, asJSON)
	if err != nil {
		return nil, &fault{Code: 400, Status: "INVALID_ARGUMENT", Message: err.Error()}
	}

	c := candidate{Content: &content{Role: "model"}, FinishReason: "STOP"}
	thoughts := 20 + rng.IntN(80)
	switch model {
	case "stub-safety":
		text, c.FinishReason, c.Content = "", "SAFETY", nil
		c.SafetyRatings = []safetyRating{{Category: "HARM_CATEGORY_DANGEROUS_CONTENT", Probability: "HIGH", Blocked: true}}
	case "stub-max-tokens":
		text, c.FinishReason, thoughts = "", "MAX_TOKENS", budget
	case "stub-truncated":
		text, c.FinishReason = head(text, len(text)/2), "MAX_TOKENS"
	case "stub-malformed":
		text = "Certainly! Here is a lesson about keeping secrets safe: 1) be careful 2) be very careful"
	case "stub-hostile":
		if text, err = deface(text); err != nil {
			return nil, &fault{Code: 500, Status: "INTERNAL", Message: err.Error()}
		}
	default:
		if tokens(text)+thoughts > budget {
			text, c.FinishReason = head(text, max(0, budget-thoughts)*4), "MAX_TOKENS"
		}
	}
	if text != "" {
		c.Content.Parts = []part{{Text: text}}
	}
	u := usage{PromptTokenCount: r.tokens(), CandidatesTokenCount: tokens(text), ThoughtsTokenCount: thoughts}
	u.TotalTokenCount = u.PromptTokenCount + u.CandidatesTokenCount + u.ThoughtsTokenCount
	answer := &response{Candidates: []candidate{c}, UsageMetadata: u, ModelVersion: model,
		ResponseID: hex.EncodeToString(sum[:12])}
	if model == "stub-blocked" {
		answer.Candidates, answer.PromptFeedback = nil, &promptFeedback{BlockReason: "PROHIBITED_CONTENT"}
		answer.UsageMetadata = usage{PromptTokenCount: u.PromptTokenCount, TotalTokenCount: u.PromptTokenCount}
	}
	return answer, nil
}

// head is at most n bytes of s, whole characters only.
func head(s string, n int) string {
	if n >= len(s) {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// chunks divides an answer into the chunks of a stream. Only the last one has the finish reason and the full usage.
func chunks(whole *response) []*response {
	if len(whole.Candidates) == 0 || whole.Candidates[0].Content == nil || len(whole.Candidates[0].Content.Parts) == 0 {
		return []*response{whole}
	}
	const size = 400 // bytes of text
	text := whole.Candidates[0].Content.Parts[0].Text
	var out []*response
	for text != "" {
		piece := head(text, size)
		text = text[len(piece):]
		next := &response{
			Candidates: []candidate{{Content: &content{Role: "model", Parts: []part{{Text: piece}}}}},
			UsageMetadata: usage{PromptTokenCount: whole.UsageMetadata.PromptTokenCount,
				TotalTokenCount: whole.UsageMetadata.PromptTokenCount},
			ModelVersion: whole.ModelVersion, ResponseID: whole.ResponseID,
		}
		if text == "" {
			next.Candidates[0].FinishReason, next.UsageMetadata = whole.Candidates[0].FinishReason, whole.UsageMetadata
		}
		out = append(out, next)
	}
	return out
}

// stream writes server-sent events that have only data: the SDK fails on a comment, an event line or a [DONE].
func stream(w http.ResponseWriter, pieces []*response) error {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	for _, p := range pieces {
		b, err := json.Marshal(p)
		if err != nil {
			return fmt.Errorf("encode chunk: %w", err)
		}
		if _, err := fmt.Fprintf(w, "data: %s\r\n\r\n", b); err != nil {
			return nil // the reader is gone
		}
		if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return nil
		}
	}
	return nil
}
