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

// PutTraining is PUT /v1/training: it imports training records and answers 204 when the risk scorer has all of them.
// Records with a known id are skipped. 422 lists the faults, at most 20; 503 if the risk scorer does not accept the
// records in time: they are stored and delivered later.
func (tr *Training) PutTraining(w http.ResponseWriter, r *http.Request) error {
	var records lmsapi.TrainingRecords
	if err := httpjson.Read(w, r, 32<<20, &records); err != nil {
		return err
	}
	if err := checkRecords(records.Events); err != nil {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_records", "%v", err)
	}
	if err := tr.outbox.Add(r.Context(), records.Events, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	ids := make([]string, len(records.Events))
	for i, e := range records.Events {
		ids[i] = e.ID
	}
	if err := tr.awaitDelivery(r.Context(), ids); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// checkRecords lists the faults of imported records, at most 20.
func checkRecords(events []activity.Event) error {
	var faults []error
	for i, e := range events {
		err := e.Validate()
		if err == nil && (e.Source != activity.Training || e.Person == "") {
			err = errors.New("want source training and a person")
		}
		if err != nil && len(faults) < 20 {
			faults = append(faults, fmt.Errorf("event %d: %w", i, err))
		}
	}
	return errors.Join(faults...)
}

// awaitDelivery waits until the risk scorer has the events; 503 if it does not accept them within half a minute.
func (tr *Training) awaitDelivery(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
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
			return nil
		}
		select {
		case <-ctx.Done():
			return httpjson.Errorf(http.StatusServiceUnavailable, "scorer_away",
				"the risk scorer has not accepted %d records yet; they are stored and delivered later", left).
				After(5 * time.Second)
		case <-tick.C:
		}
	}
}
