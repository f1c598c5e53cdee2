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

// Training is exported as xAPI statements (Experience API 1.0.3, https://github.com/adlnet/xAPI-Spec), one JSON object
// on each line. The actor is an account with the learner's pseudonym, so an export contains no names.

// xapiVersion is the version of the specification.
const xapiVersion = "1.0.3"

// Statement is an xAPI statement. The id is derived from the act, so it is the same in every export.
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

// XAPIAgent is a learner, identified by account.
type XAPIAgent struct {
	ObjectType string      `json:"objectType"` // "Agent"
	Account    XAPIAccount `json:"account"`
}

// XAPIAccount is a learner's account: the home page of the system and the pseudonym.
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

// XAPIDefinition describes an activity. Its names are plain text from a model.
type XAPIDefinition struct {
	Type            string            `json:"type"`
	Name            map[string]string `json:"name"`
	InteractionType string            `json:"interactionType,omitempty"`
}

// XAPIResult is the result of an act.
type XAPIResult struct {
	Score      *XAPIScore `json:"score,omitempty"`
	Success    *bool      `json:"success,omitempty"`
	Completion *bool      `json:"completion,omitempty"`
	Response   string     `json:"response,omitempty"` // index of the chosen option, from 0
	Duration   string     `json:"duration,omitempty"` // ISO 8601: lab time from the request of the lesson to its end
}

// XAPIScore is the number of right answers: Raw of Max, and Scaled as a share.
type XAPIScore struct {
	Scaled float64 `json:"scaled"`
	Raw    int     `json:"raw"`
	Min    int     `json:"min"`
	Max    int     `json:"max"`
}

// XAPIContext relates a statement to its lesson.
type XAPIContext struct {
	Registration string `json:"registration"` // id of the lesson
	Platform     string `json:"platform"`
	Language     string `json:"language"`
}

const (
	xapiVerbs    = "http://adlnet.gov/expapi/verbs/"
	xapiModule   = "http://adlnet.gov/expapi/activities/module"
	xapiQuestion = "http://adlnet.gov/expapi/activities/cmi.interaction"
)

// statements are those of one lesson: "answered" for each question of each attempt, and at the end "completed" and
// "passed" or "failed". home is the IRI under which modules and accounts have their ids.
func statements(home string, t LessonRecord) []Statement {
	if t.Lesson == nil {
		return nil
	}
	m, _ := risk.ModuleByID(t.Module)
	module := XAPIActivity{
		ObjectType: "Activity", ID: home + "/modules/" + t.Module,
		Definition: XAPIDefinition{Type: xapiModule, Name: map[string]string{"en": m.Title}},
	}
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
			object := XAPIActivity{
				ObjectType: "Activity", ID: home + "/lessons/" + t.ID.String() + "/questions/" + strconv.Itoa(i+1),
				Definition: XAPIDefinition{
					Type: xapiQuestion, Name: map[string]string{"en": q.Question}, InteractionType: "choice",
				},
			}
			list = append(list, statement("answered", fmt.Sprintf("/%d/%d", a.Number, i+1), a.At, object,
				XAPIResult{Success: &right, Response: strconv.Itoa(given)}))
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
		Duration:   isoDuration(c.At.Sub(t.Asked)),
	}
	verb := "failed"
	if c.Passed {
		verb = "passed"
	}
	return append(list, statement("completed", "", c.At, module, r), statement(verb, "", c.At, module, r))
}

// isoDuration is d in the format of ISO 8601, rounded to hundredths of a second as xAPI compares it.
func isoDuration(d time.Duration) string {
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

// GetXAPI is GET /v1/xapi?since=TIME (RFC 3339, wall clock): the statements of all lessons begun at or after since, in
// the order in which they were begun, as NDJSON. Without since it has all lessons.
func (tr *Training) GetXAPI(w http.ResponseWriter, r *http.Request) error {
	return tr.exportStatements(w, r, func(since time.Time) audited.Row {
		return exportRow(mesh.Caller(r.Context()).Name, since)
	})
}

// ShowXAPI is the same as a download for an instructor.
func (tr *Training) ShowXAPI(req *site.Request) error {
	req.W.Header().Set("Content-Disposition", `attachment; filename="training.xapi.ndjson"`)
	return tr.exportStatements(req.W, req.R, func(since time.Time) audited.Row {
		return exportRow(req.Viewer.Principal, since)
	})
}

// exportRow is the audit row of an export of statements, by a workload or by a user.
func exportRow[By string | site.Principal](by By, since time.Time) audited.Row {
	return audited.Note("export", "", "", struct {
		By    By        `json:"by"`
		What  string    `json:"what"`
		Since time.Time `json:"since,omitzero"`
	}{by, "xapi", since})
}

// exportStatements sends the statements and writes the audit row. 400 for a since that is no time.
func (tr *Training) exportStatements(
	w http.ResponseWriter,
	r *http.Request,
	row func(since time.Time) audited.Row,
) error {
	var since time.Time
	if text := r.URL.Query().Get("since"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			return httpjson.Errorf(http.StatusBadRequest, "bad_time",
				"since %q: want a time as in 2026-10-01T10:00:00Z", text)
		}
	}
	if err := tr.Store.Record(r.Context(), row(since)); err != nil {
		return err
	}
	w.Header().Set("X-Experience-API-Version", xapiVersion)
	out := &site.NDJSONWriter{W: w}
	line := json.NewEncoder(out)
	err := tr.Store.eachLesson(r.Context(), since, func(t LessonRecord) error {
		for _, s := range statements(tr.cfg.Home, t) {
			if err := line.Encode(s); err != nil {
				return fmt.Errorf("send statement: %w", err)
			}
		}
		return nil
	})
	return out.End(err)
}
