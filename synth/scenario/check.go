package scenario

import (
	"fmt"
	"slices"
	"strings"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
)

// Observed is the observation for one expectation: Level and Because of a person, Outcome and Reason of a call. Failure
// says why there is none.
type Observed struct {
	Level   risk.Level
	Because []activity.Verb
	Outcome topology.Outcome
	Reason  string
	Failure string
}

// Mismatch is an expectation that was not met.
type Mismatch struct {
	Index int    // in Expect
	Line  int    // in the file
	What  string // "mira at 17h30m" or "git-collector -> llm-gateway POST /v1/generate"
	Want  string
	Got   string
}

func (m Mismatch) String() string {
	return fmt.Sprintf("line %d: %s: want %s, got %s", m.Line, m.What, m.Want, m.Got)
}

// Check compares expectations with observations, which are in the same order.
func Check(expect []Expectation, observed []Observed) []Mismatch {
	var list []Mismatch
	for i, e := range expect {
		o := Observed{Failure: "nothing was observed"}
		if i < len(observed) {
			o = observed[i]
		}
		if m, ok := e.check(o); !ok {
			m.Index = i
			list = append(list, m)
		}
	}
	return list
}

// String is the expectation on one line.
func (e Expectation) String() string {
	m, _ := e.check(Observed{})
	return m.What + ": " + m.Want
}

func (e Expectation) check(o Observed) (Mismatch, bool) {
	m := Mismatch{Line: e.Line}
	ok := o.Failure == ""
	if e.Call != "" {
		m.What = e.Call + " " + string(e.Route)
		if e.As != "" {
			m.What = e.Call + " (" + e.As + ") " + string(e.Route)
		}
		m.Want, m.Got = string(e.Outcome), string(o.Outcome)
		ok = ok && o.Outcome == e.Outcome
		if e.Reason != "" {
			m.Want += ", " + e.Reason
			ok = ok && o.Reason == e.Reason
		}
		if o.Reason != "" {
			m.Got += ", " + o.Reason
		}
	} else {
		m.What = e.Who + " at " + e.At.String()
		m.Want, m.Got = string(e.Level), string(o.Level)
		ok = ok && o.Level == e.Level
		if len(e.Because) > 0 {
			m.Want += " because of " + join(e.Because)
			m.Got += " because of " + join(o.Because)
			for _, v := range e.Because {
				ok = ok && slices.Contains(o.Because, v)
			}
		}
	}
	if o.Failure != "" {
		m.Got = o.Failure
	}
	return m, ok
}

func join(list []activity.Verb) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = string(v)
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}
