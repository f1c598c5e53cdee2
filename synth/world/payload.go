package world

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/synth/routine"
)

// SecretKinds are the kinds of secrets that a simulated commit can hold.
var SecretKinds = []string{"aws_access_key"}

// record is one record of a vendor, in the form of the collector's source.Record.
type record struct {
	source.Record
	polled bool // the vendor keeps it in a log that is polled (Okta)
}

// cast holds people by id.
type cast map[string]risk.Person

// account is a person's account at system, "" if there is none.
func account(p risk.Person, system string) string {
	for _, a := range p.Accounts {
		if name, ok := strings.CutPrefix(a, system+":"); ok {
			return name
		}
	}
	return ""
}

// digest is a hash of an act for one purpose. All numbers that a vendor assigns are made from it.
func digest(a routine.Act, purpose string) [32]byte {
	return sha256.Sum256([]byte(purpose + "/" + a.ID))
}

func sha1Like(a routine.Act, purpose string) string {
	d := digest(a, purpose)
	return hex.EncodeToString(d[:20])
}

func number(s string) int64 {
	d := sha256.Sum256([]byte(s))
	n := int64(0)
	for _, b := range d[:5] {
		n = n<<8 | int64(b)
	}
	return n%900_000_000 + 100_000
}

// guid has the form of a version 4 UUID.
func guid(text string) string {
	d := sha256.Sum256([]byte(text))
	d[6], d[8] = d[6]&0x0f|0x40, d[8]&0x3f|0x80
	h := hex.EncodeToString(d[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// expand turns an act with a Count into that many acts, seven seconds apart, or closer so that they take at most a
// minute: they are delivered together, and the scorer refuses events far ahead of its clock.
func expand(a routine.Act) []routine.Act {
	n := max(1, a.Count)
	a.Count = 0
	list := []routine.Act{a}
	apart := min(7*time.Second, time.Minute/time.Duration(n))
	for i := 1; i < n; i++ {
		b := a
		d := digest(a, "again "+strconv.Itoa(i))
		b.ID = hex.EncodeToString(d[:12])
		b.At = a.At.Add(time.Duration(i) * apart)
		list = append(list, b)
	}
	return list
}

// records are the records of one act at its source's vendor, in the order in which the vendor reports them.
func records(a routine.Act, c cast) ([]record, error) {
	p, ok := c[a.Person]
	if !ok {
		return nil, fmt.Errorf("act %s: there is no person %q", a.ID, a.Person)
	}
	if v, ok := writers[a.Source]; ok {
		return v.records(a, p, c)
	}
	return nil, fmt.Errorf("act %s: source %q has no vendor", a.ID, a.Source)
}

// written collects records and the first fault of encoding them.
type written struct {
	list []record
	err  error
}

func (w *written) add(kind string, v any) *written {
	b, err := json.Marshal(v)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("write %s: %w", kind, err)
	}
	w.list = append(w.list, record{Record: source.Record{Kind: kind, Body: b}})
	return w
}

func (w *written) keep(kind string, v any) *written {
	w.add(kind, v)
	w.list[len(w.list)-1].polled = true
	return w
}

func (w *written) raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil && w.err == nil {
		w.err = err
	}
	return b
}

func unsupported(a routine.Act) error {
	return fmt.Errorf("act %s: no vendor of %s reports %q", a.ID, a.Source, a.Verb)
}

const organisation = "example-org"

// fakeSecret has the shape of an AWS access key, and is not valid anywhere.
func fakeSecret(a routine.Act) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	d := digest(a, "secret")
	key := []byte("AKIA")
	for _, b := range d[:16] {
		key = append(key, letters[b&31])
	}
	return string(key)
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
