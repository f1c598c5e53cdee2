// Package play plays a scenario in a lab: simulators perform its steps on the lab's clock, calls are tried, and the
// scenario's expectations are checked.
package play

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/matrix"
	"example.org/security-training/lab/operator"
	"example.org/security-training/lab/scenarios"
	"example.org/security-training/services/activity"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
	"example.org/security-training/services/wait"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/scenario"
	"example.org/security-training/synth/world"
)

// Options say how a scenario is played.
type Options struct {
	Step   bool    // wait for a line of Input before each step
	Now    bool    // the lab's clock jumps from step to step; this is the default
	Speed  float64 // above 0: the lab's clock runs at this pace from step to step
	Gate   Gate    // called before each step, if it is set
	Input  io.Reader
	Output io.Writer
}

// Gate holds back the next step of an exercise until it returns. While it waits, show may show another state. An error
// ends the exercise.
type Gate func(ctx context.Context, show func(exercise.State) error) error

// play is one scenario being played.
type play struct {
	lab      lab.Lab
	op       *operator.Operator
	scenario *scenario.Scenario
	run      string
	players  map[string]risk.Person
	topo     *topology.Topology
	addr     map[string]string
	how      Options
	shown    exercise.Exercise
	observed []scenario.Observed
	input    *bufio.Reader
}

// Run plays a scenario of the lab, or of a file. It writes the brief, the timeline, the expectations and how each
// turned out, and the debrief. It fails if an expectation does.
func Run(ctx context.Context, l lab.Lab, o *operator.Operator, st lab.Status, name string, how Options) error {
	s, err := LoadScenario("play", name, scenarios.PlaceOf(o.Node.Topology()))
	if err != nil {
		return err
	}
	p := &play{
		lab:      l,
		op:       o,
		scenario: s,
		how:      how,
		topo:     o.Node.Topology(),
		addr:     map[string]string{},
		input:    bufio.NewReader(how.Input),
	}
	p.run = RunOf(s, time.Now().UnixMilli())
	p.observed = make([]scenario.Observed, len(s.Expect))
	for _, w := range st.Workloads {
		p.addr[w.Name] = w.Address
	}
	company := people.Roster(people.Company(st.Spec.Seed, st.Spec.People, people.Published))
	if p.players, err = s.Players(p.run, company); err != nil {
		return &lab.Error{Code: lab.ExitUsage, What: "play " + s.Name, Why: err}
	}
	if fresh := s.Fresh(p.players); len(fresh) > 0 {
		if err := o.Ask(ctx, scorerapi.RoutePutPeople, fresh, nil); err != nil {
			return fmt.Errorf("play %s: add the cast to the roster: %w", s.Name, err)
		}
	}
	clock, err := o.Clock(ctx)
	if err != nil {
		return err
	}
	if how.Speed > 0 {
		if err := o.SetPace(ctx, how.Speed); err != nil {
			return err
		}
		// best effort: the play's own error matters more
		defer func() { _ = o.SetPace(context.WithoutCancel(ctx), clock.Pace) }()
	}
	err = p.perform(ctx, clock.Now.Add(time.Second).Truncate(time.Second))
	if err != nil && p.shown.State.On() {
		p.shown.State = exercise.Stopped
		_ = p.show(context.WithoutCancel(ctx)) // the error that stopped it matters more
	}
	return err
}

func (p *play) say(format string, args ...any) { fmt.Fprintf(p.how.Output, format+"\n", args...) }

func (p *play) perform(ctx context.Context, start time.Time) error {
	s := p.scenario
	p.say("\n%s\n%s\n", s.Title, strings.Repeat("─", len([]rune(s.Title))))
	p.say("difficulty %d of 5 · %d minutes · ATT&CK %s\n", s.Difficulty, s.Minutes, strings.Join(s.Attack, ", "))
	p.say("%s", indent(s.Brief))
	for _, who := range lab.SortedKeys(p.players) {
		p.say("  %s is %s, %s", who, p.players[who].ID, strings.ReplaceAll(string(p.players[who].Role), "_", " "))
	}
	p.say("")
	p.shown = exercise.Exercise{
		ID: p.run, Title: s.Title, Brief: s.Brief, Difficulty: s.Difficulty, Minutes: s.Minutes, Attack: s.Attack,
		State: exercise.Playing, Steps: []exercise.Step{},
	}
	for _, one := range s.Fresh(p.players) {
		p.shown.Cast = append(p.shown.Cast, one.ID)
	}
	if p.shown.Attack == nil {
		p.shown.Attack = []string{}
	}
	if err := p.show(ctx); err != nil {
		return err
	}
	for i, step := range s.Steps(p.run, start, p.players) {
		if err := p.await(ctx, step); err != nil {
			return err
		}
		if err := p.act(ctx, i, step); err != nil {
			return err
		}
		for _, index := range step.Expect {
			p.expect(ctx, index)
		}
		if err := p.show(ctx); err != nil {
			return err
		}
	}
	wrong := scenario.Check(s.Expect, p.observed)
	p.shown.State = exercise.Passed
	if len(wrong) > 0 {
		p.shown.State = exercise.Failed
	}
	if err := p.show(ctx); err != nil {
		return err
	}
	p.say("\nDebrief\n\n%s", indent(s.Debrief))
	if len(wrong) > 0 {
		for _, m := range wrong {
			p.say("✗ %s", m)
		}
		return fmt.Errorf("play %s: %d of %d expectations failed", s.Name, len(wrong), len(s.Expect))
	}
	p.say("✓ %s: all %d expectations held", s.Name, len(s.Expect))
	return nil
}

