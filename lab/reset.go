package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"example.org/security-training/lab/progress"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/scenario"
)

const routeReset topology.Route = "POST /v1/reset"

// resetOrders are the bodies of POST /v1/reset, by the kind of who serves it.
type resetOrders map[string]any

// What the scorer, and what the learning system is told to forget.
type (
	scorerOrder struct {
		After  *int64   `json:"after,omitempty"`
		People []string `json:"people,omitempty"`
	}
	dashboardOrder struct {
		All       bool     `json:"all,omitempty"`
		Exercises []string `json:"exercises,omitempty"`
		People    []string `json:"people,omitempty"`
	}
)

// give gives the learning system its order, then the scorer: what the one has yet to report must not reach the other afterwards.
func (orders resetOrders) give(ctx context.Context, o *Operator) error {
	for _, kind := range []string{topology.KindDashboard, topology.KindScorer} {
		for _, w := range o.Node.Topology().Serving(routeReset) {
			if order, ok := orders[w.Kind]; ok && w.Kind == kind {
				if err := o.Call(ctx, w.Name, http.MethodPost, routeReset.Path(), order, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Reset goes back to the seeded state: what came after position is forgotten, plays that are on are stopped, the company's
// ordinary life goes on. The audit and the lab's clock never go back.
func Reset(ctx context.Context, o *Operator, spec Spec, position int64, p progress.Reporter) error {
	return progress.Step(p, "back to the seeded state", func() error {
		if err := o.eachSimulator(ctx, func(ctx context.Context, name string) error {
			err := o.Call(ctx, name, http.MethodDelete, routePlays.Path()+"/live", nil, nil)
			if err != nil && !isNotFound(err) {
				return err
			}
			return nil
		}); err != nil {
			return err
		}
		if err := o.AwaitScored(ctx); err != nil {
			return err
		}
		orders := resetOrders{topology.KindDashboard: dashboardOrder{All: true}, topology.KindScorer: scorerOrder{After: &position}}
		if err := orders.give(ctx, o); err != nil {
			return err
		}
		return Live(ctx, o, spec)
	})
}

// ResetScenario takes away what every play of one scenario left, by its name or file: the exercises, their casts, and what those did, scored
// and learnt. All else stays as it is. A scenario that is on, or whose cast is of the company, is a conflict: what the company's own people
// did in it cannot be told from their lives.
func ResetScenario(ctx context.Context, o *Operator, spec Spec, name string, p progress.Reporter) error {
	s, err := loadScenario(name)
	if err != nil {
		return err
	}
	for who, m := range s.Cast {
		if m.From != "" {
			return &Error{Code: ExitConflict, What: "reset " + s.Name, Why: fmt.Errorf("%s is played by somebody of the company", who), Try: "lab reset"}
		}
	}
	return progress.Step(p, "take away what "+s.Name+" left", func() error {
		var all []exercise.Exercise
		if err := o.Ask(ctx, "GET /v1/exercises", nil, &all); err != nil {
			return err
		}
		company := people.Roster(people.Company(spec.Seed, spec.People, people.Published))
		var exercises, casts []string
		for _, e := range all {
			if !playOf(s, e.ID) {
				continue
			}
			if e.State.On() {
				return &Error{Code: ExitConflict, What: "reset " + s.Name, Why: errors.New("it is being played"), Try: "stop it on the console, or lab reset"}
			}
			players, err := s.Players(e.ID, company)
			if err != nil {
				return err
			}
			exercises = append(exercises, e.ID)
			for _, p := range s.Fresh(players) {
				casts = append(casts, p.ID)
			}
		}
		if err := o.AwaitScored(ctx); err != nil {
			return err
		}
		orders := resetOrders{}
		if len(exercises) > 0 {
			orders[topology.KindDashboard] = dashboardOrder{Exercises: exercises, People: casts}
		}
		if len(casts) > 0 {
			orders[topology.KindScorer] = scorerOrder{People: casts}
		}
		return orders.give(ctx, o)
	})
}

// run names a play of a scenario that begins at a time in milliseconds; playOf says whether an exercise is one.
func run(s *scenario.Scenario, millis int64) string {
	return s.Name + "-" + strconv.FormatInt(millis, 36)
}

func playOf(s *scenario.Scenario, id string) bool {
	rest, ok := strings.CutPrefix(id, s.Name+"-")
	millis, err := strconv.ParseInt(rest, 36, 64)
	return ok && err == nil && run(s, millis) == id
}
