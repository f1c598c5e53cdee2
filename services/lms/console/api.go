package console

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
)

// GetExercises is GET /v1/exercises: a JSON array of exercise.Exercise, the latest first.
func (c *Console) GetExercises(w http.ResponseWriter, r *http.Request) error {
	all, err := c.store.exercises(r.Context())
	if err != nil {
		return err
	}
	if all == nil {
		all = []exercise.Exercise{}
	}
	return httpjson.Write(w, http.StatusOK, all)
}

// PostExercise is POST /v1/exercises: it stores an exercise under its id, in place of an earlier one. 422 lists all
// faults.
func (c *Console) PostExercise(w http.ResponseWriter, r *http.Request) error {
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
	if err := c.store.putExercise(r.Context(), e, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// GetOrders is GET /v1/orders?wait=20s: the waiting orders. It answers as soon as there is one, as a viewer begins or
// stops watching the console, or after the time, at most 30 seconds. An order waits until a report says that it is
// taken.
func (c *Console) GetOrders(w http.ResponseWriter, r *http.Request) error {
	var wait time.Duration
	if text := r.URL.Query().Get("wait"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > 30*time.Second {
			return httpjson.Errorf(http.StatusBadRequest, "bad_wait", "wait %q: want a time of at most 30s", text)
		}
		wait = d
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	knew := r.URL.Query().Get("watched") == "true"
	if wait > 0 {
		c.hub.mu.Lock()
		c.hub.asked = c.cfg.Now()
		c.hub.mu.Unlock()
	}
	for {
		changed := c.hub.wait()
		orders, err := c.store.waitingOrders(r.Context())
		if err != nil {
			return err
		}
		watched := c.hub.watched(c.cfg.Now())
		answer := func() error {
			return httpjson.Write(w, http.StatusOK, exercise.Orders{Orders: orders, Watched: watched})
		}
		if len(orders) > 0 || wait == 0 || watched != knew || c.hub.over() {
			return answer()
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-timer.C:
			return answer()
		case <-changed:
		}
	}
}

// PostOrder is POST /v1/orders/{order}: the conductor's exercise.Report. 409 if the order is in a state that the report
// cannot follow, such as one that another conductor has taken; 404 if there is no such order.
func (c *Console) PostOrder(w http.ResponseWriter, r *http.Request) error {
	var report exercise.Report
	if err := httpjson.Read(w, r, 4<<20, &report); err != nil {
		return err
	}
	n, err := strconv.ParseInt(r.PathValue("order"), 10, 64)
	if err != nil {
		return httpjson.Errorf(http.StatusNotFound, "unknown_order", "there is no order %q", r.PathValue("order"))
	}
	if !slices.Contains([]string{exercise.ReportTaken, exercise.ReportDone, exercise.ReportFailed}, report.State) {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_report",
			"state %q: want taken, done or failed", report.State)
	}
	if err := c.store.reportOrder(r.Context(), n, report, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	c.hub.update(func() {})
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// PutScenarios is PUT /v1/scenarios: it replaces the list of scenarios and strangers that the conductor can play and
// try.
func (c *Console) PutScenarios(w http.ResponseWriter, r *http.Request) error {
	var s exercise.Scenarios
	if err := httpjson.Read(w, r, 1<<20, &s); err != nil {
		return err
	}
	for i, x := range s.Scenarios {
		if !exercise.ValidID(x.Name) || x.Title == "" || len(s.Scenarios) > 200 {
			return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_scenario",
				"scenario %d: want a name and a title, and at most 200 scenarios", i)
		}
	}
	if err := c.store.putScenarios(r.Context(), s, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	c.hub.update(func() { c.hub.strangers = s.Strangers })
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// PostFeed is POST /v1/feed: events that the conductor saw elsewhere. The console shows them and stores the latest
// lines.
func (c *Console) PostFeed(w http.ResponseWriter, r *http.Request) error {
	var f exercise.Feed
	if err := httpjson.Read(w, r, 4<<20, &f); err != nil {
		return err
	}
	if err := f.Validate(); err != nil {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_feed", "%v", err)
	}
	if err := c.store.keepFeed(r.Context(), f.Lines); err != nil {
		return err
	}
	c.hub.update(func() {
		c.hub.add(f.Lines)
		if f.Identities != nil {
			c.hub.identities = f.Identities
		}
		if f.Revoked != nil {
			c.hub.revoked = f.Revoked
		}
	})
	w.WriteHeader(http.StatusNoContent)
	return nil
}
