package seed

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"example.org/security-training/lab"
	"example.org/security-training/lab/operator"
	"example.org/security-training/lab/play"
	"example.org/security-training/lab/progress"
	"example.org/security-training/lab/scenarios"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/scenario"
)

// resetOrders are the bodies of POST /v1/reset, by the kind of workload that gets them.
type resetOrders map[string]any

// give sends the order to the learning system first, and then to the scorer. Otherwise the learning system could still
// report something to a scorer that has already been reset.
func (orders resetOrders) give(ctx context.Context, o *operator.Operator) error {
	for _, kind := range []string{topology.KindDashboard, topology.KindScorer} {
		for _, w := range o.Node.Topology().Serving(exercise.RouteReset) {
			if order, ok := orders[w.Kind]; ok && w.Kind == kind {
				if err := o.Call(ctx, w.Name, http.MethodPost, exercise.RouteReset.Path(), order, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// ResetExercises removes exercises: those whose ids are in only, or all of them if only is nil. It also removes the
// people who were made for an exercise, and everything that they did, scored and learnt. It returns the number of
// exercises that it removed.
//
// Learners' records stay, and so does everything that people of the company did in an exercise. The audit chains and
// the lab's clock are not changed.
func ResetExercises(ctx context.Context, o *operator.Operator, only []string, p progress.Reporter) (n int, err error) {
	err = progress.Step(p, "remove exercises", func() error {
		for {
			var all []exercise.Exercise // the dashboard lists the latest few hundred
			if err := o.Ask(ctx, lmsapi.RouteExercises, nil, &all); err != nil {
				return err
			}
			if only != nil {
				all = slices.DeleteFunc(all, func(e exercise.Exercise) bool { return !slices.Contains(only, e.ID) })
			}
			if len(all) == 0 {
				return nil
			}
			if err := removeExercises(ctx, o, all); err != nil {
				return err
			}
			n += len(all)
		}
	})
	return n, err
}

// removeExercises removes exercises and the people who were made for them.
func removeExercises(ctx context.Context, o *operator.Operator, all []exercise.Exercise) error {
	var ids, casts []string
	for _, e := range all {
		cast, err := castOf(e)
		if err != nil {
			return err
		}
		ids, casts = append(ids, e.ID), append(casts, cast...)
	}
	if err := o.AwaitScored(ctx); err != nil {
		return err
	}
	orders := resetOrders{}
	if len(ids) > 0 {
		orders[topology.KindDashboard] = lmsapi.ResetOrder{Exercises: ids, People: casts}
	}
	if len(casts) > 0 {
		orders[topology.KindScorer] = scorerapi.ResetOrder{People: casts}
	}
	return orders.give(ctx, o)
}

// castOf returns the ids of the people who were made for an exercise. An older exercise does not list them; then they
// are computed from its scenario.
func castOf(e exercise.Exercise) ([]string, error) {
	if len(e.Cast) > 0 {
		return e.Cast, nil
	}
	for _, name := range scenarios.Names() {
		s, err := scenarios.Load(name)
		if err != nil {
			return nil, err
		}
		if play.IsRunOf(s, e.ID) {
			return freshOf(s, e.ID), nil
		}
	}
	return nil, nil
}

// freshOf returns the ids of the people whom a scenario makes for a run.
func freshOf(s *scenario.Scenario, run string) []string {
	own := *s
	own.Cast = map[string]scenario.Member{}
	for who, m := range s.Cast {
		if m.From == "" {
			own.Cast[who] = m
		}
	}
	players, err := own.Players(run, nil) // nil: no member of this cast comes from the company
	if err != nil {
		return nil
	}
	var ids []string
	for _, p := range own.Fresh(players) {
		ids = append(ids, p.ID)
	}
	return ids
}

// ResetScenario is ResetExercises for every run of one scenario, which is given by its name or file. It returns a
// conflict if the scenario is being played, or if its cast comes from the company: what those people did in the
// exercise cannot be separated from what they did otherwise.
func ResetScenario(ctx context.Context, o *operator.Operator, name string, p progress.Reporter) error {
	s, err := play.LoadScenario("reset", name, scenarios.PlaceOf(o.Node.Topology()))
	if err != nil {
		return err
	}
	for who, m := range s.Cast {
		if m.From != "" {
			why := fmt.Errorf("%s is played by a person of the company", who)
			return &lab.Error{Code: lab.ExitConflict, What: "reset " + s.Name, Why: why, Try: "lab reset"}
		}
	}
	return progress.Step(p, "take away what "+s.Name+" left", func() error {
		for {
			var all []exercise.Exercise
			if err := o.Ask(ctx, lmsapi.RouteExercises, nil, &all); err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(e exercise.Exercise) bool { return !play.IsRunOf(s, e.ID) })
			for i, e := range all {
				if e.State.On() {
					why, way := errors.New("it is being played"), "stop it on the console, or lab reset"
					return &lab.Error{Code: lab.ExitConflict, What: "reset " + s.Name, Why: why, Try: way}
				}
				if len(e.Cast) == 0 {
					all[i].Cast = freshOf(s, e.ID)
				}
			}
			if len(all) == 0 {
				return o.AwaitScored(ctx)
			}
			if err := removeExercises(ctx, o, all); err != nil {
				return err
			}
		}
	})
}
