package audit

import (
	"strings"
	"unicode/utf8"
)

// Most bytes of an entry's fields, as they are written. What an unverified caller can bring is clipped
// further where it comes in.
const (
	mostOfName   = 64 // kind, outcome, reason, serial number
	mostOfPeer   = 512
	mostOfRoute  = 256
	mostOfEvent  = 512
	mostOfPerson = 128
	mostOfDetail = 4096
)

// clipped is e with every field in its bounds.
func (e Entry) clipped() Entry {
	for _, f := range []struct {
		text *string
		most int
	}{
		{&e.Kind, mostOfName}, {&e.Outcome, mostOfName}, {&e.Reason, mostOfName}, {&e.Serial, mostOfName},
		{&e.Peer, mostOfPeer}, {&e.Route, mostOfRoute}, {&e.Event, mostOfEvent}, {&e.Person, mostOfPerson},
		{&e.Detail, mostOfDetail},
	} {
		*f.text = Clip(*f.text, f.most)
	}
	return e
}

// Clip is s as a record can hold it: as valid UTF-8, and only as much of it as takes most bytes when it is written as
// JSON, where one byte of a stranger's may take six. What was cut off is marked by an ellipsis.
func Clip(s string, most int) string {
	const mark = "…"
	if len(s) <= most/6 && utf8.ValidString(s) {
		return s
	}
	if len(s) > most { // not a byte of it is looked at in vain
		s = s[:min(len(s), most+utf8.UTFMax)]
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	size, fits := 0, 0
	for i, r := range s {
		size += written(r)
		if size > most {
			return s[:fits] + mark
		}
		if size <= most-len(mark) {
			fits = i + utf8.RuneLen(r)
		}
	}
	return s
}

// written is how many bytes r takes in JSON.
func written(r rune) int {
	switch {
	case r == '"' || r == '\\' || r == '\n' || r == '\r' || r == '\t' || r == '\b' || r == '\f':
		return 2
	case r < ' ' || r == '<' || r == '>' || r == '&' || r == '\u2028' || r == '\u2029':
		return 6
	}
	return utf8.RuneLen(r)
}
