package operator

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/security-training/lab"
	"example.org/security-training/lab/progress"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
	"example.org/security-training/services/wait"
	"example.org/security-training/synth/world"
)

// EachSimulator calls f with the name of each simulator, all at the same time. It returns the first error.
func (o *Operator) EachSimulator(ctx context.Context, f func(ctx context.Context, name string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, w := range o.Node.Topology().OfKind(topology.KindSimulator) {
		group.Go(func() error { return f(ctx, w.Name) })
	}
	return group.Wait()
}

// Perform sends play to every simulator. It returns when the collectors have acknowledged everything. It shows the
// progress of a step: how many records of those issued were delivered.
func (o *Operator) Perform(ctx context.Context, play world.Play) error {
	var delivered tally
	return o.EachSimulator(ctx, func(ctx context.Context, name string) error {
		if err := o.Call(ctx, name, http.MethodPost, world.RoutePlays.Path(), play, nil); err != nil && !IsConflict(err) {
			return err
		}
		for {
			var st world.Status
			if err := o.Call(ctx, name, http.MethodGet, world.RoutePlay.For(play.ID), nil, &st); err != nil {
				return err
			}
			delivered.count(ctx, name, st.Delivered, st.Issued, "delivered")
			switch st.State {
			case world.Done:
				return nil
			case world.Failed, world.Stopped:
				return fmt.Errorf("play %s of %s %s: %s", play.ID, name, st.State, st.Error)
			}
			if err := wait.For(ctx, 20*time.Millisecond); err != nil {
				return fmt.Errorf("play %s of %s: %d of %d delivered: %w", play.ID, name, st.Delivered, st.Issued, err)
			}
		}
	})
}

// tally adds up the progress of several simulators.
type tally struct {
	mu sync.Mutex
	of map[string][2]int
}

// count sets the progress of one simulator, and shows the sum in the current step.
func (t *tally) count(ctx context.Context, name string, done, all int, word string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[string][2]int{}
	}
	t.of[name] = [2]int{done, all}
	done, all = 0, 0
	for _, one := range t.of {
		done, all = done+one[0], all+one[1]
	}
	progress.Count(ctx, done, all, word)
}

// stillAfter is how long the scorer may make no progress before AwaitScored returns a time-out.
const stillAfter = time.Minute

// AwaitScored waits until the scorer has processed everything that the collectors had acknowledged when it was called,
// according to the scorer's watermarks. It does not wait for what arrives later. If the scorer makes no progress for a
// minute, the error is a time-out. It shows the progress of a step.
func (o *Operator) AwaitScored(ctx context.Context) error {
	var scored tally
	targets, marks := map[string]uint64{}, map[string]uint64{}
	still := time.NewTimer(stillAfter)
	defer still.Stop()
	for {
		var behind []string
		for _, w := range o.Node.Topology().OfKind(topology.KindCollector) {
			target, known := targets[w.Name]
			if known && marks[w.Name] >= target {
				continue
			}
			var s collectorapi.Spool
			if err := o.Call(ctx, w.Name, http.MethodGet, collectorapi.RouteSpool.Path(), nil, &s); err != nil {
				return err
			}
			if !known {
				target, targets[w.Name] = s.Seq, s.Seq
			}
			if !known || s.Watermark > marks[w.Name] {
				marks[w.Name] = s.Watermark
				still.Reset(stillAfter)
			}
			scored.count(ctx, w.Name, int(min(s.Watermark, target)), int(target), "scored")
			if s.Watermark < target {
				behind = append(behind, fmt.Sprintf("%s at %d of %d", w.Name, s.Watermark, target))
			}
		}
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the scorer: %s: %w", strings.Join(behind, ", "), context.Cause(ctx))
		case <-still.C:
			return &lab.Error{
				Code: lab.ExitTimeout,
				What: "wait for the scorer",
				Why:  fmt.Errorf("nothing was processed for %s: %s", stillAfter, strings.Join(behind, ", ")),
				Try:  "lab logs " + o.scorer(),
			}
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// scorer is the name of the workload that scores.
func (o *Operator) scorer() string { return o.Node.Topology().OfKind(topology.KindScorer)[0].Name }

// Counts returns how many events were scored, and how many are waiting.
func (o *Operator) Counts(ctx context.Context) (*lab.Counts, error) {
	var w scorerapi.Progress
	if err := o.Ask(ctx, scorerapi.RouteWatermarks, nil, &w); err != nil {
		return nil, err
	}
	clock, err := o.Clock(ctx)
	if err != nil {
		return nil, err
	}
	c := &lab.Counts{
		Events:      w.Events,
		DeadLetters: w.DeadLetters,
		Lag:         map[string]uint64{},
		GivenUp:     map[string]map[string]uint64{},
		Clock:       clock.Now,
	}
	for _, row := range o.Node.Topology().OfKind(topology.KindCollector) {
		var s collectorapi.Spool
		if err := o.Call(ctx, row.Name, http.MethodGet, collectorapi.RouteSpool.Path(), nil, &s); err != nil {
			return nil, err
		}
		c.Lag[row.Name] = s.Spooled
		if len(s.GivenUp) > 0 {
			c.GivenUp[row.Name] = s.GivenUp
		}
	}
	return c, nil
}

// Clock returns the lab's time.
func (o *Operator) Clock(ctx context.Context) (risk.Clock, error) {
	var c risk.Clock
	return c, o.Ask(ctx, scorerapi.RouteClock, nil, &c)
}

// SetPace sets how many seconds of the lab's time pass in one second.
func (o *Operator) SetPace(ctx context.Context, pace float64) error {
	return o.Ask(ctx, scorerapi.RoutePutClock, scorerapi.ClockChange{Pace: pace}, nil)
}

// Forward moves the lab's time to t. It is no error if t has passed already.
func (o *Operator) Forward(ctx context.Context, t time.Time) error {
	err := o.Ask(ctx, scorerapi.RoutePutClock, scorerapi.ClockChange{Now: t}, nil)
	if IsConflict(err) {
		return nil
	}
	return err
}

// FindPeople is the command that lists people, for error texts.
const FindPeople = "lab people"

// People returns the roster with everyone's score, the highest first.
func People(ctx context.Context, o *Operator) ([]risk.Standing, error) {
	var roster []risk.Standing
	if err := o.Ask(ctx, scorerapi.RoutePeople, nil, &roster); err != nil {
		return nil, fmt.Errorf("ask who there is: %w", err)
	}
	return roster, nil
}

// Link makes a one-time sign-in link for person, or for the instructor if person is empty.
func (o *Operator) Link(ctx context.Context, dashboard, person string) (string, error) {
	req := lmsapi.LinkOrder{Person: person}
	if person == "" {
		req.Role = "instructor"
	}
	return o.link(ctx, dashboard, req)
}

// LinkAs makes a one-time sign-in link for a role that belongs to no person: instructor or admin.
func (o *Operator) LinkAs(ctx context.Context, dashboard, role string) (string, error) {
	return o.link(ctx, dashboard, lmsapi.LinkOrder{Role: role})
}

func (o *Operator) link(ctx context.Context, dashboard string, req lmsapi.LinkOrder) (string, error) {
	var l lmsapi.Link
	if err := o.Ask(ctx, lmsapi.RouteLinks, req, &l); IsNotFound(err) {
		return "", &lab.Error{Code: lab.ExitUsage, What: "make a sign-in link", Why: err, Try: FindPeople}
	} else if err != nil {
		return "", fmt.Errorf("make a sign-in link: %w", err)
	}
	return dashboard + l.Path, nil
}
