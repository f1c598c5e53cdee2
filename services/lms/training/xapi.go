package training

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
)

// Training is exported as xAPI statements (Experience API 1.0.3, https://github.com/adlnet/xAPI-Spec), one JSON object a
// line. Who did it is an account under the learner's pseudonym: an export names nobody.

// xapiVersion is the version of the specification that statements follow.
const xapiVersion = "1.0.3"

// Statement is one xAPI statement. The same act has the same id in every export.
type Statement struct {
	ID        string       `json:"id"`
	Version   string       `json:"version"`
	Actor     XAPIAgent    `json:"actor"`
	Verb      XAPIVerb     `json:"verb"`
	Object    XAPIActivity `json:"object"`
	Result    XAPIResult   `json:"result"`
	Context   *XAPIContext `json:"context,omitempty"`
	Timestamp string       `json:"timestamp"` // lab time, RFC 3339, UTC
}

// XAPIAgent is a learner by account: home page and pseudonym.
type XAPIAgent struct {
	ObjectType string      `json:"objectType"` // "Agent"
	Account    XAPIAccount `json:"account"`
}

// XAPIAccount names a learner within a system.
type XAPIAccount struct {
	HomePage string `json:"homePage"`
	Name     string `json:"name"`
}

// XAPIVerb is one of ADL's verbs: answered, completed, passed or failed.
type XAPIVerb struct {
	ID      string            `json:"id"`
	Display map[string]string `json:"display"`
}

// XAPIActivity is a module, or a question of its quiz.
type XAPIActivity struct {
	ObjectType string         `json:"objectType"` // "Activity"
	ID         string         `json:"id"`
	Definition XAPIDefinition `json:"definition"`
}

// XAPIDefinition describes an activity. Its names were written by strangers: they are text.
type XAPIDefinition struct {
	Type            string            `json:"type"`
	Name            map[string]string `json:"name"`
	InteractionType string            `json:"interactionType,omitempty"`
}

// XAPIResult is how it went.
type XAPIResult struct {
	Score      *XAPIScore `json:"score,omitempty"`
	Success    *bool      `json:"success,omitempty"`
	Completion *bool      `json:"completion,omitempty"`
	Response   string     `json:"response,omitempty"` // the option chosen, from 0
	Duration   string     `json:"duration,omitempty"` // ISO 8601, lab time from asking for the lesson to its end
}

// XAPIScore is right answers: scaled is the share, raw the number, of max.
type XAPIScore struct {
	Scaled float64 `json:"scaled"`
	Raw    int     `json:"raw"`
	Min    int     `json:"min"`
	Max    int     `json:"max"`
}

// XAPIContext groups the statements of one lesson.
type XAPIContext struct {
	Registration string `json:"registration"` // the lesson
	Platform     string `json:"platform"`
	Language     string `json:"language"`
}

const (
	xapiVerbs    = "http://adlnet.gov/expapi/verbs/"
	xapiModule   = "http://adlnet.gov/expapi/activities/module"
	xapiQuestion = "http://adlnet.gov/expapi/activities/cmi.interaction"
)

