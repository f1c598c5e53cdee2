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

// PageRows is how many entries a page shows.
const PageRows = 50

type pageView struct {
	Query  Query
	Rows   []line
	Older  string
	Newest string
	Kinds  []site.Choice
}

// line is an entry with its detail in parts.
type line struct {
	audit.Row
	Facts []Fact
}

// Fact is one part of a detail.
type Fact struct{ Name, Value string }

// factsOfObject takes a detail apart, a flat JSON object, in its own order; what is no object is one fact.
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
		f := Fact{Name: name.(string), Value: string(raw)} // a key of an object is a string
		var text string
		var list []string
		var who site.Principal
		strict := json.NewDecoder(bytes.NewReader(raw))
		strict.DisallowUnknownFields()
		if json.Unmarshal(raw, &text) == nil {
			f.Value = text
		} else if json.Unmarshal(raw, &list) == nil {
			f.Value = strings.Join(list, ", ")
		} else if strict.Decode(&who) == nil && who != (site.Principal{}) {
			f.Value = who.Words()
		}
		facts = append(facts, f)
	}
	return facts
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

// Show is the page: PageRows entries at a time, the newest first, of a person, an event or a kind.
func (l *Log) Show(req *site.Request) error {
	q := req.R.URL.Query()
	query, err := queryOf(q)
	if err != nil {
		return err
	}
	if query.Person != "" || query.Event != "" {
		// Looking a person up is an act, and the audit says so as well.
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
		// The event has a column of its own.
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

// queryOf reads a query of one page and an entry more, which shows that there are older ones.
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
		return query, httpjson.Errorf(
			http.StatusBadRequest, "bad_search", "This is not a search that the audit can answer.",
		)
	}
	return query, nil
}

// FactsOf takes the detail of a line of a story apart.
func FactsOf(detail string) []Fact {
	if !json.Valid([]byte(detail)) {
		if detail == "" {
			return nil
		}
		return []Fact{{Value: detail}}
	}
	return factsOfObject(detail)
}
