package seed

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/operator"
	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/wait"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/world"
)

// proveWithin is how long Prove tries. After the history of a large company, the dashboard answers 503 until it has
// computed its first figures.
const proveWithin = 3 * time.Minute

// Prove checks the lab from end to end. An act of one person goes through a simulator, a collector and the scorer, and
// then the dashboard serves a page to a person who signed in. Prove repeats a step that fails until proveWithin has
// passed; then it returns the step's last error.
func Prove(ctx context.Context, o *operator.Operator, dashboard string, spec lab.Spec) error {
	ctx, cancel := context.WithTimeout(ctx, proveWithin)
	defer cancel()
	if err := retry(ctx, func() error { return proveEvent(ctx, o, spec) }); err != nil {
		return err
	}
	return retry(ctx, func() error {
		link, err := o.Link(ctx, dashboard, "")
		if err != nil {
			return err
		}
		return visit(ctx, link)
	})
}

// unavailableAtMost is how long History keeps trying while a workload answers 503. The scorer takes minutes to take in
// the history of a large company.
const unavailableAtMost = 10 * time.Minute

// retryUnavailable calls do until its error is not a 503, or until ctx ends or unavailableAtMost has passed. It must be
// safe to call do again.
func retryUnavailable(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, unavailableAtMost)
	defer cancel()
	for {
		err := do()
		if err == nil || httpjson.FromError(err).Status != http.StatusServiceUnavailable ||
			wait.For(ctx, time.Second) != nil {
			return err
		}
	}
}

// retry calls do until it succeeds or ctx ends. Then it returns the last error of do.
func retry(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || wait.For(ctx, 250*time.Millisecond) != nil {
			return err
		}
	}
}

func proveEvent(ctx context.Context, o *operator.Operator, spec lab.Spec) error {
	clock, err := o.Clock(ctx)
	if err != nil {
		return err
	}
	staff := people.Company(spec.Seed, spec.People, people.Published)
	run := fmt.Sprintf("probe-%d", time.Now().UnixNano())
	act := routine.Act{
		ID:         run,
		At:         clock.Now,
		Person:     staff[0].ID,
		Source:     activity.Git,
		Verb:       activity.Commit,
		Repository: "lab",
		Path:       "README.md",
		Detail:     "probe",
	}
	var before, after scorerapi.Progress
	if err := o.Ask(ctx, scorerapi.RouteWatermarks, nil, &before); err != nil {
		return err
	}
	probe := world.Play{ID: run, Kind: world.Timeline, Seed: spec.Seed, People: spec.People, Acts: []routine.Act{act}}
	if err := o.Perform(ctx, probe); err != nil {
		return fmt.Errorf("a probe event: %w", err)
	}
	if err := o.AwaitScored(ctx); err != nil {
		return fmt.Errorf("a probe event: %w", err)
	}
	if err := o.Ask(ctx, scorerapi.RouteWatermarks, nil, &after); err != nil {
		return err
	}
	if after.Events <= before.Events {
		return errors.New("a probe event: it was acknowledged, but the scorer has no more events than before")
	}
	return nil
}
