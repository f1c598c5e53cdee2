// Package progress shows people which steps a command takes: on a terminal a spinner that becomes ✓ or ✗, elsewhere
// plain lines.
package progress

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Reporter is told of steps as they begin and end.
type Reporter interface {
	// Begin starts a step.
	Begin(what string) Running
	// Say prints a message that is not a step.
	Say(format string, args ...any)
}

// Running is a step that has begun.
type Running interface {
	// Count shows how far the step has come, as "done of all word": "120 of 500 people".
	Count(done, all int, word string)
	// End ends the step.
	End(err error)
}

// Step runs f as a step of r.
func Step(r Reporter, what string, f func() error) error {
	return Counted(context.Background(), r, what, func(context.Context) error { return f() })
}

type countedKey struct{}

// Counted runs f as a step of r. With the context that it gets, f can show how far it has come, by Count.
func Counted(ctx context.Context, r Reporter, what string, f func(context.Context) error) error {
	running := r.Begin(what)
	err := f(context.WithValue(ctx, countedKey{}, running))
	running.End(err)
	return err
}

// Count shows how far the step of Counted has come. With any other context it does nothing.
func Count(ctx context.Context, done, all int, word string) {
	if running, ok := ctx.Value(countedKey{}).(Running); ok {
		running.Count(done, all, word)
	}
}

// Quiet is a Reporter that shows nothing.
type Quiet struct{}

// Begin implements Reporter.
func (Quiet) Begin(string) Running { return quiet{} }

// Say implements Reporter.
func (Quiet) Say(string, ...any) {}

type quiet struct{}

func (quiet) Count(int, int, string) {}
func (quiet) End(error)              {}

// Clock is the clock that steps use. Tests have their own.
type Clock interface {
	Now() time.Time
	// Tick sends on c after each d until stop is called.
	Tick(d time.Duration) (c <-chan time.Time, stop func())
}

type wall struct{}

func (wall) Now() time.Time { return time.Now() }

func (wall) Tick(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(d)
	return t.C, t.Stop
}

const (
	lineEvery  = 5 * time.Second
	frameEvery = 80 * time.Millisecond
)

// writing serialises the lines of steps and of Say.
var writing sync.Mutex

func write(w io.Writer, format string, args ...any) {
	writing.Lock()
	defer writing.Unlock()
	fmt.Fprintf(w, format, args...)
}

// step is a step that has begun, for both reporters.
type step struct {
	what  string
	clock Clock
	start time.Time
	end   func(s *step, err error)
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	mu     sync.Mutex
	counts string
}

// begin begins a step. It calls tick regularly until the step ends; if first is set, also at once.
func begin(
	clock Clock, what string, every time.Duration, first bool, tick func(*step), end func(*step, error),
) Running {
	if clock == nil {
		clock = wall{}
	}
	s := &step{what: what, clock: clock, start: clock.Now(), end: end}
	s.stop, s.done = make(chan struct{}), make(chan struct{})
	ticks, stop := clock.Tick(every)
	if first {
		tick(s)
	}
	go func() {
		defer close(s.done)
		defer stop()
		for {
			select {
			case <-s.stop:
				return
			case <-ticks:
				tick(s)
			}
		}
	}()
	return s
}

// Count implements Running.
func (s *step) Count(done, all int, word string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts = fmt.Sprintf(": %d of %d %s", done, all, word)
}

// End implements Running.
func (s *step) End(err error) {
	s.once.Do(func() {
		close(s.stop)
		<-s.done
		s.end(s, err)
	})
}

// text is the step's name and how far it has come.
func (s *step) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.what + s.counts
}

func (s *step) seconds() float64 { return s.clock.Now().Sub(s.start).Seconds() }

// Lines is a Reporter that writes one line every five seconds while a step runs, and one when it ends.
type Lines struct {
	W     io.Writer
	Clock Clock // nil: the real time
}

// Begin implements Reporter.
func (l Lines) Begin(what string) Running {
	return begin(l.Clock, what, lineEvery, false,
		func(s *step) { write(l.W, "… %s (%.0f s)\n", s.text(), s.seconds()) },
		func(s *step, err error) { write(l.W, "%s %s (%.1f s)\n", mark(err), s.text(), s.seconds()) })
}

// Say implements Reporter.
func (l Lines) Say(format string, args ...any) { write(l.W, format+"\n", args...) }

func mark(err error) string {
	if err != nil {
		return "✗"
	}
	return "✓"
}

// Spinner is a Reporter for terminals. It turns in front of the current step.
type Spinner struct {
	W     io.Writer
	Color string // the escape sequence of the spinner and the mark, or nothing
	Clock Clock  // nil: the real time
}

// clearLine moves to the beginning of a terminal's line and clears it.
const clearLine = "\r\x1b[K"

// Begin implements Reporter.
func (p Spinner) Begin(what string) Running {
	frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	i := 0
	return begin(p.Clock, what, frameEvery, true,
		func(s *step) {
			write(p.W, clearLine+"%s %s %.1f s", p.paint(string(frames[i%len(frames)])), s.text(), s.seconds())
			i++
		},
		func(s *step, err error) {
			write(p.W, clearLine+"%s %s (%.1f s)\n", p.paint(mark(err)), s.text(), s.seconds())
		})
}

// Say implements Reporter. The message replaces the spinner's line, and the spinner goes on below it.
func (p Spinner) Say(format string, args ...any) { write(p.W, clearLine+format+"\n", args...) }

func (p Spinner) paint(text string) string {
	if p.Color == "" {
		return text
	}
	return p.Color + text + "\x1b[0m"
}

// For chooses a Reporter for f: a Spinner on a terminal, Lines elsewhere. It also chooses Lines on a dumb terminal
// (TERM=dumb), and in CI, which is when the variable CI is not empty, 0 or false.
func For(f *os.File, lookup func(string) (string, bool)) Reporter {
	fi, err := f.Stat()
	term, _ := lookup("TERM")
	ci, _ := lookup("CI")
	inCI := ci != "" && ci != "0" && !strings.EqualFold(ci, "false")
	if err != nil || fi.Mode()&os.ModeCharDevice == 0 || term == "dumb" || inCI {
		return Lines{W: f}
	}
	s := Spinner{W: f, Color: "\x1b[36m"}
	if v, _ := lookup("NO_COLOR"); v != "" {
		s.Color = ""
	}
	return s
}
