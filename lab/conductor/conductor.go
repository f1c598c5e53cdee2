// Package conductor does what an instructor asks for on the console: it plays exercises step by step, tries calls,
// takes callers off a route and puts them back, rotates identities, resets, and pushes the story of it all to the
// console's feed. One runs in each lab's supervisor.
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

// Controllable is a Lab that can be conducted from the dashboard's console: it also gives and takes identities, and its
// topology can be edited while it runs.
type Controllable interface {
	lab.Lab
	operator.Inside
	lab.Policy
	SeededAt() (int64, error)
	Results() string // the folder for learners' results, which may be yet to be made
	RotateOne(ctx context.Context, workload string) error
	Withdraw(ctx context.Context, workload string) error
	Restore(ctx context.Context, workload string) error
}

// conductor does what is asked for on the console.
type conductor struct {
	stage    Controllable
	op       *operator.Operator
	original *topology.Topology // as the lab came up: what a struck-off caller is restored to
	log      *slog.Logger
	beat     time.Duration   // between two steps of an exercise that nobody steps through
	life     context.Context // Conduct's: what is begun outlives a dashboard that is away, not the conductor

	editing sync.Mutex                // of the topology's file
	before  map[door]topology.Callers // the lists that callers were struck off, as they were
	mu      sync.Mutex
	playing *playback // nil: no exercise is on
	work    sync.WaitGroup
}

// Run does what is asked for on the console of s until ctx ends. Original is the topology that the lab came up with.
// What goes wrong is said in the answer to the order; what keeps the conductor from asking is logged, and tried
// again.
func Run(ctx context.Context, s Controllable, original []byte, log *slog.Logger) {
	topo, err := topology.FromYAML(original)
	if err != nil {
		log.Error("conduct the lab", "error", err.Error())
		return
	}
	c := &conductor{stage: s, original: topo, log: log, beat: 700 * time.Millisecond, life: ctx}
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

// conduct announces what can be done, then fetches orders, until something fails.
func (c *conductor) conduct(ctx context.Context, fresh *bool) error {
	if c.op == nil {
		op, err := operator.Enter(ctx, c.stage)
		if err != nil {
			return err
		}
		c.op = op
	} else if err := c.op.Renew(ctx); err != nil { // the CA may have turned
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
			if err := c.take(ctx, o); err != nil {
				return err
			}
		}
	}
}

// take says that an order is taken, and does it. What steers an exercise is done at once, the rest beside.
func (c *conductor) take(ctx context.Context, o exercise.Order) error {
	err := c.say(ctx, o, exercise.Report{State: exercise.ReportTaken})
	if operator.IsConflict(err) || operator.IsNotFound(err) {
		return nil // somebody else has it
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

// begin does an order in the background, and reports it. What is begun is ended, also when the dashboard is away for a
// moment, but not when the conductor goes.
func (c *conductor) begin(o exercise.Order) {
	c.work.Go(func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(c.life, 30*time.Minute)
		defer cancel()
		res, note, err := c.do(ctx, o)
		if c.life.Err() != nil {
			return // there is nobody to tell any more
		}
		if note == "" && err == nil {
			note = fmt.Sprintf("in %.1f s", time.Since(began).Seconds())
		}
		r := outcomeOf(res, note, err)
		for range 20 { // it matters to whoever waits for it
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

// do does everything but steering; its note is for people.
func (c *conductor) do(ctx context.Context, o exercise.Order) (*exercise.Result, string, error) {
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
		return nil, "", c.stage.Withdraw(ctx, o.Workload)
	case exercise.OrderReturn:
		return nil, "", c.stage.Restore(ctx, o.Workload)
	case exercise.OrderRevoke, exercise.OrderRestore:
		return nil, "", c.edit(o)
	case exercise.OrderStory:
		lines, err := c.story(ctx, o.Event)
		return &exercise.Result{Story: lines}, fmt.Sprintf("%d entries", len(lines)), err
	case exercise.OrderVerify:
		chains, err := auditor.Verify(ctx, c.stage, c.op)
		r := &exercise.Result{Chains: []exercise.ChainState{}}
		n := 0
		for _, x := range chains {
			r.Chains = append(r.Chains, exercise.ChainState{Name: x.Name, Entries: x.Entries, Checkpoints: x.Checkpoints})
			n += x.Entries
		}
		return r, fmt.Sprintf("%d chains, %d entries: none was edited, removed, inserted or moved", len(chains), n), err
	}
	return nil, "", fmt.Errorf("nobody here knows how to %q", o.Kind)
}

// quiet ends the exercise that this conductor plays, if there is one, and returns when it has ended.
func (c *conductor) quiet(ctx context.Context) error {
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
	if err := c.quiet(ctx); err != nil {
		return "", err
	}
	var only []string
	if o.Exercise != "" {
		only = []string{o.Exercise}
	}
	n, err := seed.ResetExercises(ctx, c.op, only, progress.Quiet{})
	return fmt.Sprintf("%d taken away; learners' records stay", n), err
}

func (c *conductor) forget(ctx context.Context) (note string, err error) {
	if err := c.quiet(ctx); err != nil {
		return "", err
	}
	position, err := c.stage.SeededAt()
	if err != nil {
		return "", err
	}
	st, err := c.stage.Status(ctx)
	if err != nil {
		return "", err
	}
	files, err := seed.ForgetLearners(ctx, c.op, st.Spec, position, c.stage.Results(), progress.Quiet{})
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
	if err := c.stage.RotateOne(ctx, workload); err != nil {
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

// facts is a flat JSON object as one line for people; what is none is as it was.
func facts(detail string) string {
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
