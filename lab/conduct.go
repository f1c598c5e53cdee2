package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/security-training/lab/progress"
	"example.org/security-training/lab/scenarios"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

// Stage is a Lab that can be conducted from the dashboard's console: it also gives and takes identities, and its topology can
// be edited while it runs.
type Stage interface {
	Lab
	Inside
	Policy
	SeededAt() (int64, error)
	Results() string // the folder for learners' results, which may be yet to be made
	RotateOne(ctx context.Context, workload string) error
	Withdraw(ctx context.Context, workload string) error
	Restore(ctx context.Context, workload string) error
}

// Routes of the console. Whoever serves them does not know what a lab is: it keeps what an instructor asks for, and hands it
// to whoever comes as one.
const (
	routeOrders    topology.Route = "GET /v1/orders"
	routeOrder     topology.Route = "POST /v1/orders/{order}"
	routeScenarios topology.Route = "PUT /v1/scenarios"
	routeFeed      topology.Route = "POST /v1/feed"
)

// conductor does what is asked for on the console.
type conductor struct {
	stage    Stage
	op       *Operator
	original *topology.Topology // as the lab came up: what a struck-off caller is restored to
	log      *slog.Logger
	beat     time.Duration   // between two steps of an exercise that nobody steps through
	life     context.Context // Conduct's: what is begun outlives a dashboard that is away, not the conductor

	editing sync.Mutex                // of the topology's file
	before  map[door]topology.Callers // the lists that callers were struck off, as they were
	mu      sync.Mutex
	playing *performance // nil: no exercise is on
	work    sync.WaitGroup
}

// performance is an exercise that is on.
type performance struct {
	cancel  context.CancelCauseFunc
	done    chan struct{}
	mu      sync.Mutex
	held    bool // before the next step
	steps   int  // that may happen all the same
	changed chan struct{}
}

var errStopped = errors.New("stopped from the console")

// Conduct does what is asked for on the console of s until ctx ends. Original is the topology that the lab came up with.
// What goes wrong is said in the answer to whoever asked; what keeps the conductor from asking is logged, and tried again.
func Conduct(ctx context.Context, s Stage, original []byte, log *slog.Logger) {
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
		if pause(ctx, 500*time.Millisecond) != nil {
			return
		}
	}
}

