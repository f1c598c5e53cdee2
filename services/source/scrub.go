package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
)

// Scrubbed stands where a secret was.
const Scrubbed = "[scrubbed]"

// Scrub takes secrets out of a vendor's raw body before anything else looks at it: what has the shape of a token, a
// private key, the password of an address, and the value of all that is called a secret, in the spellings of JSON, of
// YAML, of an environment, of a query, of a header, of a connection string and of a command line. The result is JSON if
// the body was.
//
// It reads the body once, from the beginning to the end: the time that it takes grows with the body's length and with
// nothing else.
func Scrub(body []byte) []byte {
	out, _ := ScrubWithin(context.Background(), body)
	return out
}

// ScrubText is Scrub for one decoded string: an escaped token in JSON is plain only once it is decoded.
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

// scrubber goes through a body once. No function of it looks further than a fixed number of bytes ahead, unless it
// takes out what it has looked at or remembers how far that was.
type scrubber struct {
	in   []byte
	out  []byte // in up to kept, without secrets; nil while nothing was taken out
	kept int

	endOfKey int // where the next end of a private key is, len(in) if there is none; good for positions before it
	seen     int // up to where endOfKey was looked for
	valueOf  int // a "value" before here belongs to a name that was a secret's

	form form
}

// form is what a body is, as far as that was asked.
type form int

const (
	unknown form = iota
	text
	values // of JSON
)

// step looks at position i and gives the next one to look at.
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

// take replaces what is between from and to.
func (s *scrubber) take(from, to int, with string) int {
	if s.out == nil {
		s.out = make([]byte, 0, len(s.in))
	}
	s.out = append(append(s.out, s.in[s.kept:from]...), with...)
	s.kept = to
	return to
}

// begins says whether a word may begin at i. The letter of an escape before it, as in "\nghp_…", is no part of the
// word.
func (s *scrubber) begins(i int) bool {
	if i == 0 || !isAlnum(s.in[i-1]) {
		return true
	}
	return i > 1 && s.in[i-2] == '\\' && bytes.IndexByte([]byte("nrtbf"), s.in[i-1]) >= 0
}

// shape takes out a token that begins at i and is known by how it looks.
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
	arrow     = []byte("u003e") // of =>, as JSON has it, behind what escapes it
	keyFooter = []byte("-----END ")
	keyName   = []byte("PRIVATE KEY")
	dashes    = []byte("-----")
)

// privateKey takes out a PEM private key. One without an end goes up to the next quote, so that JSON stays whole, or to
// the end.
func (s *scrubber) privateKey(i int) int {
	label := s.in[i+len(dashes) : min(len(s.in), i+64)]
	at := bytes.Index(label, dashes)
	if at < 0 || !bytes.Contains(label[:at], keyName) {
		return i + len(dashes)
	}
	from := i + len(dashes) + at + len(dashes)
	if from > s.endOfKey || s.seen == 0 { // of several keys without an end, the rest is looked through once
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

// address takes the password out of scheme://user:password@host, and a token out of scheme://token@host. It looks as
// far as the address goes, and no further than to the next one.
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
		at = bytes.IndexByte(rest, '@') // a password may hold what should have been encoded
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

// assignment takes out the value that the '=' or ':' at i gives to what is called a secret.
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
	case v.bare && quotes >= 0 && s.in[i] == ':': // a number or a word of JSON, which has to stay one
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

// isScrubbed says whether value is what stands where a secret was; its end may be taken for a bracket around it.
func isScrubbed(value []byte) bool {
	return string(value) == Scrubbed || string(value) == Scrubbed[:len(Scrubbed)-1]
}

// bare, of the quotes around a name, is none.
const bare = -1

// nameBefore is what the assignment at i is to; it may be of several words. The quotes around it are escaped so many
// times, 0 if they are plain; bare if there are none.
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
	if from > 0 && s.in[from-1] == '\\' { // what follows it is an escape, "\n" or "\u0026", and no part of the name
		from += min(end-from, escape(s.in[from:end]))
	}
	return s.in[from:end], quotes
}

// escape is how long the escape of JSON is whose letter b begins with.
func escape(b []byte) int {
	if len(b) > 4 && b[0] == 'u' {
		return 5
	}
	return 1
}

// given is what an assignment gives.
type given struct {
	from, to int
	bare     bool // it has no quotes
	spaced   bool // it could be the next word of a sentence
}

// given is the value behind the sign at i, within its quotes, however often those are escaped, or up to what ends a
// bare one.
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

// value is what stands at j, behind sign or, if that is 0, behind a flag.
func (s *scrubber) value(j int, sign byte, quotes int) (from, to int, isBare bool) {
	depth := 0
	for depth < 7 && j+depth < len(s.in) && s.in[j+depth] == '\\' {
		depth++
	}
	if q := j + depth; q < len(s.in) && (s.in[q] == '"' || depth == 0 && (s.in[q] == '\'' || s.in[q] == '`')) {
		// In JSON, a quote that is escaped less often than those around the name ends the text that the name stands in.
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

// ends says whether the quote before i, escaped depth times, behind a name that has none, ends the text that both stand
// in.
func (s *scrubber) ends(i, depth int) bool {
	if depth == 0 && s.isJSON() {
		return true
	}
	return i == len(s.in) || bytes.IndexByte([]byte(",]} \t\r\n"), s.in[i]) >= 0
}

// behindScheme is v without the scheme of an Authorization that it begins with.
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

// closing is where the value that begins at from ends: before its quote, escaped depth times, or before what it cannot
// reach over.
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

// isJSON says whether what is scrubbed is JSON, one value or several. It looks when that is first asked.
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

// prose says whether a bare value is only the next word of a sentence: of letters alone, with more behind it on the
// line.
func (s *scrubber) prose(value []byte, to int) bool {
	for i, c := range value {
		if !isLetter(c) && (c != '-' || i == 0) || i > 0 && c >= 'A' && c <= 'Z' && value[i-1] >= 'a' {
			return false
		}
	}
	rest := bytes.TrimLeft(s.in[to:min(len(s.in), to+8)], ".,)]}> \t")
	return len(rest) > 0 && rest[0] != '\n' && rest[0] != '\r' && rest[0] != '"' && rest[0] != '\\'
}

// element takes out the text of <password>…</password>.
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

// flag takes out the value of --password VALUE. One with an equals sign is an assignment.
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
