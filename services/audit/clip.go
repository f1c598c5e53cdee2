package audit

import (
	"strings"
	"unicode/utf8"
)

// Limits of an entry's fields, in bytes of JSON. Text of unverified callers is clipped further by its reader.
const (
	maxNameBytes   = 64 // kind, outcome, reason, serial number
	maxPeerBytes   = 512
	maxRouteBytes  = 256
	maxEventBytes  = 512
	maxPersonBytes = 128
	maxDetailBytes = 4096
)

// clipped is e with every field within its limit.
func (e Entry) clipped() Entry {
	for _, f := range []struct {
		text *string
		most int
	}{
		{&e.Kind, maxNameBytes}, {&e.Outcome, maxNameBytes}, {&e.Reason, maxNameBytes}, {&e.Serial, maxNameBytes},
		{&e.Peer, maxPeerBytes}, {&e.Route, maxRouteBytes}, {&e.Event, maxEventBytes}, {&e.Person, maxPersonBytes},
		{&e.Detail, maxDetailBytes},
	} {
		*f.text = Clip(*f.text, f.most)
	}
	return e
}

// Clip makes s fit for a record: valid UTF-8, and at most most bytes in JSON, where one byte may take six. Text that
// was cut ends with an ellipsis.
func Clip(s string, most int) string {
	const mark = "…"
	if len(s) <= most/6 && utf8.ValidString(s) {
		return s
	}
	if len(s) > most { // the rest cannot fit, so it is not read
		s = s[:min(len(s), most+utf8.UTFMax)]
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	size, fits := 0, 0
	for i, r := range s {
		size += jsonSize(r)
		if size > most {
			return s[:fits] + mark
		}
		if size <= most-len(mark) {
			fits = i + utf8.RuneLen(r)
		}
	}
	return s
}

// OneLine makes foreign text fit for one line: control characters become spaces, and it is cut to most bytes of valid
// UTF-8.
func OneLine(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// jsonSize is how many bytes r takes in JSON.
func jsonSize(r rune) int {
	switch {
	case r == '"' || r == '\\' || r == '\n' || r == '\r' || r == '\t' || r == '\b' || r == '\f':
		return 2
	case r < ' ' || r == '<' || r == '>' || r == '&' || r == '\u2028' || r == '\u2029':
		return 6
	}
	return utf8.RuneLen(r)
}
