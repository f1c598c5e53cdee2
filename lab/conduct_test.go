package lab

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/manifests"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/topology"
)

func lived(t *testing.T, text []byte) *topology.Topology {
	t.Helper()
	topo, err := topology.FromYAML(text)
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

// TestStrikingOffAndPuttingBackLeavesTheFileAsItWas does it for every caller of every route of the lab's own topology.
func TestStrikingOffAndPuttingBackLeavesTheFileAsItWas(t *testing.T) {
	text := manifests.Topology()
	original := lived(t, text)
	n := 0
	for _, callee := range original.Workloads {
		for _, route := range callee.Routes() {
			for _, caller := range original.Workloads {
				first := callee.Serves[route]
				if !first.Admits(caller) {
					continue
				}
				left, err := without(original, first, caller)
				if caller.Kind == topology.KindOperator && len(first) == 1 {
					if err == nil {
						t.Errorf("%s of %s: the only operator was struck off, and %v is left", route, callee.Name, left)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				edited, err := rewrite(text, callee.Name, route, left)
				if err != nil {
					t.Fatal(err)
				}
				next := lived(t, edited)
				if err := original.SameShape(next); err != nil {
					t.Errorf("without %s: %v", caller.Name, err)
				}
				if out := next.Decide(caller.Name, callee.Name, route); out == topology.Allowed {
					t.Errorf("%s is still let in to %s of %s", caller.Name, route, callee.Name)
				}
				for _, other := range original.Workloads { // nobody else lost or, but for the operator, won anything
					was, is := first.Admits(other), left.Admits(other)
					if other.Name != caller.Name && was != is && (was || other.Kind != topology.KindOperator) {
						t.Errorf("%s of %s without %s: %s was %v, is %v", route, callee.Name, caller.Name, other.Name, was, is)
					}
				}
				back, err := with(original, first, left, caller)
				if err != nil {
					t.Fatal(err)
				}
				restored, err := rewrite(edited, callee.Name, route, back)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(text), string(restored)); diff != "" {
					t.Errorf("%s of %s without %s and with it again: %s", route, callee.Name, caller.Name, diff)
				}
				n++
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d callers were tried", n)
	}
}

func TestTwoStruckOffComeBackOneByOne(t *testing.T) {
	const route topology.Route = "POST /v1/events"
	original := lived(t, manifests.Topology())
	scorer := original.OfKind(topology.KindScorer)[0]
	collectors := original.OfKind(topology.KindCollector)
	now := scorer.Serves[route]
	for _, c := range collectors[:2] {
		var err error
		if now, err = without(original, now, c); err != nil {
			t.Fatal(err)
		}
	}
	now, err := with(original, scorer.Serves[route], now, collectors[0])
	if err != nil {
		t.Fatal(err)
	}
	if !now.Admits(collectors[0]) || now.Admits(collectors[1]) || !now.Admits(collectors[2]) {
		t.Errorf("one of two is back: %v", now)
	}
	if now, err = with(original, scorer.Serves[route], now, collectors[1]); err != nil || !slices.Equal(now, scorer.Serves[route]) {
		t.Errorf("both are back: %v, %v; want %v", now, err, scorer.Serves[route])
	}
	if _, err := with(original, scorer.Serves[route], now, original.OfKind(topology.KindGateway)[0]); err == nil {
		t.Error("somebody was let in who never was")
	}
}

func TestAHeldExerciseTakesOneStepAtATimeAndGoesOnWhenLetGo(t *testing.T) {
	p := &performance{held: true, changed: make(chan struct{})}
	c := &conductor{playing: p}
	states := make(chan exercise.State, 10)
	show := func(state exercise.State) error { states <- state; return nil }
	through := make(chan error, 1)
	pass := func() { through <- p.gate(t.Context(), time.Millisecond, show) }
	go pass()
	if s := <-states; s != exercise.Paused {
		t.Errorf("while it is held it shows %q", s)
	}
	select {
	case err := <-through:
		t.Fatalf("a step happened by itself: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	if err := c.steer(exercise.OrderStep); err != nil {
		t.Fatal(err)
	}
	if err := <-through; err != nil {
		t.Fatal(err)
	}
	if s := <-states; s != exercise.Playing {
		t.Errorf("when the step happens it shows %q", s)
	}
	go pass()
	if s := <-states; s != exercise.Paused {
		t.Errorf("before the second step it shows %q", s)
	}
	if err := c.steer(exercise.OrderResume); err != nil {
		t.Fatal(err)
	}
	if err := <-through; err != nil {
		t.Fatal(err)
	}
	<-states
	if err := p.gate(t.Context(), time.Millisecond, show); err != nil || len(states) > 0 {
		t.Errorf("let go, it holds: %v, %d states", err, len(states))
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStopped)
	if err := p.gate(ctx, time.Hour, show); !errors.Is(err, errStopped) {
		t.Errorf("stopped: %v", err)
	}
	if err := (&conductor{}).steer(exercise.OrderStep); err == nil {
		t.Error("a step of no exercise")
	}
}

func TestAnAssessmentIsToldAsEventsAndAScore(t *testing.T) {
	lines := linesOf(audit.Row{Kind: "assessment", Person: "mira", Event: "git:secret/p/1/a", Detail: "decay-v1 0.412000 MEDIUM at position 8, 2026-10-01T10:00:00Z; events git:secret/p/1/a git:commit/p/a"})
	if len(lines) != 3 || lines[0].Event != "git:secret/p/1/a" || lines[2].Kind != "score" || lines[2].Level != "MEDIUM" || !strings.Contains(lines[2].What, "0.412") {
		t.Errorf("%+v", lines)
	}
	if lines := linesOf(audit.Row{Kind: "assessment", Detail: "something else"}); len(lines) != 0 && lines[0].Level == "" {
		t.Errorf("a detail of another form: %+v", lines)
	}
}

// fakeStage is busy until its caller gives up, and its chain cannot be read the first times.
type fakeStage struct {
	Stage
	busy     chan struct{}
	failures int
}

func (f *fakeStage) Status(ctx context.Context) (Status, error) {
	close(f.busy)
	<-ctx.Done()
	return Status{}, ctx.Err()
}

func (f *fakeStage) Audit(context.Context, string) (io.ReadCloser, error) {
	if f.failures--; f.failures >= 0 {
		return nil, errors.New("not yet")
	}
	return io.NopCloser(strings.NewReader(`{"kind":"tip","detail":"7 abc"}` + "\n" + `{"kind":"tip","detail":"12 def"}` + "\n")), nil
}

func TestWhatIsBegunEndsWithTheConductor(t *testing.T) {
	life, end := context.WithCancel(t.Context())
	stage := &fakeStage{busy: make(chan struct{})}
	c := &conductor{stage: stage, life: life, log: slog.New(slog.DiscardHandler)}
	c.begin(exercise.Order{Kind: exercise.OrderRotate, Workload: "lms"})
	<-stage.busy
	end()
	ended := make(chan struct{})
	go func() { c.work.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("it goes on without a conductor")
	}
}

func TestTheFeedBeginsWhenTheChainCanBeRead(t *testing.T) {
	c := &conductor{stage: &fakeStage{failures: 2}, log: slog.New(slog.DiscardHandler)}
	if after, err := c.newest(t.Context(), "scorer"); err != nil || after != 12 {
		t.Errorf("it begins after %d, %v; want 12", after, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&conductor{stage: &fakeStage{failures: 1 << 20}, log: c.log}).newest(ctx, "scorer"); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody watches: %v", err)
	}
}
