package llmgateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sony/gobreaker/v2"
	"google.golang.org/genai"

	"example.org/security-training/services/lesson"
	"example.org/security-training/services/wait"
)

const (
	attempts        = 3
	firstPause      = 200 * time.Millisecond
	maxOutputTokens = 8192
	thinkingBudget  = 1024
	longestAnswer   = 4 << 20 // bytes of an answer of the API
)

// failure is the reason for a failed generation. Its text does not repeat the API's, which may quote the request.
type failure struct {
	reason lesson.Fallback
	act    string
	retry  bool
}

func (f *failure) Error() string { return f.act }

var errLongAnswer = errors.New("the answer is over the limit")

// usage counts tokens; 0 where the API did not say.
type usage struct{ Prompt, Thoughts, Answer int }

func (u usage) total() int { return u.Prompt + u.Thoughts + u.Answer }

func (u *usage) add(m *genai.GenerateContentResponseUsageMetadata) {
	if m != nil {
		u.Prompt += int(m.PromptTokenCount)
		u.Thoughts += int(m.ThoughtsTokenCount)
		u.Answer += int(m.CandidatesTokenCount)
	}
}

// author writes lessons with a model. It is the only layer that retries.
type author struct {
	client   *genai.Client
	model    string
	deadline time.Duration
	breaker  *gobreaker.CircuitBreaker[*genai.GenerateContentResponse]
}

// newAuthor creates the SDK's client. Its errors never contain the key.
func newAuthor(ctx context.Context, cfg Config) (*author, error) {
	base, err := url.Parse(cfg.BaseURL)
	if err != nil || base.Host == "" {
		return nil, errors.New("make model client: the base URL is not one")
	}
	through := *cfg.HTTP
	next := through.Transport
	if next == nil {
		return nil, errors.New("make model client: no transport given")
	}
	through.Transport = &careful{next: next, host: base.Host}
	through.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client, err := genai.NewClient(ctx, &genai.ClientConfig{
		APIKey: string(cfg.Key), Backend: genai.BackendGeminiAPI, HTTPClient: &through,
		HTTPOptions: genai.HTTPOptions{BaseURL: cfg.BaseURL},
	})
	if err != nil {
		// The SDK's error contains the key.
		return nil, errors.New("make model client: the SDK refused the settings; is the key empty?")
	}
	a := &author{client: client, model: cfg.Model, deadline: cfg.Deadline}
	a.breaker = gobreaker.NewCircuitBreaker[*genai.GenerateContentResponse](gobreaker.Settings{
		Name: "model", Timeout: cfg.BreakerPause, MaxRequests: 1,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 5 },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
		IsSuccessful: func(err error) bool { r := classify(err); return r == nil || !down(r.reason) },
	})
	return a, nil
}

// down says whether the model is unavailable, as opposed to refusing a request.
func down(r lesson.Fallback) bool { return r == lesson.ModelUnavailable || r == lesson.ModelTimeout }

// careful is the SDK's transport. It sends the key only to the API's host, and limits the length of an answer.
type careful struct {
	next http.RoundTripper
	host string
}

// RoundTrip implements http.RoundTripper.
func (c *careful) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != c.host {
		return nil, errors.New("the request is not for the model's host")
	}
	resp, err := c.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &bounded{ReadCloser: resp.Body, left: longestAnswer}
	return resp, nil
}

