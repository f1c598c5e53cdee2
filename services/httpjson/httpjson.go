// Package httpjson reads and writes the JSON of the services, and turns typed errors into answers for clients.
package httpjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// Error is an error that is sent to the client. Every other error becomes a 500 without details.
type Error struct {
	Status     int           // HTTP status: 400, 401, 403, 404, 409, 413, 415, 422, 429, 503 …
	Code       string        // stable, for programs: "unknown_field"
	Message    string        // for people: what was wrong and where
	RetryAfter time.Duration // sent as whole seconds, rounded up, when positive
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Code, e.Message) }

// Errorf returns an Error.
func Errorf(status int, code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// After returns a copy of e that asks the client to wait for d.
func (e Error) After(d time.Duration) *Error {
	e.RetryAfter = d
	return &e
}

type answer struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// Write answers with v as JSON.
func Write(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err = w.Write(append(body, '\n'))
	return err
}

// WriteError answers with err: an *Error with its status, a body that is too long with 413, others with 500 "internal".
func WriteError(w http.ResponseWriter, err error) {
	e := FromError(err)
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	var a answer
	a.Error.Code, a.Error.Message = e.Code, e.Message
	_ = Write(w, e.Status, a) // this fails only if the peer is gone
}

// FromError is the Error that WriteError would send for err.
func FromError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return Errorf(http.StatusRequestEntityTooLarge, "body_too_large", "the body is over %d bytes", long.Limit)
	}
	return Errorf(http.StatusInternalServerError, "internal", "the request failed; the service's log says why")
}

// Number is the whole number, from 0, of the query parameter name, or otherwise if there is none. Other text is a 400.
func Number(r *http.Request, name string, otherwise int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, Errorf(http.StatusBadRequest, "bad_number", "%s %q: want a whole number from 0", name, text)
	}
	return n, nil
}

// RequireType refuses with 415 a request whose media type is not want.
func RequireType(r *http.Request, want string) error {
	got, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || got != want {
		return Errorf(http.StatusUnsupportedMediaType, "content_type", "Content-Type %q: want %s",
			r.Header.Get("Content-Type"), want)
	}
	return nil
}

// Read decodes a JSON body of at most limit bytes into v. Errors: 415 for another type, 413 for a longer body, 400 for
// an incomplete one, bad JSON, unknown fields, trailing text, or strings that are not text.
func Read(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	if err := RequireType(r, "application/json"); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return Cut(err)
	}
	if err := Text(body); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return Errorf(http.StatusBadRequest, "bad_json", "body at byte %d: %v", d.InputOffset(), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Errorf(http.StatusBadRequest, "bad_json", "body at byte %d: text after the JSON value", d.InputOffset())
	}
	return nil
}

// ReadAnswer decodes the answer of another service into v (nil to discard it). A key that v does not have is an error.
// A status of 400 or above becomes an *Error with the peer's code and message.
func ReadAnswer(resp *http.Response, limit int64, v any) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if int64(len(body)) > limit {
		return fmt.Errorf("read answer: over %d bytes", limit)
	}
	if resp.StatusCode >= 400 {
		e := &Error{Status: resp.StatusCode, Code: "http_" + strconv.Itoa(resp.StatusCode),
			Message: http.StatusText(resp.StatusCode)}
		var a answer
		if json.Unmarshal(body, &a) == nil && a.Error.Code != "" {
			e.Code, e.Message = a.Error.Code, a.Error.Message
		}
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
			e.RetryAfter = time.Duration(s) * time.Second
		}
		return e
	}
	if v == nil {
		return nil
	}
	return Strict(body, v)
}

// Strict decodes an answer of another service. A key that v does not have is an error: the two programs disagree, and
// an unknown key must not be read as a zero value.
func Strict(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("decode answer: text after the JSON value, at byte %d", d.InputOffset())
	}
	return nil
}

// Lines decodes an answer with one JSON value on each line, as strictly as ReadAnswer, and calls each for every value.
// It ends at the first error, and returns an error of each unchanged.
func Lines[T any](r io.Reader, each func(T) error) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	for n := 1; ; n++ {
		var v T
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("decode line %d: %w", n, err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
}
