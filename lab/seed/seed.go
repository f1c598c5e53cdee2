// Package seed brings a new lab to the state that its users expect: a roster, a history that has come in through the
// collectors, and a proof that a page is served and an event is scored. It also takes back what exercises left behind.
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

// History gives the lab its company and its history: the roster, the training records, and thirty days (or as many as
// spec says) that every simulator delivers as its vendor would. It returns when all of it has been scored. It may be
// repeated: what has arrived already is known. It returns the position of the scorer's event log after it.
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
			return whileAway(
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

// rosterPart is how many people are put at once: each part is a change of its own, and says how far the roster is.
const rosterPart = 250

// putRoster gives the scorer the company. A person who is there already is replaced by the same.
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

// Live has every simulator go on with ordinary days, at the lab's pace, if it does not do so already.
func Live(ctx context.Context, o *operator.Operator, spec lab.Spec) error {
	play := world.Play{ID: "live", Kind: world.Live, Seed: spec.Seed, People: spec.People}
	return o.EachSimulator(ctx, func(ctx context.Context, name string) error {
		err := o.Call(ctx, name, http.MethodPost, world.RoutePlays.Path(), play, nil)
		if operator.IsConflict(err) {
			return nil // a play of that id is on
		}
		return err
	})
}
