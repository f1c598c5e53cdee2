// Package lesson is the vocabulary of lessons: the learning system's request to the gateway, and the lesson that it
// gets.
//
// Nothing in a Request names a person: the subject is a pseudonym that only the learning system can resolve. Everything
// in a Lesson is plain text, to be shown as text and never as HTML.
package lesson

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

// Request asks for one lesson for one person. It crosses the wire as JSON.
type Request struct {
	// Subject is an opaque pseudonym of the learner, 8 to 128 of A-Z a-z 0-9 - _; it keeps the quota per person.
	Subject string `json:"subject"`
	// Role is the learner's role, "backend_developer".
	Role string `json:"role"`
	// Level is the learner's risk level.
	Level risk.Level `json:"level"`
	// Module is the id of a module of risk.Modules; empty lets the reasons choose it.
	Module string `json:"module,omitempty"`
	// Reasons say what the lesson is about, the largest part first; at least one unless Module is given, at most 20.
	Reasons []Reason `json:"reasons,omitempty"`
	// Language is "en", "de" or "pt-BR"; empty means English.
	Language string `json:"language,omitempty"`
}

// Reason is one kind of act that weighs on the learner's score.
type Reason struct {
	Verb  activity.Verb `json:"verb"`
	Count int           `json:"count"` // how often, 1 to 1,000,000
	// Detail is one line from the events ("payments: config/prod.env"), at most 500 bytes. It is untrusted text: the model
	// gets it redacted, as data and never as an instruction.
	Detail string `json:"detail,omitempty"`
}

// Content is the text of a lesson, which a model may write.
type Content struct {
	Title      string     `json:"title"`
	Summary    string     `json:"summary"`
	Objectives []string   `json:"objectives"`
	Practices  []Practice `json:"practices"`
	Quiz       []Question `json:"quiz"`
}

// Practice is one recommended habit.
type Practice struct {
	Title string `json:"title"`
	Why   string `json:"why"`
	How   string `json:"how"`
}

// Question is one question of the quiz.
type Question struct {
	Question string   `json:"question"`
	Options  []string `json:"options"` // exactly four, all different
	Answer   int      `json:"answer"`  // index of the right option, from 0; not shown before the quiz is graded
	Why      string   `json:"why"`
}

// Origin says who wrote a lesson.
type Origin string

// The three authors.
const (
	Gemini   Origin = "gemini"
	Stub     Origin = "stub"
	Authored Origin = "built-in"
)

// Fallback says why a built-in lesson was served in place of a generated one.
type Fallback string

// Reasons for a built-in lesson.
const (
	ModelQuota       Fallback = "quota"       // the model answered 429 RESOURCE_EXHAUSTED
	ModelSafety      Fallback = "safety"      // the model refused to write it (SAFETY, RECITATION, a blocked prompt …)
	ModelMaxTokens   Fallback = "max_tokens"  // the output budget was used up before the end of the lesson
	ModelMalformed   Fallback = "malformed"   // the answer is not a lesson of this schema
	ModelTimeout     Fallback = "timeout"     // no answer within the deadline
	ModelUnavailable Fallback = "unavailable" // no connection, 5xx, or the breaker is open
	ModelRedirect    Fallback = "redirect"    // the model's address answered a redirect, which is never followed
	ModelRefused     Fallback = "refused"     // the model refused our request: a bad key, a bad name of a model
)

// Lesson is what the learner gets. It crosses the wire as one flat JSON object.
type Lesson struct {
	Module string `json:"module"` // id of a module of risk.Modules
	Content
	Origin   Origin   `json:"origin"`
	Model    string   `json:"model,omitempty"`    // which model wrote it, if one did
	Fallback Fallback `json:"fallback,omitempty"` // why it is built in although a generated one was requested
}

// Bounds of a lesson. Lengths are in characters.
const (
	FewestObjectives = 3
	FewestPractices  = 3
	FewestQuestions  = 4
	MostItems        = 10
	Options          = 4

	longestTitle = 200
	longestLine  = 500
	longestText  = 2000
)

var (
	subjectPattern  = regexp.MustCompile(`^[A-Za-z0-9_-]{8,128}$`)
	rolePattern     = regexp.MustCompile(`^[a-z][a-z_]{1,39}$`)
	languagePattern = regexp.MustCompile(`^[a-z]{2,3}(-[A-Z]{2})?$`)
)

