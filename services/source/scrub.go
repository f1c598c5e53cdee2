package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
)

// Scrubbed replaces a secret.
const Scrubbed = "[scrubbed]"

// Scrub removes secrets from a vendor's raw body before anything else reads it: text with the shape of a token, private
// keys, passwords in addresses, and values whose name is that of a secret, in the notation of JSON, YAML, environments,
// queries, headers, connection strings and command lines. The result is JSON if the body was.
//
// It reads the body once, from beginning to end. Its time is linear in the length of the body.
func Scrub(body []byte) []byte {
	out, _ := ScrubWithin(context.Background(), body)
	return out
}

// ScrubText is Scrub for one decoded string. A token that is escaped in JSON is recognised only after decoding.
func ScrubText(s string) string { return string(Scrub([]byte(s))) }

// ScrubWithin is Scrub until ctx ends; then the error is its cause.
func ScrubWithin(ctx context.Context, body []byte) ([]byte, error) {
	s := scrubber{in: body}
	for i, look := 0, 0; i < len(body); {
		if i >= look {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			look = i + 64<<10
		}
		i = s.step(i)
	}
	if s.out == nil {
		return body, nil
	}
	return append(s.out, body[s.kept:]...), nil
}

// scrubber reads a body once. Its functions look at most a fixed number of bytes ahead, unless they remove what they
// have read or remember how far they have looked.
type scrubber struct {
	in   []byte
	out  []byte // in up to kept, without secrets; nil until something is removed
	kept int

	endOfKey int // position of the next end of a private key, len(in) if none; valid for positions before it
	seen     int // 1 once endOfKey was searched
	valueOf  int // a "value" before this position belongs to the name of a secret

	form form
}

// form is the format of a body, as far as it was determined.
type form int

const (
	unknown form = iota
	text
	values // of JSON
)

// step processes position i and returns the next position.
func (s *scrubber) step(i int) int {
	switch c := s.in[i]; {
	case c == '=' || c == ':':
		if c == ':' && bytes.HasPrefix(s.in[i:], []byte("://")) {
			return s.address(i)
		}
		return s.assignment(i)
	case c == '>':
		return s.element(i)
	case c == '-':
		if bytes.HasPrefix(s.in[i:], keyHeader) {
			return s.privateKey(i)
		}
		return s.flag(i)
	case shapesOf[c] != nil && s.begins(i):
		return s.shape(i)
	}
	return i + 1
}

// take replaces the bytes in [from, to), and returns to.
func (s *scrubber) take(from, to int, with string) int {
	if s.out == nil {
		s.out = make([]byte, 0, len(s.in))
	}
	s.out = append(append(s.out, s.in[s.kept:from]...), with...)
	s.kept = to
	return to
}

// begins says whether a word may begin at i. The letter of an escape before it, as in "\nghp_…", is not part of the
// word.
func (s *scrubber) begins(i int) bool {
	if i == 0 || !isAlnum(s.in[i-1]) {
		return true
	}
	return i > 1 && s.in[i-2] == '\\' && bytes.IndexByte([]byte("nrtbf"), s.in[i-1]) >= 0
}

// shape removes a token that begins at i and is recognised by its shape.
func (s *scrubber) shape(i int) int {
	for _, t := range shapesOf[s.in[i]] {
		if len(s.in)-i < len(t.begins) || !t.is(s.in[i:i+len(t.begins)]) {
			continue
		}
		from := i + len(t.begins)
		if end := t.end(s.in[from:min(len(s.in), from+longestToken)]); end > 0 {
			if t.keeps {
				return s.take(from, from+end, Scrubbed)
			}
			return s.take(i, from+end, Scrubbed)
		}
	}
	return i + 1
}

var (
	keyHeader = []byte("-----BEGIN ")
	arrow     = []byte("u003e") // of => in JSON, after its backslashes
	keyFooter = []byte("-----END ")
	keyName   = []byte("PRIVATE KEY")
	dashes    = []byte("-----")
)

