package lms

import (
	"cmp"
	"io"
	"net/http"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/mesh"
)

// GetExercises is GET /v1/exercises: a JSON array of Exercise, the latest first.
func (l *LMS) GetExercises(w http.ResponseWriter, r *http.Request) error {
	all, err := l.store.exercises(r.Context())
	if err != nil {
		return err
	}
	if all == nil {
		all = []exercise.Exercise{}
	}
	return httpjson.Write(w, http.StatusOK, all)
}

// PostExercise is POST /v1/exercises: stores an Exercise under its id, in place of what was there; 422 with all faults.
func (l *LMS) PostExercise(w http.ResponseWriter, r *http.Request) error {
	var e exercise.Exercise
	if err := httpjson.Read(w, r, 1<<20, &e); err != nil {
		return err
	}
	if err := e.Validate(); err != nil {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_exercise", "%v", err)
	}
	if e.Attack == nil {
		e.Attack = []string{}
	}
	if e.Cast == nil {
		e.Cast = []string{}
	}
	if e.Steps == nil {
		e.Steps = []exercise.Step{}
	}
	if err := l.store.putExercise(r.Context(), e, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// GetAudit is GET /v1/audit?after=SEQ&limit=N: this service's chain as NDJSON of audit.Row, in order; all of it unless
// limited. With ?event=ID it is only what the chain says of that event, with ?person=ID&since=TIME (RFC 3339) only what it says of
// that person from then on, 200 rows unless limited; ?after goes with neither.
func (l *LMS) GetAudit(w http.ResponseWriter, r *http.Request) error {
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
		return httpjson.Errorf(http.StatusBadRequest, "bad_search", "want after and limit, or event or person, since for a person, and limit")
	}
	if text := q.Get("since"); text != "" {
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			return httpjson.Errorf(http.StatusBadRequest, "bad_time", "since %q: want RFC 3339", text)
		}
	}
	out := &site.NDJSONWriter{W: w}
	if event != "" || person != "" {
		var rows []audit.Row
		if rows, err = l.store.story(r.Context(), event, person, since, int(cmp.Or(min(limit, 10_000), 200))); err == nil {
			err = audit.WriteRows(out, audit.Each(rows))
		}
	} else {
		err = l.store.export(r.Context(), out, after, limit)
	}
	if err != nil && out.Wrote {
		panic(http.ErrAbortHandler) // half of it is out: breaking off is the only way to say that it is not whole
	}
	if err == nil && !out.Wrote {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
	}
	return err
}

var _ io.Writer = (*site.NDJSONWriter)(nil)
