// Package tally counts the skipped tests of a test run, by the reason that services/env/needtest gives. So a run that
// is green because half of it was skipped looks different from one that is green.
package tally

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
)

// event is a line of `go test -json`.
type event struct{ Action, Package, Test, Output string }

// said matches how a skip gives its reason: "    file_test.go:12: [docker] no engine answers".
var said = regexp.MustCompile(`^\s+\S+\.go:\d+: \[([a-z]+)\] `)

// Other is the reason of a skip that gives none.
const Other = "other"

// Skips counts the skipped tests in a run's events, by reason.
func Skips(r io.Reader) (map[string]int, error) {
	reasons, out := map[[2]string]string{}, map[string]int{}
	d := json.NewDecoder(r)
	for {
		var e event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("read test events: %w", err)
		}
		at := [2]string{e.Package, e.Test}
		if m := said.FindStringSubmatch(e.Output); m != nil {
			reasons[at] = m[1]
		}
		if e.Action == "skip" && e.Test != "" { // an event without a test is about a package without tests
			reason := reasons[at]
			if reason == "" {
				reason = Other
			}
			out[reason]++
		}
	}
}

// Write prints the counts as one line.
func Write(w io.Writer, skips map[string]int) error {
	line := "skipped: nothing"
	for i, reason := range slices.Sorted(maps.Keys(skips)) {
		if i == 0 {
			line = "skipped:"
		}
		line += fmt.Sprintf(" %s %d", reason, skips[reason])
	}
	_, err := fmt.Fprintln(w, line)
	return err
}
