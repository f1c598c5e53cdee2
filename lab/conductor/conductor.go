// Package conductor carries out the orders of an instructor at the console. It plays exercises step by step, tries
// calls, removes callers from a route's list and puts them back, rotates identities, resets the lab, and pushes events
// to the console's feed. Each lab's supervisor runs one conductor.
package conductor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/auditor"
	"example.org/security-training/lab/operator"
	"example.org/security-training/lab/progress"
	"example.org/security-training/lab/seed"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/topology"
	"example.org/security-training/services/wait"
)

// Controllable is a Lab that a conductor can control: it can also withdraw and restore identities, and its topology can
// be edited while it runs.
type Controllable interface {
	lab.Lab
	operator.Inside
	lab.Policy
	SeededAt() (int64, error)
	Results() string // the folder for learners' results; it may not exist yet
	RotateOne(ctx context.Context, workload string) error
	Withdraw(ctx context.Context, workload string) error
	Restore(ctx context.Context, workload string) error
}

// conductor carries out the orders of one lab's console.
type conductor struct {
	target    Controllable
	op        *operator.Operator
	original  *topology.Topology // as the lab came up; puts back callers that were removed
	log       *slog.Logger
	stepPause time.Duration   // between two steps of an exercise that runs by itself
	running   context.Context // Run's: an exercise goes on if the dashboard does not answer, but ends with the conductor

	editing sync.Mutex                    // guards the topology's file
	before  map[endpoint]topology.Callers // the lists from which callers were removed, as they were
	mu      sync.Mutex
	playing *playback // nil: no exercise is being played
	work    sync.WaitGroup
}

// Run carries out the orders of the console of s until ctx ends. Original is the topology with which the lab came up.
// The error of an order is part of the answer to it. Errors that keep the conductor from fetching orders are logged,
// and it tries again.
func Run(ctx context.Context, s Controllable, original []byte, log *slog.Logger) {
	topo, err := topology.FromYAML(original)
	if err != nil {
		log.Error("conduct the lab", "error", err.Error())
		return
	}
	c := &conductor{target: s, original: topo, log: log, stepPause: 700 * time.Millisecond, running: ctx}
	defer c.work.Wait()
	fresh := true
	for ctx.Err() == nil {
		if err := c.conduct(ctx, &fresh); err != nil && ctx.Err() == nil {
			log.Debug("conduct the lab", "error", err.Error())
		}
		if wait.For(ctx, 500*time.Millisecond) != nil {
			return
		}
	}
}

// conduct announces what the console can offer, and then fetches orders until an error occurs.
func (c *conductor) conduct(ctx context.Context, fresh *bool) error {
	if c.op == nil {
		op, err := operator.Enter(ctx, c.target)
		if err != nil {
			return err
		}
		c.op = op
	} else if err := c.op.Renew(ctx); err != nil { // the CA may have been rotated
		return err
	}
	told, err := announce(*fresh)
	if err != nil {
		return err
	}
	if err := c.op.Ask(ctx, lmsapi.RoutePutScenarios, told, nil); err != nil {
		return err
	}
	*fresh = false
	dashboard, err := c.op.Serving(lmsapi.RouteOrders)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := false
	unwatch := func() {}
	defer func() { unwatch() }()
	for {
		var got exercise.Orders
		path := lmsapi.RouteOrders.Path() + "?wait=20s"
		if watched {
			path += "&watched=true"
		}
		if err := c.op.Call(ctx, dashboard, http.MethodGet, path, nil, &got); err != nil {
			return err
		}
		if got.Watched && !watched {
			watching, stop := context.WithCancel(ctx)
			unwatch = stop
			go c.pushFeed(watching)
		} else if !got.Watched {
			unwatch()
		}
		watched = got.Watched
		for _, o := range got.Orders {
			if err := c.accept(ctx, o); err != nil {
				return err
			}
		}
	}
}

// accept confirms an order and carries it out. Orders that steer the current exercise are done at once, all others in
// the background.
func (c *conductor) accept(ctx context.Context, o exercise.Order) error {
	err := c.say(ctx, o, exercise.Report{State: exercise.ReportTaken})
	if operator.IsConflict(err) || operator.IsNotFound(err) {
		return nil // another conductor has it
	}
	if err != nil {
		return err
	}
	switch o.Kind {
	case exercise.OrderStep, exercise.OrderPause, exercise.OrderResume, exercise.OrderStop:
		return c.say(ctx, o, outcomeOf(nil, "", c.steer(o.Kind)))
	}
	c.begin(o)
	return nil
}

// begin carries out an order in the background and reports the result. The order goes on if the dashboard does not
// answer for a while, but ends with the conductor.
func (c *conductor) begin(o exercise.Order) {
	c.work.Go(func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(c.running, 30*time.Minute)
		defer cancel()
		res, note, err := c.carryOut(ctx, o)
		if c.running.Err() != nil {
			return // the conductor ends, so the result cannot be reported
		}
		if note == "" && err == nil {
			note = fmt.Sprintf("in %.1f s", time.Since(began).Seconds())
		}
		r := outcomeOf(res, note, err)
		for range 20 { // the instructor waits for the result
			err := c.say(ctx, o, r)
			if err == nil || operator.IsConflict(err) || operator.IsNotFound(err) {
				return
			}
			if wait.For(ctx, 500*time.Millisecond) != nil {
				return
			}
		}
		c.log.Warn("report an order", "order", o.Number, "kind", o.Kind)
	})
}