// privateKey removes a PEM private key. One without an end extends to the next quote, so that JSON stays valid, or to
// the end of the body.
func (s *scrubber) privateKey(i int) int {
	label := s.in[i+len(dashes) : min(len(s.in), i+64)]
	at := bytes.Index(label, dashes)
	if at < 0 || !bytes.Contains(label[:at], keyName) {
		return i + len(dashes)
	}
	from := i + len(dashes) + at + len(dashes)
	if from > s.endOfKey || s.seen == 0 { // with several keys without an end, the rest is searched once
		s.seen, s.endOfKey = 1, len(s.in)
		if end := bytes.Index(s.in[from:], keyFooter); end >= 0 {
			s.endOfKey = from + end
		}
	}
	to := s.endOfKey
	if quote := bytes.IndexByte(s.in[from:to], '"'); quote >= 0 {
		to = from + quote
		for to > from && s.in[to-1] == '\\' {
			to--
		}
	} else if to < len(s.in) {
		tail := s.in[to+len(keyFooter) : min(len(s.in), to+64)]
		if end := bytes.Index(tail, dashes); end >= 0 {
			to += len(keyFooter) + end + len(dashes)
		}
	}
	return s.take(i, to, Scrubbed)
}

// address removes the password from scheme://user:password@host, and a token from scheme://token@host. It reads to the
// end of the address, or to the next one.
func (s *scrubber) address(i int) int {
	from := i + len("://")
	rest := s.in[from:min(len(s.in), from+longestToken)]
	if next := bytes.Index(rest, []byte("://")); next >= 0 {
		rest = rest[:next]
	}
	if end := bytes.IndexAny(rest, " \t\r\n\"'`<>\\"); end >= 0 {
		rest = rest[:end]
	}
	path := bytes.IndexAny(rest, "/?#")
	if path < 0 {
		path = len(rest)
	}
	at := bytes.LastIndexByte(rest[:path], '@')
	colon := bytes.IndexByte(rest[:path], ':')
	if at < 0 && colon >= 0 && !isPort(rest[colon+1:path]) {
		at = bytes.IndexByte(rest, '@') // a password may contain characters that should have been encoded
	}
	switch {
	case at < 0:
		return from
	case colon >= 0 && colon+1 < at && !isScrubbed(rest[colon+1:at]) && !placeholder(rest[colon+1:at]):
		return s.take(from+colon+1, from+at, Scrubbed)
	case colon < 0 && at >= 20 && random(rest[:at]):
		return s.take(from, from+at, Scrubbed)
	}
	return from
}

func isPort(b []byte) bool {
	for _, c := range b {
		if !isDigit(c) {
			return false
		}
	}
	return true
}

