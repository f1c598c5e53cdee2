package progress

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
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
	with := func(names ...string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			for _, n := range names {
				if n == name {
					return "1", true
				}
			}
			return "", false
		}
	}
	if s, ok := For(terminal, with()).(Spinner); !ok || s.Color == "" {
		t.Errorf("a terminal: %T, coloured %v; want a coloured spinner", s, ok && s.Color != "")
	}
	if s, ok := For(terminal, with("NO_COLOR")).(Spinner); !ok || s.Color != "" {
		t.Errorf("a terminal and NO_COLOR: %v, want a spinner without colour", s)
	}
	if _, ok := For(terminal, with("CI")).(Lines); !ok {
		t.Error("CI: want plain lines")
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
