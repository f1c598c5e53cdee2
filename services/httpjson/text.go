package httpjson

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Plain says whether s can be kept as text: as UTF-8 without a zero character, which no database column of text holds.
func Plain(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// Address refuses with 400 a request whose path or query is not text, or whose query cannot be read: what it was meant
// to say is anybody's guess, and a database would fail over it.
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

// Values refuses with 400 what is not text in a query or a form.
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

// Text refuses with 400 a JSON text that is no UTF-8, or has a zero character in a string.
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
		if escapes%2 == 0 { // else it is the text "\u0000", written as a string
			return Errorf(http.StatusBadRequest, "bad_text", "the body: want no zero character in a string")
		}
		rest = rest[at+len(zero):]
	}
}

// Cut is err, of reading a request's body: a body that is too long is 413, and one that ended early, or whose chunks
// cannot be read, 400.
func Cut(err error) error {
	var long *http.MaxBytesError
	if err == nil || errors.As(err, &long) {
		return err
	}
	return Errorf(http.StatusBadRequest, "body_cut", "the body ended early, or its chunks cannot be read")
}