type bounded struct {
	io.ReadCloser
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLongAnswer
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// write asks the model for a lesson; err is a *failure, or the context's error if the caller is gone. tries counts
// requests.
func (a *author) write(ctx context.Context, prompt string) (c lesson.Content, used usage, tries int, err error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, a.deadline)
	defer cancel()
	config := &genai.GenerateContentConfig{
		SystemInstruction: genai.NewContentFromText(systemPrompt, genai.RoleUser),
		Temperature:       new(float32(0.6)),
		CandidateCount:    1,
		MaxOutputTokens:   maxOutputTokens,
		ResponseMIMEType:  "application/json",
		ResponseSchema:    responseSchema(lesson.Schema()),
	}
	if strings.HasPrefix(a.model, "gemini-2.5-") {
		// Without a limit, these models can use the whole output budget for thinking and answer nothing.
		config.ThinkingConfig = &genai.ThinkingConfig{ThinkingBudget: new(int32(thinkingBudget))}
	}
	contents := []*genai.Content{genai.NewContentFromText(prompt, genai.RoleUser)}
	for {
		tries++
		resp, err := a.breaker.Execute(func() (*genai.GenerateContentResponse, error) {
			return a.client.Models.GenerateContent(ctx, a.model, contents, config)
		})
		if err == nil {
			used.add(resp.UsageMetadata)
			c, err := read(resp)
			return c, used, tries, err
		}
		if caller.Err() != nil {
			return lesson.Content{}, used, tries, caller.Err()
		}
		f := classify(err)
		if !f.retry || tries == attempts || wait.For(ctx, backoff(tries)) != nil {
			return lesson.Content{}, used, tries, f
		}
	}
}

// backoff is how long to wait before the next try: longer each time, with jitter.
func backoff(tries int) time.Duration {
	most := firstPause << (tries - 1)
	return most/2 + rand.N(most/2)
}

// classify turns the error of a call into a failure; nil for nil.
func classify(err error) *failure {
	var api genai.APIError
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var network net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		return &failure{reason: lesson.ModelUnavailable, act: "the breaker is open"}
	case errors.As(err, &api):
		return classifyStatus(api.Code)
	case errors.Is(err, context.DeadlineExceeded):
		return &failure{reason: lesson.ModelTimeout, act: "the model did not answer in time"}
	case errors.As(err, &syntax), errors.As(err, &kind), errors.Is(err, errLongAnswer):
		return &failure{reason: lesson.ModelMalformed, act: "the model's answer is not the API's JSON"}
	case errors.As(err, &network) && network.Timeout():
		return &failure{reason: lesson.ModelTimeout, act: "the model did not answer in time"}
	}
	return &failure{reason: lesson.ModelUnavailable, act: "the model cannot be reached", retry: true}
}

func classifyStatus(code int) *failure {
	act := fmt.Sprintf("the model answered %d", code)
	switch {
	case code >= 300 && code < 400:
		return &failure{reason: lesson.ModelRedirect, act: act}
	case code == http.StatusTooManyRequests:
		return &failure{reason: lesson.ModelQuota, act: act}
	case code == http.StatusGatewayTimeout, code == http.StatusRequestTimeout:
		return &failure{reason: lesson.ModelTimeout, act: act}
	case code >= 500:
		return &failure{reason: lesson.ModelUnavailable, act: act, retry: true}
	}
	return &failure{reason: lesson.ModelRefused, act: act}
}

// read finds the lesson in an answer.
func read(resp *genai.GenerateContentResponse) (lesson.Content, error) {
	if f := resp.PromptFeedback; f != nil && f.BlockReason != "" && f.BlockReason != genai.BlockedReasonUnspecified {
		return lesson.Content{}, &failure{reason: lesson.ModelSafety, act: "the model blocked the prompt"}
	}
	if len(resp.Candidates) == 0 || resp.Candidates[0] == nil {
		return lesson.Content{}, &failure{reason: lesson.ModelMalformed, act: "the model's answer has no candidate"}
	}
	switch resp.Candidates[0].FinishReason {
	case genai.FinishReasonSafety, genai.FinishReasonRecitation, genai.FinishReasonBlocklist,
		genai.FinishReasonProhibitedContent, genai.FinishReasonSPII:
		return lesson.Content{}, &failure{reason: lesson.ModelSafety, act: "the model would not write it"}
	case genai.FinishReasonMaxTokens:
		return lesson.Content{}, &failure{reason: lesson.ModelMaxTokens, act: "the model ran out of output tokens"}
	case genai.FinishReasonStop, genai.FinishReasonUnspecified, "":
	default:
		return lesson.Content{}, &failure{reason: lesson.ModelMalformed, act: "the model ended for another reason"}
	}
	c, err := lesson.FromJSON([]byte(resp.Text()))
	if err != nil {
		return lesson.Content{}, &failure{reason: lesson.ModelMalformed, act: "the model's answer is not a lesson"}
	}
	return c, nil
}
