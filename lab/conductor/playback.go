package conductor

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"example.org/security-training/lab/play"
	"example.org/security-training/services/exercise"
)

// playback is an exercise that is being played.
type playback struct {
	cancel  context.CancelCauseFunc
	done    chan struct{}
	mu      sync.Mutex
	held    bool // waits before the next step
	steps   int  // that may happen although it is held
	changed chan struct{}
}

var errStopped = errors.New("stopped from the console")

// steer applies a steering order to the current exercise.
func (c *conductor) steer(kind string) error {
	c.mu.Lock()
	p := c.playing
	c.mu.Unlock()
	if p == nil {
		return errors.New("no exercise is being played")
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

// gate lets the next step happen: while the exercise is held, when a step is ordered; otherwise after stepPause.
func (p *playback) gate(ctx context.Context, stepPause time.Duration, show func(exercise.State) error) error {
	shown := false
	timer := time.NewTimer(stepPause)
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
	p := &playback{cancel: cancel, done: make(chan struct{}), held: o.Stepwise, changed: make(chan struct{})}
	c.mu.Lock()
	if c.playing != nil {
		c.mu.Unlock()
		return errors.New("another exercise is being played: stop it first")
	}
	c.playing = p
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.playing = nil
		c.mu.Unlock()
		close(p.done)
	}()
	st, err := c.target.Status(ctx)
	if err != nil {
		return err
	}
	return play.Run(ctx, c.target, c.op, st, o.Scenario, play.Options{
		Now: true, Input: strings.NewReader(""), Output: io.Discard,
		Gate: func(ctx context.Context, show func(exercise.State) error) error {
			return p.gate(ctx, c.stepPause, show)
		},
	})
}