// Validate reports all faults of a request at once, nil if there is none.
func (r Request) Validate() error {
	var f faults
	f.check(subjectPattern.MatchString(r.Subject), "subject: want a pseudonym of 8 to 128 letters, digits, - or _")
	f.check(rolePattern.MatchString(r.Role), "role %q: want lower case and underscores", r.Role)
	switch r.Level {
	case risk.Low, risk.Medium, risk.High, risk.Critical:
	default:
		f.check(false, "level %q: want LOW, MEDIUM, HIGH or CRITICAL", r.Level)
	}
	if r.Module != "" {
		_, known := risk.ModuleByID(r.Module)
		f.check(known, "module %q: unknown", r.Module)
	}
	f.check(r.Module != "" || len(r.Reasons) > 0, "reasons: missing, and no module named")
	f.check(len(r.Reasons) <= 20, "reasons: %d, want at most 20", len(r.Reasons))
	f.check(r.Language == "" || languagePattern.MatchString(r.Language),
		"language %q: want a form like en or pt-BR", r.Language)
	for i, x := range r.Reasons {
		known := x.Verb.WellFormed() && x.Verb.Source().Listed()
		f.check(known, "reasons[%d].verb %q: want source.what_happened", i, x.Verb)
		f.check(x.Count >= 1 && x.Count <= 1_000_000, "reasons[%d].count %d: outside 1 to 1000000", i, x.Count)
		f.check(len(x.Detail) <= 500 && utf8.ValidString(x.Detail), "reasons[%d].detail: want at most 500 bytes of UTF-8", i)
	}
	return f.err()
}

// Topic is the id of the module of a lesson for r: the requested one, else the one that teaches the most of the reasons
// (ties: the order of risk.Modules), else the first of the catalogue.
func (r Request) Topic() string {
	if r.Module != "" {
		return r.Module
	}
	best, most := risk.Modules[0].ID, 0
	for _, m := range risk.Modules {
		n := 0
		for _, x := range r.Reasons {
			for _, v := range m.Teaches {
				if v == x.Verb {
					n += x.Count
				}
			}
		}
		if n > most {
			best, most = m.ID, n
		}
	}
	return best
}

// Validate reports all faults of a lesson's text at once, nil if there is none. Text that Clean would change is a
// fault.
func (c Content) Validate() error {
	var f faults
	f.text("title", c.Title, longestTitle)
	f.text("summary", c.Summary, longestText)
	f.items("objectives", len(c.Objectives), FewestObjectives)
	for i, o := range c.Objectives {
		f.text(fmt.Sprintf("objectives[%d]", i), o, longestLine)
	}
	f.items("practices", len(c.Practices), FewestPractices)
	for i, p := range c.Practices {
		f.text(fmt.Sprintf("practices[%d].title", i), p.Title, longestTitle)
		f.text(fmt.Sprintf("practices[%d].why", i), p.Why, longestText)
		f.text(fmt.Sprintf("practices[%d].how", i), p.How, longestText)
	}
	f.items("quiz", len(c.Quiz), FewestQuestions)
	for i, q := range c.Quiz {
		at := fmt.Sprintf("quiz[%d]", i)
		f.text(at+".question", q.Question, longestLine)
		f.text(at+".why", q.Why, longestText)
		f.check(len(q.Options) == Options, "%s.options: %d, want %d", at, len(q.Options), Options)
		seen := map[string]bool{}
		for j, o := range q.Options {
			f.text(fmt.Sprintf("%s.options[%d]", at, j), o, longestLine)
			key := strings.ToLower(o)
			f.check(!seen[key], "%s.options[%d]: the same as another option", at, j)
			seen[key] = true
		}
		f.check(q.Answer >= 0 && q.Answer < len(q.Options), "%s.answer %d: no such option", at, q.Answer)
	}
	return f.err()
}

// Validate reports all faults of a lesson at once, nil if there is none.
func (l Lesson) Validate() error {
	var f faults
	_, known := risk.ModuleByID(l.Module)
	f.check(known, "module %q: unknown", l.Module)
	switch l.Origin {
	case Gemini, Stub:
		f.check(l.Model != "", "model: missing in a generated lesson")
		f.check(l.Fallback == "", "fallback %q: in a generated lesson", l.Fallback)
	case Authored:
		f.check(l.Model == "", "model %q: in a built-in lesson", l.Model)
	default:
		f.check(false, "origin %q: want gemini, stub or built-in", l.Origin)
	}
	return errors.Join(l.Content.Validate(), f.err())
}

type faults []error

func (f *faults) err() error { return errors.Join(*f...) }

func (f *faults) check(ok bool, format string, args ...any) {
	if !ok {
		*f = append(*f, fmt.Errorf(format, args...))
	}
}

func (f *faults) items(name string, n, fewest int) {
	f.check(n >= fewest && n <= MostItems, "%s: %d, want %d to %d", name, n, fewest, MostItems)
}

func (f *faults) text(name, s string, longest int) {
	n := utf8.RuneCountInString(s)
	f.check(n > 0, "%s: empty", name)
	f.check(n <= longest, "%s: %d characters, want at most %d", name, n, longest)
	f.check(Clean(s) == s, "%s: holds markup, a link or invisible characters", name)
}
