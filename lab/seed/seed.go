// Package seed fills a new lab and empties it again.
//
// History delivers the company's roster and thirty days of history, through the simulators and collectors, as in a
// running company. Live has the simulators go on from there. Prove checks that the lab works from end to end.
// ResetExercises removes what exercises created, and ForgetLearners removes what learners did.
package seed

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"golang.org/x/sync/errgroup"

	"example.org/security-training/lab"
	"example.org/security-training/lab/operator"
	"example.org/security-training/lab/progress"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/world"
)

// History gives the lab its company and its past: the roster, the training records, and spec.Days days of events, which
// every simulator delivers as its vendor would. It returns when the scorer has scored all of them, with the position at
// which the scorer's event log then ends. It is safe to repeat: events that have arrived already are not scored again.
func History(
	ctx context.Context,
	o *operator.Operator,
	spec lab.Spec,
	p progress.Reporter,
) (position int64, err error) {
	staff := people.Company(spec.Seed, spec.People, people.Published)
	if err := progress.Counted(ctx, p, "roster", func(ctx context.Context) error {
		return putRoster(ctx, o, people.Roster(staff))
	}); err != nil {
		return 0, err
	}
	var at scorerapi.Progress
	what := fmt.Sprintf("%d days of history, through the collectors", spec.Days)
	err = progress.Counted(ctx, p, what, func(ctx context.Context) error {
		play := world.Play{
			ID:     fmt.Sprintf("history-%d-%d-%d", spec.Seed, spec.People, spec.Days),
			Kind:   world.History,
			Seed:   spec.Seed,
			People: spec.People,
			Days:   spec.Days,
		}
		group, both := errgroup.WithContext(ctx)
		group.Go(func() error {
			events := routine.TrainingEvents(routine.Month(staff, spec.Days))
			return retryUnavailable(
				both,
				func() error { return o.Ask(both, lmsapi.RouteTraining, lmsapi.TrainingRecords{Events: events}, nil) },
			)
		})
		group.Go(func() error { return o.Perform(both, play) })
		if err := group.Wait(); err != nil {
			return err
		}
		if err := o.AwaitScored(ctx); err != nil {
			return err
		}
		return o.Ask(ctx, scorerapi.RouteWatermarks, nil, &at)
	})
	return at.Position, err
}

// rosterPart is how many people one request sends to the scorer. Each request is a change of its own, so that progress
// can be shown.
const rosterPart = 250

// putRoster sends the company's people to the scorer. A person who is there already is replaced.
func putRoster(ctx context.Context, o *operator.Operator, roster []risk.Person) error {
	done := 0
	for part := range slices.Chunk(roster, rosterPart) {
		progress.Count(ctx, done, len(roster), "people")
		if err := o.Ask(ctx, scorerapi.RoutePutPeople, part, nil); err != nil {
			return err
		}
		done += len(part)
	}
	progress.Count(ctx, done, len(roster), "people")
	return nil
}

// Live starts ordinary days, at the lab's pace, in every simulator that is not running them already.
func Live(ctx context.Context, o *operator.Operator, spec lab.Spec) error {
	play := world.Play{ID: "live", Kind: world.Live, Seed: spec.Seed, People: spec.People}
	return o.EachSimulator(ctx, func(ctx context.Context, name string) error {
		err := o.Call(ctx, name, http.MethodPost, world.RoutePlays.Path(), play, nil)
		if operator.IsConflict(err) {
			return nil // it is running already
		}
		return err
	})
}
