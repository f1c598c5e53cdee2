package conductor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
)

func TestAHeldExerciseTakesOneStepAtATimeAndGoesOnWhenLetGo(t *testing.T) {
	p := &playback{held: true, changed: make(chan struct{})}
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
	lines, err := linesOf(audit.Row{
		Kind: "assessment", Person: "mira", Event: "git:secret/p/1/a",
		Detail: `{"profile":"decay-v1","score":0.412,"level":"MEDIUM","position":8,` +
			`"at":"2026-10-01T10:00:00Z","events":["git:secret/p/1/a","git:commit/p/a"]}`,
	})
	if err != nil || len(lines) != 3 || lines[0].Event != "git:secret/p/1/a" || lines[2].Kind != "score" ||
		lines[2].Level != "MEDIUM" ||
		!strings.Contains(lines[2].What, "0.412") {
		t.Errorf("%+v", lines)
	}
	for _, other := range []string{"decay-v1 0.412000 MEDIUM at position 8", `{"profile":"decay-v1","risk":0.412}`} {
		if lines, err := linesOf(audit.Row{Kind: "assessment", Detail: other}); err == nil || len(lines) != 0 {
			t.Errorf("a detail of another form, %s: %+v", other, lines)
		}
	}
}

// fakeLab is busy until its caller gives up. The first attempts to read its chain fail.
type fakeLab struct {
	Controllable
	busy     chan struct{}
	failures int
}

func (f *fakeLab) Status(ctx context.Context) (lab.Status, error) {
	close(f.busy)
	<-ctx.Done()
	return lab.Status{}, ctx.Err()
}

func (f *fakeLab) Audit(context.Context, string) (io.ReadCloser, error) {
	if f.failures--; f.failures >= 0 {
		return nil, errors.New("not yet")
	}
	return io.NopCloser(
		strings.NewReader(`{"kind":"tip","detail":"7 abc"}` + "\n" + `{"kind":"tip","detail":"12 def"}` + "\n"),
	), nil
}

func TestWhatIsBegunEndsWithTheConductor(t *testing.T) {
	life, end := context.WithCancel(t.Context())
	target := &fakeLab{busy: make(chan struct{})}
	c := &conductor{target: target, running: life, log: slog.New(slog.DiscardHandler)}
	c.begin(exercise.Order{Kind: exercise.OrderRotate, Workload: "lms"})
	<-target.busy
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
	c := &conductor{target: &fakeLab{failures: 2}, log: slog.New(slog.DiscardHandler)}
	if after, err := c.newest(t.Context(), "scorer"); err != nil || after != 12 {
		t.Errorf("it begins after %d, %v; want 12", after, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&conductor{target: &fakeLab{failures: 1 << 20}, log: c.log}).newest(ctx, "scorer"); !errors.Is(
		err,
		context.Canceled,
	) {
		t.Errorf("no console is open: %v", err)
	}
}
