package auditlog

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/postgres/audited"
)

// PageRows is the number of rows on a page.
const PageRows = 50

type pageView struct {
	Query  Query
	Rows   []line
	Older  string
	Newest string
	Kinds  []site.Choice
}

// line is a row with its detail split into facts.
type line struct {
	audit.Row
	Facts []Fact
}

// Fact is a name and a value of a detail.
type Fact struct{ Name, Value string }

// factsOfObject splits a detail, a flat JSON object, into facts in its order. A detail that is no object is one fact.
func factsOfObject(detail string) []Fact {
	if detail == "" {
		return nil
	}
	whole := []Fact{{Name: "detail", Value: detail}}
	d := json.NewDecoder(strings.NewReader(detail))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return whole
	}
	var facts []Fact
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return whole
		}
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return whole
		}
		facts = append(facts, Fact{Name: name.(string), Value: valueOf(raw)}) // a key of an object is a string
	}
	return facts
}

// valueOf is a JSON value as text for people: a string, the strings of a list, or a principal in words.
func valueOf(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return strings.Join(list, ", ")
	}
	var by site.Principal
	strict := json.NewDecoder(bytes.NewReader(raw))
	strict.DisallowUnknownFields()
	if strict.Decode(&by) == nil && by != (site.Principal{}) {
		return by.Words()
	}
	return string(raw)
}

// kinds are the kinds of rows that this service writes.
var kinds = []string{
	"link.made", "sign_in", "sign_out", "view", "search",
	"lesson.asked", "lesson.written", "lesson.refused", "attempt", "completion", "delivery",
	"exercise", "export", "import",
	"drill.begun", "drill.opened", "drill.clicked", "drill.submitted", "drill.reported",
	"reset", "order", "order.done", "order.failed", "scenarios", "hint",
}

var kindPattern = regexp.MustCompile(`^[a-z_.]{0,40}$`)

// Show lists rows by person, event and kind, PageRows at a time, the newest first. 400 for an invalid query.
func (l *Log) Show(req *site.Request) error {
	q := req.R.URL.Query()
	query, err := queryOf(q)
	if err != nil {
		return err
	}
	if query.Person != "" || query.Event != "" {
		// A search for a person or an event is audited, too.
		if err := l.Store.Record(req.Ctx(), audited.Note("search", "", "", struct {
			By     site.Principal `json:"by"`
			Person string         `json:"person,omitempty"`
			Event  string         `json:"event,omitempty"`
		}{req.Viewer.Principal, query.Person, query.Event})); err != nil {
			return err
		}
	}
	m := pageView{Query: query}
	entries, err := l.Store.Search(req.Ctx(), query)
	if err != nil {
		return err
	}
	for _, e := range entries {
		// The event has its own column.
		facts := slices.DeleteFunc(factsOfObject(e.Detail), func(f Fact) bool { return f.Name == "id" && f.Value == e.Event })
		m.Rows = append(m.Rows, line{Row: e, Facts: facts})
	}
	if len(m.Rows) > PageRows {
		m.Rows = m.Rows[:PageRows]
		q.Set("before", strconv.FormatInt(m.Rows[PageRows-1].Seq, 10))
		m.Older = "/audit?" + q.Encode()
	}
	if query.Before > 0 {
		q.Del("before")
		m.Newest = "/audit?" + q.Encode()
	}
	for _, k := range kinds {
		m.Kinds = append(m.Kinds, site.Choice{
			Value: k, Name: words.Sentence(words.Spaced.Replace(k)), Chosen: k == query.Kind,
		})
	}
	return l.site.Render(req, "audit", "Audit", "/audit", m)
}

// queryOf reads the query of a page. Its limit is one row more than a page, which tells whether there are older rows.
func queryOf(q url.Values) (Query, error) {
	query := Query{
		Person: strings.TrimSpace(q.Get("person")), Event: strings.TrimSpace(q.Get("event")), Kind: q.Get("kind"),
		Limit: PageRows + 1,
	}
	var err error
	query.Before, err = strconv.ParseInt(cmp.Or(q.Get("before"), "0"), 10, 64)
	text := query.Person + query.Event
	if err != nil || query.Before < 0 || !kindPattern.MatchString(query.Kind) || len(query.Person) > 200 ||
		len(query.Event) > 300 || strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
		return query, httpjson.Errorf(http.StatusBadRequest, "bad_search", "The audit log cannot answer this search.")
	}
	return query, nil
}

// FactsOf splits the detail of a line of a story into facts. A detail that is no JSON is one fact without a name.
func FactsOf(detail string) []Fact {
	if !json.Valid([]byte(detail)) {
		if detail == "" {
			return nil
		}
		return []Fact{{Value: detail}}
	}
	return factsOfObject(detail)
}