// conduct announces what can be done, then fetches orders, until something fails.
func (c *conductor) conduct(ctx context.Context, fresh *bool) error {
	if c.op == nil {
		op, err := Enter(ctx, c.stage)
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
	if err := c.op.Ask(ctx, routeScenarios, told, nil); err != nil {
		return err
	}
	*fresh = false
	dashboard, err := c.op.Serving(routeOrders)
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
		path := routeOrders.Path() + "?wait=20s"
		if watched {
			path += "&watched=true"
		}
		if err := c.op.Call(ctx, dashboard, http.MethodGet, path, nil, &got); err != nil {
			return err
		}
		if got.Watched && !watched {
			watching, stop := context.WithCancel(ctx)
			unwatch = stop
			go c.tell(watching)
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

func announce(fresh bool) (exercise.Scenarios, error) {
	told := exercise.Scenarios{Fresh: fresh, Scenarios: []exercise.Scenario{}}
	for _, name := range scenarios.Names() {
		s, err := scenarios.Load(name)
		if err != nil {
			return told, err
		}
		a := exercise.Scenario{
			Name: s.Name, Title: s.Title, Brief: strings.TrimSpace(s.Brief), Difficulty: s.Difficulty, Minutes: s.Minutes, Attack: s.Attack,
			Steps: len(s.Timeline) + len(s.Expect), Debrief: strings.TrimSpace(s.Debrief), Hints: []exercise.Hint{},
		}
		if a.Attack == nil {
			a.Attack = []string{}
		}
		for _, h := range s.Hints {
			a.Hints = append(a.Hints, exercise.Hint{Cost: h.Cost, Text: h.Text})
		}
		told.Scenarios = append(told.Scenarios, a)
	}
	what := map[string]string{
		Nobody: "no certificate", Stranger: "a genuine identity that no list names", Foreign: "a genuine identity of another domain",
		Forged: "the right name, signed by somebody else", Ended: "the right identity, too late", Clear: "no TLS", OldTLS: "TLS 1.2",
	}
	for _, s := range Strangers {
		told.Strangers = append(told.Strangers, exercise.Stranger{Name: s.Name, What: what[s.Name]})
	}
	return told, nil
}

// take says that an order is taken, and does it. What steers an exercise is done at once, the rest beside.
func (c *conductor) take(ctx context.Context, o exercise.Order) error {
	err := c.say(ctx, o, exercise.Report{State: exercise.ReportTaken})
	if isConflict(err) || isNotFound(err) {
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

// begin does an order beside, and reports it. What is begun is ended, also when the dashboard is away for a moment, but not when the
// conductor goes.
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
			if err == nil || isConflict(err) || isNotFound(err) {
				return
			}
			if pause(ctx, 500*time.Millisecond) != nil {
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
	name, err := c.op.Serving(routeOrder)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.op.Call(ctx, name, routeOrder.Method(), strings.Replace(routeOrder.Path(), "{order}", fmt.Sprint(o.Number), 1), r, nil)
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
		chains, err := VerifyAudit(ctx, c.stage, c.op)
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

func differs(t *exercise.Tried) error {
	if t.Running != "" {
		return fmt.Errorf("%s: the policy was edited, and says %s where it came with %s", t.Measured, t.Running, t.Expected)
	}
	if t.Measured != t.Expected {
		return fmt.Errorf("%s, where %s was expected", t.Measured, t.Expected)
	}
	return nil
}

// steer is what changes an exercise that is on.
func (c *conductor) steer(kind string) error {
	c.mu.Lock()
	p := c.playing
	c.mu.Unlock()
	if p == nil {
		return errors.New("no exercise is on")
	}
	if kind == exercise.OrderStop {
		p.cancel(errStopped)
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch kind {
	case exercise.OrderStep:
		p.steps++
	case exercise.OrderPause:
		p.held = true
	case exercise.OrderResume:
		p.held, p.steps = false, 0
	}
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// gate lets one step after another happen: at each step order while it is held, else after a beat.
func (p *performance) gate(ctx context.Context, beat time.Duration, show func(exercise.State) error) error {
	shown := false
	timer := time.NewTimer(beat)
	defer timer.Stop()
	due := false
	for {
		p.mu.Lock()
		held, changed := p.held, p.changed
		step := p.steps > 0
		if step {
			p.steps--
		}
		p.mu.Unlock()
		if step || !held && due {
			if shown {
				return show(exercise.Playing)
			}
			return nil
		}
		if held != shown {
			shown = held
			state := exercise.Playing
			if held {
				state = exercise.Paused
			}
			if err := show(state); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			due = true
		case <-changed:
		}
	}
}

func (c *conductor) play(ctx context.Context, o exercise.Order) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p := &performance{cancel: cancel, done: make(chan struct{}), held: o.Stepwise, changed: make(chan struct{})}
	c.mu.Lock()
	if c.playing != nil {
		c.mu.Unlock()
		return errors.New("another exercise is on: stop it first")
	}
	c.playing = p
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.playing = nil
		c.mu.Unlock()
		close(p.done)
	}()
	st, err := c.stage.Status(ctx)
	if err != nil {
		return err
	}
	return PlayScenario(ctx, c.stage, c.op, st, o.Scenario, PlayOptions{
		Now: true, Input: strings.NewReader(""), Output: io.Discard,
		Gate: func(ctx context.Context, show func(exercise.State) error) error { return p.gate(ctx, c.beat, show) },
	})
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
	n, err := ResetExercises(ctx, c.op, only, progress.Quiet{})
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
	files, err := ForgetLearners(ctx, c.op, st.Spec, position, c.stage.Results(), progress.Quiet{})
	if len(files) > 0 {
		note = "the results are in " + strings.Join(files, " and ") + ": copy them, `lab down` removes them"
	}
	if err != nil && note != "" {
		err = fmt.Errorf("%w (%s)", err, note)
	}
	return note, err
}

// try makes one call and looks at both of its ends.
func (c *conductor) try(ctx context.Context, o exercise.Order) (*exercise.Tried, error) {
	topo, err := PolicyInForce(c.stage)
	if err != nil {
		return nil, err
	}
	callee, ok := topo.Workload(o.Callee)
	if !ok {
		return nil, fmt.Errorf("topology lists no %s", o.Callee)
	}
	who, err := Impostor(ctx, c.stage, topo, o.Caller, someCaller(topo, callee))
	if err != nil {
		return nil, err
	}
	addr, err := c.stage.Addr(ctx, o.Callee)
	if err != nil {
		return nil, err
	}
	t := &exercise.Tried{Expected: c.original.Decide(o.Caller, o.Callee, o.Route)}
	if is := topo.Decide(o.Caller, o.Callee, o.Route); is != t.Expected {
		t.Running = is
	}
	if who.SVID != nil {
		t.Shown = fmt.Sprintf("%s, serial number %x", who.SVID.ID, who.SVID.Certificates[0].SerialNumber)
	}
	began := time.Now()
	r := probe.Once(ctx, addr, who, o.Route)
	t.Measured, t.Status, t.Reason = r.Outcome, r.Status, r.Reason
	switch {
	case r.Status == http.StatusUnsupportedMediaType:
		t.Saw = "was let in: the answer is 415, because a probe carries nothing that the route takes"
	case r.Status != 0:
		t.Saw = fmt.Sprintf("got the answer %d", r.Status)
		if r.Reason != "" {
			t.Saw += " with the reason " + r.Reason
		}
	case r.Err != nil:
		t.Saw = "got no session: " + r.Err.Error()
	default:
		t.Saw = "got no session"
	}
	if r.Outcome == topology.Forbidden || r.Outcome == topology.Refused {
		e, err := refusal(ctx, c.stage, o.Callee, who, r.Outcome, began)
		if err != nil {
			return nil, err
		}
		t.Reason = e.Reason
		t.Wrote = fmt.Sprintf("%s of %s, entry %d of its chain", e.Kind, e.At.Format("15:04:05.000"), e.Seq)
		if e.Peer != "" {
			t.Wrote += ", caller " + e.Peer
		}
		if e.Detail != "" {
			t.Wrote += ": " + e.Detail
		}
	}
	return t, nil
}

func (c *conductor) serial(ctx context.Context, workload string) (string, error) {
	st, err := c.stage.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, w := range st.Workloads {
		if w.Name == workload {
			return w.Serial, nil
		}
	}
	return "", fmt.Errorf("there is no %s", workload)
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
		if pause(ctx, 20*time.Millisecond) != nil {
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
	for _, k := range sortedKeys(flat) {
		parts = append(parts, k+" "+strings.Trim(string(flat[k]), `"`))
	}
	return strings.Join(slices.Compact(parts), ", ")
}