// assignment removes the value that the '=' or ':' at i assigns to a name of a secret.
func (s *scrubber) assignment(i int) int {
	name, quotes := s.nameBefore(i)
	if len(name) == 0 {
		return i + 1
	}
	kind := kindOf(name)
	if kind == harmless && isName(name) { // name: DB_PASSWORD, and its value on the next line
		near := scrubber{in: s.in[:min(len(s.in), i+longestName)], form: s.form}
		v := near.given(i, quotes)
		named, _, _ := bytes.Cut(s.in[v.from:v.to], []byte(`\`))
		if len(named) > 0 && kindOf(named) != harmless {
			s.valueOf = v.to + longestName
		}
		return i + 1
	}
	if kind == harmless && (i >= s.valueOf || !isValue(name)) {
		return i + 1
	}
	v := s.given(i, quotes)
	if kind == header { // Authorization: Basic …
		v = s.behindScheme(v)
	}
	value := s.in[v.from:v.to]
	switch {
	case placeholder(value), isScrubbed(value), bytes.HasPrefix(value, keyHeader):
		return max(i+1, v.from)
	case v.bare && quotes >= 0 && s.in[i] == ':': // a number or a literal of JSON, which must stay valid
		return max(i+1, v.from)
	case v.bare && len(value) < 4:
		return max(i+1, v.from)
	case v.bare && v.spaced && kind != header && s.prose(value, v.to):
		return max(i+1, v.from)
	}
	return s.take(v.from, v.to, Scrubbed)
}

// endsBare are the bytes that end a value without quotes.
var endsBare = func() (is [256]bool) {
	for c := range ' ' + 1 {
		is[c] = true
	}
	for _, c := range "\"'`\\&;<" {
		is[c] = true
	}
	return is
}()

// isScrubbed says whether value is Scrubbed. Its last character may be missing, if it was taken as a bracket.
func isScrubbed(value []byte) bool {
	return string(value) == Scrubbed || string(value) == Scrubbed[:len(Scrubbed)-1]
}

// bare means that there are no quotes.
const bare = -1

// nameBefore is the name that the assignment at i is for; it may have several words. quotes says how often the quotes
// around it are escaped, 0 if not at all; it is bare if there are none.
func (s *scrubber) nameBefore(i int) (name []byte, quotes int) {
	end := i
	for end > 0 && i-end < 2 && isSpace(s.in[end-1]) {
		end--
	}
	quotes = bare
	for end > 0 && i-end < 12 && bytes.IndexByte([]byte(`"'`+"`"+`\])?`), s.in[end-1]) >= 0 {
		end--
		switch s.in[end] {
		case '"':
			quotes = 0
		case '\\':
			if quotes != bare {
				quotes++
			}
		}
	}
	from := end
	for from > 0 && end-from < longestName {
		word := quotes == bare && s.in[from-1] == ' ' && from > 1 && isAlnum(s.in[from-2])
		if !word && !inName(s.in[from-1]) {
			break
		}
		from--
	}
	if from > 0 && s.in[from-1] == '\\' { // an escape such as "\n" or "\u0026" is not part of the name
		from += min(end-from, escape(s.in[from:end]))
	}
	return s.in[from:end], quotes
}

// escape is the length of the JSON escape whose letter b begins with.
func escape(b []byte) int {
	if len(b) > 4 && b[0] == 'u' {
		return 5
	}
	return 1
}

// given is the value of an assignment.
type given struct {
	from, to int
	bare     bool // it has no quotes
	spaced   bool // it may be the next word of a sentence
}

// given finds the value after the sign at i: within its quotes, which may be escaped, or up to the end of a bare value.
func (s *scrubber) given(i, quotes int) given {
	j, sign := i+1, s.in[i]
	for j < len(s.in) && j < i+3 && (s.in[j] == '=' || s.in[j] == '>' || s.in[j] == '~') {
		j++
	}
	if at := j + run(s.in[j:min(len(s.in), j+8)], isEscape); at > j && bytes.HasPrefix(s.in[at:], arrow) {
		j = at + len(arrow)
	}
	v := given{spaced: sign == ':' || isSpace(s.in[i-1]) || j < len(s.in) && isSpace(s.in[j])}
	for most := j + 32; j < len(s.in) && j < most; j++ {
		if c := s.in[j]; c != ' ' && c != '\t' && (quotes == bare || c != '\n' && c != '\r') {
			break
		}
	}
	v.from, v.to, v.bare = s.value(j, sign, quotes)
	return v
}

// value finds the value at j, after sign, or after a flag if sign is 0.
func (s *scrubber) value(j int, sign byte, quotes int) (from, to int, isBare bool) {
	depth := 0
	for depth < 7 && j+depth < len(s.in) && s.in[j+depth] == '\\' {
		depth++
	}
	if q := j + depth; q < len(s.in) && (s.in[q] == '"' || depth == 0 && (s.in[q] == '\'' || s.in[q] == '`')) {
		// In JSON, a quote that is escaped less often than those around the name ends the text that contains the name.
		if s.in[q] == '"' && (quotes > depth || quotes == bare && s.ends(q+1, depth)) {
			return j, j, true
		}
		return q + 1, s.closing(q+1, s.in[q], depth), false
	}
	if depth > 0 {
		return j, j, true
	}
	end := j
	for end < len(s.in) {
		c := s.in[end]
		if c == '\\' && end+1 < len(s.in) && (s.in[end+1] == '/' || s.in[end+1] == '\\') {
			end += 2
			continue
		}
		if endsBare[c] || sign == ':' && end == j && bytes.IndexByte([]byte("{[,"), c) >= 0 {
			break
		}
		end++
	}
	end = min(end, len(s.in))
	for end > j && bytes.IndexByte([]byte(".,)]}>"), s.in[end-1]) >= 0 {
		end--
	}
	return j, end, true
}

// ends says whether the quote before i, escaped depth times and after a name without quotes, ends the text that
// contains both.
func (s *scrubber) ends(i, depth int) bool {
	if depth == 0 && s.isJSON() {
		return true
	}
	return i == len(s.in) || bytes.IndexByte([]byte(",]} \t\r\n"), s.in[i]) >= 0
}

// behindScheme is v without the authentication scheme at its beginning.
func (s *scrubber) behindScheme(v given) given {
	if !v.bare {
		if scheme := bytes.IndexByte(s.in[v.from:v.to], ' '); scheme >= 0 {
			v.from += scheme + 1
		}
		return v
	}
	if v.to+1 < len(s.in) && s.in[v.to] == ' ' {
		if from, to, isBare := s.value(v.to+1, '=', bare); to > from && isBare {
			v.from, v.to = from, to
		}
	}
	return v
}

// closing is the end of the value that begins at from: before its quote, escaped depth times, or before a character
// that it cannot contain.
func (s *scrubber) closing(from int, quote byte, depth int) int {
	escapes := 0 // right before i
	for i := from; i < len(s.in); i++ {
		switch c := s.in[i]; {
		case c == '\\':
			escapes++
			continue
		case c == '\n' || c == '\r':
			return i
		case c == quote && escapes%(2*(depth+1)) == depth:
			return i - depth
		case c == '"' && (escapes < depth || quote != '"'):
			return i - escapes
		}
		escapes = 0
	}
	return len(s.in)
}

// isJSON says whether the body is JSON, of one or several values. It is determined on the first call.
func (s *scrubber) isJSON() bool {
	if s.form == unknown {
		s.form = text
		at := bytes.TrimLeft(s.in[:min(len(s.in), 64)], " \t\r\n")
		if len(at) > 0 && (at[0] == '{' || at[0] == '[') && isJSON(s.in) {
			s.form = values
		}
	}
	return s.form == values
}

func isJSON(b []byte) bool {
	for d := json.NewDecoder(bytes.NewReader(b)); ; {
		var one json.RawMessage
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return true
		} else if err != nil {
			return false
		}
	}
}

// prose says whether a bare value is only the next word of a sentence: it has only letters, and the line continues.
func (s *scrubber) prose(value []byte, to int) bool {
	for i, c := range value {
		if !isLetter(c) && (c != '-' || i == 0) || i > 0 && c >= 'A' && c <= 'Z' && value[i-1] >= 'a' {
			return false
		}
	}
	rest := bytes.TrimLeft(s.in[to:min(len(s.in), to+8)], ".,)]}> \t")
	return len(rest) > 0 && rest[0] != '\n' && rest[0] != '\r' && rest[0] != '"' && rest[0] != '\\'
}

// element removes the text of <password>…</password>.
func (s *scrubber) element(i int) int {
	from := i
	for from > 0 && i-from < longestName && (inName(s.in[from-1]) || s.in[from-1] == ':') {
		from--
	}
	if from == 0 || s.in[from-1] != '<' || kindOf(s.in[from:i]) == harmless {
		return i + 1
	}
	to := i + 1
	for to < len(s.in) && s.in[to] != '<' && s.in[to] != '"' {
		to++
	}
	if to == i+1 || placeholder(s.in[i+1:to]) || isScrubbed(s.in[i+1:to]) {
		return i + 1
	}
	return s.take(i+1, to, Scrubbed)
}

// flag removes the value of --password VALUE. With an equals sign, it is an assignment.
func (s *scrubber) flag(i int) int {
	if i > 0 && s.in[i-1] == '-' || !bytes.HasPrefix(s.in[i:], []byte("--")) {
		return i + 1
	}
	end := i + 2
	for end < len(s.in) && end-i < longestName && inName(s.in[end]) {
		end++
	}
	if end == i+2 || end == len(s.in) || s.in[end] != ' ' || kindOf(s.in[i+2:end]) == harmless {
		return end
	}
	from, to, isBare := s.value(end+1, 0, bare)
	value := s.in[from:to]
	if len(value) < 4 || value[0] == '-' || placeholder(value) || isScrubbed(value) || isBare && s.prose(value, to) {
		return end
	}
	return s.take(from, to, Scrubbed)
}
