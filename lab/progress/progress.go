// Package progress tells people what is being done: a spinner that becomes ✓ or ✗ on a terminal, plain lines elsewhere.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Reporter is told of steps as they begin and end.
type Reporter interface {
	// Begin starts a step, and returns what ends it: with nil or an error.
	Begin(what string) (end func(err error))
	// Say tells something that is not a step.
	Say(format string, args ...any)
}

// Step runs f as a step of r.
func Step(r Reporter, what string, f func() error) error {
	end := r.Begin(what)
	err := f()
	end(err)
	return err
}

// Quiet tells nothing.
type Quiet struct{}

// Begin implements Reporter.
func (Quiet) Begin(string) func(error) { return func(error) {} }

// Say implements Reporter.
func (Quiet) Say(string, ...any) {}

// Lines writes one line for each step when it ends.
type Lines struct{ W io.Writer }

// Begin implements Reporter.
func (l Lines) Begin(what string) func(error) {
	start := time.Now()
	return func(err error) {
		fmt.Fprintf(l.W, "%s %s (%.1f s)\n", mark(err), what, time.Since(start).Seconds())
	}
}

// Say implements Reporter.
func (l Lines) Say(format string, args ...any) { fmt.Fprintf(l.W, format+"\n", args...) }

func mark(err error) string {
	if err != nil {
		return "✗"
	}
	return "✓"
}

// Spinner turns beside the step under way.
type Spinner struct {
	W     io.Writer
	Color string // the escape sequence of the spinner and the mark, or nothing
}

// Begin implements Reporter.
func (s Spinner) Begin(what string) func(error) {
	start := time.Now()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(80 * time.Millisecond)
		defer tick.Stop()
		frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
		for i := 0; ; i++ {
			fmt.Fprintf(s.W, "\r\x1b[K%s %s %.1f s", s.paint(string(frames[i%len(frames)])), what, time.Since(start).Seconds())
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	var once sync.Once
	return func(err error) {
		once.Do(func() {
			close(stop)
			<-done
			fmt.Fprintf(s.W, "\r\x1b[K%s %s (%.1f s)\n", s.paint(mark(err)), what, time.Since(start).Seconds())
		})
	}
}

// Say implements Reporter.
func (s Spinner) Say(format string, args ...any) { fmt.Fprintf(s.W, format+"\n", args...) }

func (s Spinner) paint(text string) string {
	if s.Color == "" {
		return text
	}
	return s.Color + text + "\x1b[0m"
}

// For chooses what fits f: a spinner on a terminal, lines elsewhere.
func For(f *os.File, lookup func(string) (string, bool)) Reporter {
	fi, err := f.Stat()
	_, ci := lookup("CI")
	if err != nil || fi.Mode()&os.ModeCharDevice == 0 || ci {
		return Lines{W: f}
	}
	s := Spinner{W: f, Color: "\x1b[36m"}
	if v, _ := lookup("NO_COLOR"); v != "" {
		s.Color = ""
	}
	return s
}