func outcomeOf(res *exercise.Result, note string, err error) exercise.Report {
	if err != nil {
		return exercise.Report{State: exercise.ReportFailed, Note: err.Error(), Result: res}
	}
	return exercise.Report{State: exercise.ReportDone, Note: note, Result: res}
}

func (c *conductor) say(ctx context.Context, o exercise.Order, r exercise.Report) error {
	name, err := c.op.Serving(lmsapi.RouteReportOrder)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.op.Call(
		ctx,
		name,
		lmsapi.RouteReportOrder.Method(),
		lmsapi.RouteReportOrder.For(fmt.Sprint(o.Number)),
		r,
		nil,
	)
}

// carryOut carries out an order that is not about steering. The note that it returns is for people.
func (c *conductor) carryOut(ctx context.Context, o exercise.Order) (*exercise.Result, string, error) {
	switch o.Kind {
	case exercise.OrderPlay:
		return nil, "", c.play(ctx, o)
	case exercise.OrderReset:
		note, err := c.reset(ctx, o)
		return nil, note, err
	case exercise.OrderForget:
		note, err := c.forget(ctx)
		return nil, note, err
	case exercise.OrderTry:
		t, err := c.try(ctx, o)
		if err != nil {
			return nil, "", err
		}
		return &exercise.Result{Tried: t}, fmt.Sprintf("%s, as expected of %s", t.Measured, t.Expected), differs(t)
	case exercise.OrderRotate:
		note, err := c.rotate(ctx, o.Workload)
		return nil, note, err
	case exercise.OrderWithdraw:
		return nil, "", c.target.Withdraw(ctx, o.Workload)
	case exercise.OrderReturn:
		return nil, "", c.target.Restore(ctx, o.Workload)
	case exercise.OrderRevoke, exercise.OrderRestore:
		return nil, "", c.edit(o)
	case exercise.OrderStory:
		lines, err := c.story(ctx, o.Event)
		return &exercise.Result{Story: lines}, fmt.Sprintf("%d entries", len(lines)), err
	case exercise.OrderVerify:
		chains, err := auditor.Verify(ctx, c.target, c.op)
		r := &exercise.Result{Chains: []exercise.ChainState{}}
		n := 0
		for _, x := range chains {
			r.Chains = append(r.Chains, exercise.ChainState{Name: x.Name, Entries: x.Entries, Checkpoints: x.Checkpoints})
			n += x.Entries
		}
		return r, fmt.Sprintf("%d chains, %d entries: none was edited, removed, inserted or moved", len(chains), n), err
	}
	return nil, "", fmt.Errorf("there is no order %q", o.Kind)
}

// stopExercise ends the exercise that this conductor plays, if there is one, and waits for its end.
func (c *conductor) stopExercise(ctx context.Context) error {
	c.mu.Lock()
	p := c.playing
	c.mu.Unlock()
	if p == nil {
		return nil
	}
	p.cancel(errStopped)
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *conductor) reset(ctx context.Context, o exercise.Order) (note string, err error) {
	if err := c.stopExercise(ctx); err != nil {
		return "", err
	}
	var only []string
	if o.Exercise != "" {
		only = []string{o.Exercise}
	}
	n, err := seed.ResetExercises(ctx, c.op, only, progress.Quiet{})
	return fmt.Sprintf("%d removed; learners' records stay", n), err
}

func (c *conductor) forget(ctx context.Context) (note string, err error) {
	if err := c.stopExercise(ctx); err != nil {
		return "", err
	}
	position, err := c.target.SeededAt()
	if err != nil {
		return "", err
	}
	st, err := c.target.Status(ctx)
	if err != nil {
		return "", err
	}
	files, err := seed.ForgetLearners(ctx, c.op, st.Spec, position, c.target.Results(), progress.Quiet{})
	if len(files) > 0 {
		note = "the results are in " + strings.Join(files, " and ") + ": copy them, `lab down` removes them"
	}
	if err != nil && note != "" {
		err = fmt.Errorf("%w (%s)", err, note)
	}
	return note, err
}

func (c *conductor) rotate(ctx context.Context, workload string) (string, error) {
	before, err := c.serial(ctx, workload)
	if err != nil {
		return "", err
	}
	if err := c.target.RotateOne(ctx, workload); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		now, err := c.serial(ctx, workload)
		if err != nil {
			return "", err
		}
		if now != before && now != "" {
			return "the serial number is " + now + " now", nil
		}
		if wait.For(ctx, 20*time.Millisecond) != nil {
			return "", fmt.Errorf("%s did not fetch its new identity", workload)
		}
	}
}

// oneLine writes a flat JSON object as one line for people. Any other text is returned as it is.
func oneLine(detail string) string {
	var flat map[string]json.RawMessage
	if json.Unmarshal([]byte(detail), &flat) != nil {
		return detail
	}
	var parts []string
	for _, k := range lab.SortedKeys(flat) {
		parts = append(parts, k+" "+strings.Trim(string(flat[k]), `"`))
	}
	return strings.Join(slices.Compact(parts), ", ")
}
