package auditlog

import (
	"cmp"
	"net/http"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/postgres/audited"
)

// GetAudit is GET /v1/audit?after=SEQ&limit=N: this service's audit chain as NDJSON of audit.Row, in order, without a
// limit all of it. With ?event=ID it has the rows about that event, with ?person=ID&since=TIME (RFC 3339) those about
// that person from the time on; the limit is then 200 if none is given, and ?after is not allowed.
func (l *Log) GetAudit(w http.ResponseWriter, r *http.Request) error {
	after, err := httpjson.Number(r, "after", 0)
	if err != nil {
		return err
	}
	limit, err := httpjson.Number(r, "limit", 0)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	event, person, since := q.Get("event"), q.Get("person"), time.Time{}
	if (event != "" || person != "") && q.Has("after") || person == "" && q.Has("since") {
		return httpjson.Errorf(
			http.StatusBadRequest,
			"bad_search",
			"want after and limit, or event or person, since for a person, and limit",
		)
	}
	if text := q.Get("since"); text != "" {
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			return httpjson.Errorf(http.StatusBadRequest, "bad_time", "since %q: want RFC 3339", text)
		}
	}
	out := &site.NDJSONWriter{W: w}
	if event != "" || person != "" {
		subject := audited.Subject{Event: event, Person: person, Since: since}
		err = audit.WriteRows(out, audited.Story(r.Context(), l.Store.Pool, subject, cmp.Or(min(limit, 10_000), 200)))
	} else {
		err = audit.WriteRows(out, audited.Export(r.Context(), l.Store.Pool, after, limit))
	}
	return out.End(err)
}
