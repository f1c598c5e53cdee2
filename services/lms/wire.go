package lms

import (
	"io"
	"net/http"

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

var _ io.Writer = (*site.NDJSONWriter)(nil)
