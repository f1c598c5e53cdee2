package progress

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestATerminalGetsASpinnerAndEverythingElsePlainLines(t *testing.T) {
	terminal, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	pipe, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer end.Close()
	with := func(variables ...string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			for _, v := range variables {
				if is, value, _ := strings.Cut(v, "="); is == name {
					return value, true
				}
			}
			return "", false
		}
	}
	if s, ok := For(terminal, with()).(Spinner); !ok || s.Color == "" {
		t.Errorf("a terminal: %T, coloured %v; want a coloured spinner", s, ok && s.Color != "")
	}
	if s, ok := For(terminal, with("NO_COLOR=1")).(Spinner); !ok || s.Color != "" {
		t.Errorf("a terminal and NO_COLOR: %v, want a spinner without colour", s)
	}
	for _, v := range []string{"CI=1", "CI=true", "CI=yes", "TERM=dumb"} {
		if _, ok := For(terminal, with(v)).(Lines); !ok {
			t.Errorf("%s: want plain lines", v)
		}
	}
	for _, v := range []string{"CI=", "CI=false", "CI=False", "CI=0", "TERM=xterm"} {
		if _, ok := For(terminal, with(v)).(Spinner); !ok {
			t.Errorf("%s: want a spinner", v)
		}
	}
	if _, ok := For(end, with()).(Lines); !ok {
		t.Error("a pipe: want plain lines")
	}
}

func TestAStepEndsWithItsMarkAndItsSeconds(t *testing.T) {
	failed := errors.New("no")
	for name, r := range map[string]func(*strings.Builder) Reporter{
		"lines":   func(b *strings.Builder) Reporter { return Lines{W: b} },
		"spinner": func(b *strings.Builder) Reporter { return Spinner{W: b} },
		"quiet":   func(*strings.Builder) Reporter { return Quiet{} },
	} {
		for mark, want := range map[string]error{"✓": nil, "✗": failed} {
			var out strings.Builder
			if err := Step(r(&out), "make a wish", func() error { return want }); !errors.Is(err, want) {
				t.Errorf("%s: the step's error is %v, want %v", name, err, want)
			}
			last := out.String()[strings.LastIndex(out.String(), "\r")+1:]
			if name == "quiet" {
				if out.Len() > 0 {
					t.Errorf("quiet says %q", out.String())
				}
			} else if !regexp.MustCompile(`^(\x1b\[K)?` + mark + ` make a wish \(\d+\.\d s\)\n$`).MatchString(last) {
				t.Errorf("%s ends a step with %q, want %s and the seconds", name, last, mark)
			}
		}
	}
}

// hand is a clock that a test moves by hand.
type hand struct {
	mu    sync.Mutex
	now   time.Time
	every []time.Duration
	ticks chan time.Time
}

func (h *hand) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

func (h *hand) Tick(d time.Duration) (<-chan time.Time, func()) {
	h.every = append(h.every, d)
	return h.ticks, func() {}
}

// pass moves the clock, and returns when the line for its tick is in out.
func (h *hand) pass(d time.Duration, out *screen) {
	for len(out.written) > 0 {
		<-out.written
	}
	h.mu.Lock()
	h.now = h.now.Add(d)
	h.mu.Unlock()
	h.ticks <- h.now
	<-out.written
}

// screen collects lines, and signals each one that is written.
type screen struct {
	strings.Builder
	written chan struct{}
}

func newScreen() *screen { return &screen{written: make(chan struct{}, 100)} }

func (s *screen) Write(b []byte) (int, error) {
	defer func() { s.written <- struct{}{} }()
	return s.Builder.Write(b)
}

func TestAStepSaysHowFarItHasComeEveryFiveSeconds(t *testing.T) {
	out := newScreen()
	clock := &hand{ticks: make(chan time.Time)}
	r := Lines{W: out, Clock: clock}
	err := Counted(t.Context(), r, "history", func(ctx context.Context) error {
		clock.pass(5*time.Second, out)
		Count(ctx, 4210, 14792, "delivered")
		clock.pass(5*time.Second, out)
		r.Say("to download: 3 MB")
		Count(ctx, 14792, 14792, "delivered")
		Count(context.Background(), 1, 2, "of another step")
		clock.pass(2*time.Second, out)
		return nil
	})
	want := "… history (5 s)\n… history: 4210 of 14792 delivered (10 s)\nto download: 3 MB\n" +
		"… history: 14792 of 14792 delivered (12 s)\n" +
		"✓ history: 14792 of 14792 delivered (12.0 s)\n"
	if err != nil || out.String() != want {
		t.Errorf("%v; it wrote\n%s, want\n%s", err, out.String(), want)
	}
	if len(clock.every) != 1 || clock.every[0] != 5*time.Second {
		t.Errorf("a line every %v, want 5 s", clock.every)
	}
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Errorf("plain lines with control characters: %q", out.String())
	}
}

func TestATerminalShowsHowFarAStepHasComeInOneLine(t *testing.T) {
	out := newScreen()
	clock := &hand{ticks: make(chan time.Time)}
	r := Spinner{W: out, Clock: clock}
	step := r.Begin("roster")
	step.Count(250, 500, "people")
	clock.pass(80*time.Millisecond, out)
	step.Count(500, 500, "people")
	step.End(nil)
	step.End(errors.New("twice")) // has no effect
	if !strings.Contains(out.String(), "roster 0.0 s") || strings.Count(out.String(), "\n") != 1 ||
		!strings.HasSuffix(out.String(), "\r\x1b[K✓ roster: 500 of 500 people (0.1 s)\n") {
		t.Errorf("%q", out.String())
	}
	for _, line := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\r")[1:] {
		if !strings.HasPrefix(line, "\x1b[K") {
			t.Errorf("%q does not clear what was there", line)
		}
	}
}
