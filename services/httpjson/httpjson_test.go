package httpjson_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/security-training/services/httpjson"
)

type order struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

func request(contentType, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

func TestBodiesThatAreNotExactlyWhatIsWantedAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, contentType, body string
		status                  int
	}{
		{"good", "application/json", `{"name":"x","count":1}`, 0},
		{"good with a parameter", "application/json; charset=utf-8", `{"name":"x"}`, 0},
		{"good with spaces around", "application/json", " {\"name\":\"x\"} \n", 0},
		{"no type", "", `{}`, 415},
		{"a form", "application/x-www-form-urlencoded", `{}`, 415},
		{"text", "text/plain", `{}`, 415},
		{"a probe", "application/x-probe", ``, 415},
		{"a type that is none", "application/json; =", `{}`, 415},
		{"nothing", "application/json", ``, 400},
		{"half", "application/json", `{"name":`, 400},
		{"an unknown field", "application/json", `{"name":"x","admin":true}`, 400},
		{"another type of value", "application/json", `{"count":"many"}`, 400},
		{"two values", "application/json", `{"name":"x"}{"name":"y"}`, 400},
		{"text after the value", "application/json", `{"name":"x"} and more`, 400},
		{"too long", "application/json", `{"name":"` + strings.Repeat("x", 200) + `"}`, 413},
		{"too long after the value", "application/json", `{"name":"x"}` + strings.Repeat(" ", 200) + "{}", 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v order
			err := httpjson.Read(httptest.NewRecorder(), request(c.contentType, c.body), 100, &v)
			switch {
			case c.status == 0 && err != nil:
				t.Errorf("refused: %v", err)
			case c.status != 0 && err == nil:
				t.Error("taken")
			case c.status != 0 && httpjson.FromError(err).Status != c.status:
				t.Errorf("%d (%v), want %d", httpjson.FromError(err).Status, err, c.status)
			}
		})
	}
}

func TestNoBodyMakesReadPanicOrAnswerFiveHundred(t *testing.T) {
	piece := rapid.SampledFrom([]string{`{`, `}`, `[`, `]`, `"`, `:`, `,`, `"name"`, `"count"`, `1e999`, `-0`, `null`,
		"\x00", "\xff", `\ud800`, " ", "true"})
	rapid.Check(t, func(t *rapid.T) {
		body := strings.Join(rapid.SliceOfN(piece, 0, 40).Draw(t, "body"), "")
		var v order
		if err := httpjson.Read(httptest.NewRecorder(), request("application/json", body), 50, &v); err != nil &&
			httpjson.FromError(err).Status >= 500 {
			t.Fatalf("%q: %v", body, err)
		}
	})
}

func TestErrorsCrossTheWireAsTheyAreAndCausesDoNot(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		want  httpjson.Error
		never string
	}{
		{"typed", httpjson.Errorf(409, "taken", "%s is taken", "x"), httpjson.Error{Status: 409, Code: "taken",
			Message: "x is taken"}, ""},
		{"wrapped", fmt.Errorf("store: secret: %w", httpjson.Errorf(404, "no_person", "nobody")), httpjson.Error{Status: 404,
			Code: "no_person", Message: "nobody"}, "secret"},
		{"with a wait", httpjson.Errorf(429, "quota", "slow down").After(1500 * time.Millisecond), httpjson.Error{Status: 429,
			Code: "quota", Message: "slow down", RetryAfter: 2 * time.Second}, ""},
		{"untyped", errors.New("pq: password secret"), httpjson.Error{Status: 500, Code: "internal",
			Message: "the request failed; the service's log says why"}, "secret"},
		{"too long", &http.MaxBytesError{Limit: 10}, httpjson.Error{Status: 413, Code: "body_too_large",
			Message: "the body is over 10 bytes"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			httpjson.WriteError(w, c.err)
			if c.never != "" && strings.Contains(w.Body.String(), c.never) {
				t.Errorf("the answer tells %q: %s", c.never, w.Body)
			}
			var got *httpjson.Error
			if err := httpjson.ReadAnswer(w.Result(), 1000, nil); !errors.As(err, &got) || *got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestAnswersAreReadOnlyToTheirLimit(t *testing.T) {
	answer := func(status int, body string) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	}
	var v order
	if err := httpjson.ReadAnswer(answer(200, `{"name":"x"}`), 100, &v); err != nil || v.Name != "x" {
		t.Errorf("%+v, %v", v, err)
	}
	if err := httpjson.ReadAnswer(answer(200, strings.Repeat("x", 101)), 100, nil); err == nil {
		t.Error("an answer of 101 bytes is within 100")
	}
	if err := httpjson.ReadAnswer(answer(200, "<html>"), 100, &v); err == nil {
		t.Error("HTML is JSON")
	}
	var e *httpjson.Error
	if err := httpjson.ReadAnswer(answer(502, "<html>"), 100, &v); !errors.As(err, &e) || e.Code != "http_502" {
		t.Errorf("a proxy's page: %v", err)
	}
}

// A key that was renamed on one side must not be read as zero on the other.
func TestAnAnswerWithAKeyThatTheReaderDoesNotHaveIsAnError(t *testing.T) {
	type told struct {
		Seq uint64 `json:"seq"`
	}
	for body, want := range map[string]string{
		`{"seq":7}`:           "",
		`{"sequence":7}`:      `unknown field "sequence"`,
		`{"seq":7,"late":1}`:  `unknown field "late"`,
		`{"seq":7} {"seq":8}`: "text after the JSON value",
	} {
		rec := httptest.NewRecorder()
		rec.WriteString(body)
		var v told
		err := httpjson.ReadAnswer(rec.Result(), 1<<10, &v)
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.Contains(got, want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	var seen []told
	err := httpjson.Lines(strings.NewReader("{\"seq\":1}\n{\"seq\":2}\n{\"sequence\":3}\n"), func(v told) error {
		seen = append(seen, v)
		return nil
	})
	if len(seen) != 2 || err == nil || !strings.Contains(err.Error(), `line 3: json: unknown field "sequence"`) {
		t.Errorf("lines: %v, %v", seen, err)
	}
	enough := errors.New("enough")
	if err := httpjson.Lines(strings.NewReader("{\"seq\":1}\n"), func(told) error { return enough }); !errors.Is(
		err,
		enough,
	) {
		t.Errorf("what each says: %v", err)
	}
}
