// Package source turns what vendors send into activity.Event: one file per source, one row per source in Table.
//
// The record types have the vendors' shapes, complete enough for the published schemas. Simulators build them and
// collectors read them, so the two agree. Unknown fields are ignored, since vendors add fields often. All functions
// depend only on the record and on Memory; none reads a clock.
package source

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/topology"
)

// Row is everything that a collector needs to know about one source.
type Row struct {
	Source activity.Source
	// Pushed lists the routes that the vendor delivers to; the topology lists them too, and mesh compares both.
	Pushed []Push
	// Polled is the log that the collector polls; nil for most sources.
	Polled *Poll
	// Events returns the events of one record, none if the record means none. It may remember what a later record needs.
	// The error says what is malformed.
	Events func(r Record, m Memory) ([]activity.Event, error)
}

// Push is one route that a vendor delivers to.
type Push struct {
	Route topology.Route // "POST /webhooks/github"
	// Verify refuses, with 401, a delivery that was not signed with the secret. Nil: the vendor does not sign, and the
	// caller's identity must suffice.
	Verify func(secret []byte, h http.Header, body []byte) error
	// Delivery is the vendor's id of a delivery, the same on each retry; nil if the vendor has none.
	Delivery func(h http.Header) string
	// Split divides a delivery into records.
	Split func(h http.Header, body []byte) ([]Record, error)
	// Status and Accepted are the answer that the vendor takes as success: status and JSON body.
	Status   int
	Accepted string
}

// Poll is a log with a cursor, such as Okta's.
type Poll struct {
	Route topology.Route // of the vendor: "GET /api/v1/logs"
	First string         // request URI of the first page
	// Authorize adds the secret to a request.
	Authorize func(secret []byte, h http.Header)
	Split     func(h http.Header, body []byte) ([]Record, error)
}

// Record is one thing that a vendor reported: Kind is the vendor's name for its shape ("push", "LogEvent"), Body its
// JSON.
type Record struct {
	Kind string
	Body []byte
}

// Memory is what a source remembers between records. The collector stores it and commits it together with the events.
// Keys are printable and begin with their purpose ("commit/…").
type Memory interface {
	Get(key string) []byte // nil when there is none
	Put(key string, value []byte)
	Delete(key string)
}

// Table holds every source that has a collector.
var Table = []Row{git, jira, iam, siem}

// Find is the row of s.
func Find(s activity.Source) (Row, error) {
	for _, row := range Table {
		if row.Source == s {
			return row, nil
		}
	}
	return Row{}, fmt.Errorf("find source %q: it has no row in the table of sources", s)
}

// Sign is the value of GitHub's and Jira's signature headers: "sha256=" and the hex HMAC-SHA256 of the raw body.
func Sign(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// Reasons for refusing a signature or token.
const (
	SignatureMissing = "signature_missing"
	SignatureFalse   = "signature_false"
	TokenMissing     = "token_missing"
	TokenFalse       = "token_false"
)

// verifyHMAC checks the signature in header over the raw body, in constant time.
func verifyHMAC(header string) func([]byte, http.Header, []byte) error {
	return func(secret []byte, h http.Header, body []byte) error {
		given := h.Get(header)
		if given == "" {
			return httpjson.Errorf(http.StatusUnauthorized, SignatureMissing, "%s is missing", header)
		}
		if !hmac.Equal([]byte(given), []byte(Sign(secret, body))) {
			return httpjson.Errorf(http.StatusUnauthorized, SignatureFalse,
				"%s does not fit the body and this collector's secret", header)
		}
		return nil
	}
}

// VerifyToken checks "Authorization: <scheme> <token>" in constant time: Okta's SSWS, Splunk's HEC.
func VerifyToken(scheme string, secret []byte, h http.Header) error {
	given, ok := strings.CutPrefix(h.Get("Authorization"), scheme+" ")
	if !ok || given == "" {
		return httpjson.Errorf(http.StatusUnauthorized, TokenMissing, "Authorization: want %s and a token", scheme)
	}
	// The hashes have equal length: ConstantTimeCompare reveals a difference in length.
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256(secret)
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return httpjson.Errorf(http.StatusUnauthorized, TokenFalse, "the %s token is not this source's", scheme)
	}
	return nil
}

// decode reads a vendor's JSON; the error names its shape, what.
func decode(what string, body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	return nil
}

// concatenated divides a body of several JSON values, with or without white space between them, into records.
func concatenated(kind string, body []byte) ([]Record, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	var records []Record
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, fmt.Errorf("read %s at byte %d: %w", kind, d.InputOffset(), err)
		}
		records = append(records, Record{Kind: kind, Body: raw})
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("read %s: no record in the body", kind)
	}
	return records, nil
}

// printable makes s fit for an event's id: bytes other than printable ASCII become '_', and a long text is cut.
func printable(s string) string {
	if len(s) > 180 {
		sum := sha256.Sum256([]byte(s))
		s = s[:140] + "~" + hex.EncodeToString(sum[:8])
	}
	for i := range len(s) {
		if s[i] < '!' || s[i] > '~' {
			b := []byte(s)
			for j, c := range b {
				if c < '!' || c > '~' {
					b[j] = '_'
				}
			}
			return string(b)
		}
	}
	return s
}

// line is a detail: one line without a secret, at most 200 bytes.
func line(format string, args ...any) string {
	s := ScrubText(fmt.Sprintf(format, args...))
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError { // also each invalid byte
			return ' '
		}
		return r
	}, s)
	return audit.OneLine(s, 200)
}

// accounts joins "system:name" pairs, leaving out those without a name.
func accounts(pairs ...string) []string {
	var list []string
	for i := 0; i+1 < len(pairs); i += 2 {
		name := strings.TrimSpace(pairs[i+1])
		if name == "" || len(name) > 200 {
			continue
		}
		list = append(list, pairs[i]+":"+name)
	}
	return list
}

// firstTime is the first of the times that is not zero.
func firstTime(times ...time.Time) time.Time {
	for _, t := range times {
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

// checked validates events; the error names the faults of the first invalid one.
func checked(what string, events []activity.Event) ([]activity.Event, error) {
	for _, e := range events {
		if err := e.Validate(); err != nil {
			return nil, fmt.Errorf("read %s: %w", what, err)
		}
		if y := e.At.Year(); y < 2000 || y > 9999 {
			return nil, fmt.Errorf("read %s: at: year %d is no year of an event", what, y)
		}
	}
	return events, nil
}
