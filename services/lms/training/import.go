package training

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/mesh"
)

// PutTraining is PUT /v1/training: takes training records over and answers 204 when the scorer has them all. A record that is
// known already is known. 422 names every fault; 503 when the scorer does not take them in time: they are kept and delivered
// later.
func (tr *Training) PutTraining(w http.ResponseWriter, r *http.Request) error {
	var records lmsapi.TrainingRecords
	if err := httpjson.Read(w, r, 32<<20, &records); err != nil {
		return err
	}
	var faults []error
	ids := make([]string, len(records.Events))
	for i, e := range records.Events {
		ids[i] = e.ID
		err := e.Validate()
		if err == nil && (e.Source != activity.Training || e.Person == "") {
			err = errors.New("want source training, and a person")
		}
		if err != nil && len(faults) < 20 {
			faults = append(faults, fmt.Errorf("event %d: %w", i, err))
		}
	}
	if len(faults) > 0 {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_records", "%v", errors.Join(faults...))
	}
	if err := tr.outbox.Add(r.Context(), records.Events, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	left := int64(len(ids))
	for {
		tr.outbox.Kick()
		if n, err := tr.outbox.Undelivered(ctx, ids); err == nil {
			left = n
		}
		if left == 0 {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		select {
		case <-ctx.Done():
			return httpjson.Errorf(http.StatusServiceUnavailable, "scorer_away", "the scorer has not taken %d records yet; they are kept", left).After(5 * time.Second)
		case <-tick.C:
		}
	}
}
