package play

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"example.org/security-training/lab"
	"example.org/security-training/lab/scenarios"
	"example.org/security-training/synth/scenario"
)

// Names lists the scenarios that come with the lab.
func Names() []string { return scenarios.Names() }

// largestScenario is the size limit of a scenario's file, in bytes.
const largestScenario = 1 << 20

// LoadScenario loads one of the lab's own scenarios, or reads a file, and checks it against the place there. Act says
// what the scenario is needed for, in errors.
func LoadScenario(act, name string, there scenario.Place) (*scenario.Scenario, error) {
	wrong := func(err error) error {
		return &lab.Error{Code: lab.ExitUsage, What: act, Why: err, Try: "lab scenario lint " + name}
	}
	if !strings.ContainsAny(name, "/.") {
		text, err := scenarios.Text(name)
		if err != nil {
			return nil, &lab.Error{Code: lab.ExitUsage, What: act, Why: err}
		}
		s, err := scenario.Load(name, text, there)
		if err != nil {
			return nil, wrong(err)
		}
		return s, nil
	}
	text, err := readScenario(name)
	if err != nil {
		return nil, &lab.Error{Code: lab.ExitUsage, What: act, Why: err}
	}
	s, err := scenario.Load(strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)), text, there)
	if err != nil {
		return nil, wrong(err)
	}
	return s, nil
}

// readScenario reads a file, and fails if it is larger than largestScenario.
func readScenario(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, largestScenario+1))
}

// Lint checks a scenario without a lab. Name is one of the lab's own or a file. The error lists every fault with its
// line. Without a fault, Lint returns a summary of the scenario.
func Lint(name string) (string, error) {
	s, err := LoadScenario("lint "+name, name, scenarios.Shipped())
	if err != nil {
		var e *lab.Error
		if errors.As(err, &e) {
			e.Try = ""
		}
		return "", err
	}
	return fmt.Sprintf(
		"%s: %d in the cast, %d moments, %d expectations, %d hints",
		s.Title,
		len(s.Cast),
		len(s.Timeline),
		len(s.Expect),
		len(s.Hints),
	), nil
}

// RunOf returns the id of a run of a scenario that begins at a time in milliseconds.
func RunOf(s *scenario.Scenario, millis int64) string {
	return s.Name + "-" + strconv.FormatInt(millis, 36)
}

// IsRunOf says whether id is that of a run of s.
func IsRunOf(s *scenario.Scenario, id string) bool {
	rest, ok := strings.CutPrefix(id, s.Name+"-")
	millis, err := strconv.ParseInt(rest, 36, 64)
	return ok && err == nil && RunOf(s, millis) == id
}