func (p *play) show(ctx context.Context) error {
	if err := p.op.Ask(ctx, lmsapi.RoutePutExercise, p.shown, nil); err != nil {
		return fmt.Errorf("show the exercise on the dashboard: %w", err)
	}
	return nil
}

// await waits for the instructor or for the lab's clock, or moves the clock.
func (p *play) await(ctx context.Context, step scenario.Step) error {
	if p.how.Step {
		p.say("  … Enter for %s", step.Offset)
		if _, err := p.input.ReadString('\n'); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if p.how.Gate != nil {
		err := p.how.Gate(ctx, func(state exercise.State) error {
			p.shown.State = state
			return p.show(ctx)
		})
		if err != nil {
			return err
		}
	}
	if p.how.Speed <= 0 {
		return p.op.Forward(ctx, step.At)
	}
	for {
		clock, err := p.op.Clock(ctx)
		if err != nil {
			return err
		}
		left := step.At.Sub(clock.Now)
		if left <= 0 {
			return nil
		}
		wall := min(time.Duration(float64(left)/clock.Pace), time.Second)
		if err := wait.For(ctx, max(wall, 10*time.Millisecond)); err != nil {
			return err
		}
	}
}

// act has the simulators report a step's acts, and waits until they are scored.
func (p *play) act(ctx context.Context, i int, step scenario.Step) error {
	if len(step.Acts) == 0 {
		return nil
	}
	cast := make([]risk.Person, 0, len(p.players))
	for _, who := range lab.SortedKeys(p.players) {
		cast = append(cast, p.players[who])
	}
	part := world.Play{ID: fmt.Sprintf("%s-%d", p.run, i), Kind: world.Timeline, Cast: cast, Acts: step.Acts}
	if err := p.op.Perform(ctx, part); err != nil {
		return err
	}
	if err := p.op.AwaitScored(ctx); err != nil {
		return err
	}
	for _, a := range step.Acts {
		what := risk.Words(a.Verb, max(1, a.Count))
		for i, about := range slices.DeleteFunc(
			[]string{a.Repository, a.Path, a.Resource, a.Ticket}, func(s string) bool { return s == "" },
		) {
			what += []string{": ", " "}[min(i, 1)] + about
		}
		p.say("  %s  %s  %s", step.Offset, a.Person, what)
		p.shown.Steps = append(
			p.shown.Steps,
			exercise.Step{At: step.Offset.String(), Who: a.Person, What: what, Outcome: "happened"},
		)
	}
	return nil
}

// expect checks whether one expectation holds.
func (p *play) expect(ctx context.Context, index int) {
	e := p.scenario.Expect[index]
	var seen scenario.Observed
	if e.Call != "" {
		seen = p.call(ctx, e)
	} else {
		seen = p.person(ctx, p.players[e.Who].ID)
	}
	p.observed[index] = seen
	mark, outcome := "✓", "ok"
	said, shown := e.String(), e.String()
	if wrong := scenario.Check([]scenario.Expectation{e}, []scenario.Observed{seen}); len(wrong) > 0 {
		mark, outcome = "✗", "failed: "+wrong[0].Got
		said = wrong[0].String()
	}
	p.say("  %s  %s %s", e.At, mark, said)
	who := e.Who
	if e.Call != "" {
		who, _ = e.Parties()
	} else {
		shown = string(e.Level)
		for i, v := range e.Because {
			shown += []string{": ", ", "}[min(i, 1)] + risk.Words(v, 1)
		}
	}
	p.shown.Steps = append(p.shown.Steps, exercise.Step{At: e.At.String(), Who: who, What: shown, Outcome: outcome})
}

func (p *play) person(ctx context.Context, id string) scenario.Observed {
	name, err := p.op.Serving(scorerapi.RouteRisk)
	if err != nil {
		return scenario.Observed{Failure: err.Error()}
	}
	var a risk.Assessment
	path := scorerapi.RouteRisk.For(id) + "?profile=" + url.QueryEscape(p.scenario.Profile)
	if err := p.op.Call(ctx, name, http.MethodGet, path, nil, &a); err != nil {
		return scenario.Observed{Failure: err.Error()}
	}
	seen := scenario.Observed{Level: a.Level, Because: []activity.Verb{}}
	for _, r := range a.Reasons {
		seen.Because = append(seen.Because, r.Verb)
	}
	return seen
}

// call tries a call of the scenario. If it is refused, call looks up the reason in the callee's audit.
func (p *play) call(ctx context.Context, e scenario.Expectation) scenario.Observed {
	caller, callee := e.Parties()
	as := e.As
	if as == "" {
		as = caller
	}
	who, err := matrix.Impostor(ctx, p.lab, p.topo, as, caller)
	if err != nil {
		return scenario.Observed{Failure: err.Error()}
	}
	addr, ok := p.addr[callee]
	if !ok {
		return scenario.Observed{Failure: "topology lists no " + callee}
	}
	began := time.Now()
	r := probe.Once(ctx, addr, who, e.Route)
	if r.Outcome == probe.Undecided {
		return scenario.Observed{Failure: fmt.Sprintf("%s did not decide: status %d, %v", callee, r.Status, r.Err)}
	}
	seen := scenario.Observed{Outcome: r.Outcome, Reason: r.Reason}
	if r.Outcome == topology.Refused && seen.Reason == "" {
		if seen.Reason, err = p.reason(ctx, callee, who, began); err != nil {
			return scenario.Observed{Failure: err.Error()}
		}
	}
	return seen
}

// reason waits until the callee's audit has the refusal.
func (p *play) reason(ctx context.Context, callee string, who probe.Caller, began time.Time) (string, error) {
	e, err := matrix.Refusal(ctx, p.lab, callee, who, topology.Refused, began)
	return e.Reason, err
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
}