// statements are what one lesson means: an answer for each question of each attempt, and completed and passed or failed at
// its end. Home is the IRI under which modules and accounts live.
func statements(home string, t Taught) []Statement {
	if t.Lesson == nil {
		return nil
	}
	m, _ := risk.ModuleByID(t.Module)
	module := XAPIActivity{ObjectType: "Activity", ID: home + "/modules/" + t.Module, Definition: XAPIDefinition{Type: xapiModule, Name: map[string]string{"en": m.Title}}}
	statement := func(verb, part string, at time.Time, object XAPIActivity, r XAPIResult) Statement {
		return Statement{
			ID: uuid.NewSHA1(t.ID, []byte(verb+part)).String(), Version: xapiVersion,
			Actor: XAPIAgent{ObjectType: "Agent", Account: XAPIAccount{HomePage: home, Name: t.Request.Subject}},
			Verb:  XAPIVerb{ID: xapiVerbs + verb, Display: map[string]string{"en": verb}}, Object: object, Result: r,
			Context:   &XAPIContext{Registration: t.ID.String(), Platform: "Security Training", Language: "en"},
			Timestamp: at.UTC().Format(time.RFC3339Nano),
		}
	}
	var list []Statement
	for _, a := range t.Attempts {
		for i, given := range a.Answers {
			if i >= len(t.Lesson.Quiz) {
				break
			}
			q := t.Lesson.Quiz[i]
			right := given == q.Answer
			object := XAPIActivity{ObjectType: "Activity", ID: home + "/lessons/" + t.ID.String() + "/questions/" + strconv.Itoa(i+1),
				Definition: XAPIDefinition{Type: xapiQuestion, Name: map[string]string{"en": q.Question}, InteractionType: "choice"}}
			list = append(list, statement("answered", fmt.Sprintf("/%d/%d", a.Number, i+1), a.At, object, XAPIResult{Success: &right, Response: strconv.Itoa(given)}))
		}
	}
	c := t.Completion
	if c == nil || len(t.Attempts) == 0 {
		return list
	}
	last, whole := t.Attempts[len(t.Attempts)-1], true
	r := XAPIResult{
		Score:      &XAPIScore{Scaled: c.Share, Raw: last.Correct, Max: last.Questions},
		Success:    &c.Passed,
		Completion: &whole,
		Duration:   IsoDuration(c.At.Sub(t.Asked)),
	}
	verb := "failed"
	if c.Passed {
		verb = "passed"
	}
	return append(list, statement("completed", "", c.At, module, r), statement(verb, "", c.At, module, r))
}

// IsoDuration is d as ISO 8601 writes it, to the hundredth of a second that xAPI compares.
func IsoDuration(d time.Duration) string {
	d = max(0, d).Round(10 * time.Millisecond)
	var b strings.Builder
	b.WriteString("PT")
	if h := d / time.Hour; h > 0 {
		fmt.Fprintf(&b, "%dH", h)
	}
	if m := d % time.Hour / time.Minute; m > 0 {
		fmt.Fprintf(&b, "%dM", m)
	}
	if s := (d % time.Minute).Seconds(); s > 0 || b.Len() == 2 {
		b.WriteString(strconv.FormatFloat(s, 'f', -1, 64) + "S")
	}
	return b.String()
}

// GetXAPI is GET /v1/xapi?since=RFC3339: every statement of lessons begun at or after since (wall clock; all without it), in
// the order in which they were begun, as NDJSON. It names no person.
func (tr *Training) GetXAPI(w http.ResponseWriter, r *http.Request) error {
	return tr.exportStatements(w, r, func(since time.Time) audited.Row {
		return exportRow(mesh.Caller(r.Context()).Name, since)
	})
}

// ShowXAPI is the same for an instructor's browser, to be saved as a file.
func (tr *Training) ShowXAPI(req *site.Request) error {
	req.W.Header().Set("Content-Disposition", `attachment; filename="training.xapi.ndjson"`)
	return tr.exportStatements(req.W, req.R, func(since time.Time) audited.Row { return exportRow(req.Viewer.Principal, since) })
}

// exportRow is the audit's word of an export: by a workload's name, or by who is signed in.
func exportRow[By string | site.Principal](by By, since time.Time) audited.Row {
	return audited.Note("export", "", "", struct {
		By    By        `json:"by"`
		What  string    `json:"what"`
		Since time.Time `json:"since,omitzero"`
	}{by, "xapi", since})
}

func (tr *Training) exportStatements(
	w http.ResponseWriter,
	r *http.Request,
	row func(since time.Time) audited.Row,
) error {
	var since time.Time
	if text := r.URL.Query().Get("since"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			return httpjson.Errorf(http.StatusBadRequest, "bad_time", "since %q: want a time as in 2026-10-01T10:00:00Z", text)
		}
	}
	if err := tr.Store.Record(r.Context(), row(since)); err != nil {
		return err
	}
	w.Header().Set("X-Experience-API-Version", xapiVersion)
	out := &site.NDJSONWriter{W: w}
	line := json.NewEncoder(out)
	err := tr.Store.eachLesson(r.Context(), since, func(t Taught) error {
		for _, s := range statements(tr.cfg.Home, t) {
			if err := line.Encode(s); err != nil {
				return fmt.Errorf("send statement: %w", err)
			}
		}
		return nil
	})
	if err != nil && out.Wrote {
		panic(http.ErrAbortHandler) // half of it is out: breaking off is the only way to say that it is not whole
	}
	if err == nil && !out.Wrote {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
	}
	return err
}
