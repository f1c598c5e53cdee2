package httpjson

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Plain says whether s can be stored as text: valid UTF-8 without a zero character, which a text column cannot hold.
func Plain(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// Address refuses with 400 a request whose path or query is not text, or whose query cannot be parsed: its meaning is
// unclear, and the database would fail on it.
func Address(r *http.Request) error {
	if !Plain(r.URL.Path) {
		return Errorf(http.StatusBadRequest, "bad_text", "the path: want UTF-8 without a zero character")
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Errorf(http.StatusBadRequest, "bad_query",
			"the query cannot be read: want name=value, with & between and what is neither letter nor digit as %%XX")
	}
	return Values(q)
}

// Values refuses with 400 a query or a form with a value that is not text.
func Values(values url.Values) error {
	for name, all := range values {
		if !Plain(name) {
			return Errorf(http.StatusBadRequest, "bad_text", "a field's name: want UTF-8 without a zero character")
		}
		for _, s := range all {
			if !Plain(s) {
				return Errorf(http.StatusBadRequest, "bad_text", "%s: want UTF-8 without a zero character", name)
			}
		}
	}
	return nil
}

// Text refuses with 400 JSON that is not UTF-8, or has a zero character in a string.
func Text(body []byte) error {
	if !utf8.Valid(body) {
		return Errorf(http.StatusBadRequest, "bad_text", "the body: want UTF-8")
	}
	zero := []byte(`\u0000`)
	for rest := body; ; {
		at := bytes.Index(rest, zero)
		if at < 0 {
			return nil
		}
		escapes := 0
		for at-escapes > 0 && rest[at-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 { // otherwise it is the text "\u0000" itself
			return Errorf(http.StatusBadRequest, "bad_text", "the body: want no zero character in a string")
		}
		rest = rest[at+len(zero):]
	}
}

// Cut turns an error of reading a request's body into an answer: 413 for a body that is too long, 400 for one that
// ended early or has invalid chunks.
func Cut(err error) error {
	var long *http.MaxBytesError
	if err == nil || errors.As(err, &long) {
		return err
	}
	return Errorf(http.StatusBadRequest, "body_cut", "the body ended early, or its chunks cannot be read")
}
