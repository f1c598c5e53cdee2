package lab

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"example.org/security-training/services/topology"
)

// Policy is where a Lab keeps who may call what: the file in force, which may be edited, and a copy of the one that
// it came with, written once when it was made.
type Policy interface {
	Topology() string
	Shipped() string
}

// ShippedPolicy is what the lab came with.
func ShippedPolicy(p Policy) (*topology.Topology, error) { return topology.FromFile(p.Shipped()) }

// RunningPolicy is the file in force. Where it has a fault the error is an *Error with file, line and the way back;
// the workloads then go by the last one without a fault.
func RunningPolicy(p Policy) (*topology.Topology, error) {
	wrong := func(why error) error {
		return &Error{
			Code: ExitPartly,
			What: "read the policy " + p.Topology(),
			Why: fmt.Errorf(
				"%w\n  every workload goes by the last one without a fault; one that is started now cannot read this",
				why,
			),
			Try: fmt.Sprintf(
				"mend the line, or go back to what the lab came with: cp %s %s",
				Quoted(p.Shipped()),
				Quoted(p.Topology()),
			),
		}
	}
	text, err := os.ReadFile(p.Topology())
	if err != nil {
		return nil, wrong(err)
	}
	running, err := topology.FromYAML(text)
	if err != nil {
		return nil, wrong(err)
	}
	shipped, err := ShippedPolicy(p)
	if err != nil {
		return nil, err
	}
	if err := shipped.SameShape(running); err != nil {
		return nil, wrong(errors.New(withLines(string(text), err.Error())))
	}
	return running, nil
}

// PolicyInForce is the file in force, or what the lab came with where that has a fault: its names, ports and routes
// are the same.
func PolicyInForce(p Policy) (*topology.Topology, error) {
	running, err := RunningPolicy(p)
	if err != nil {
		return ShippedPolicy(p)
	}
	return running, nil
}

var ofWorkload = regexp.MustCompile(`^workload (\S+) `)

// withLines puts the line at which a workload begins before what is said of it.
func withLines(text, faults string) string {
	lines := strings.Split(faults, "\n")
	for i, l := range lines {
		m := ofWorkload.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		begins := regexp.MustCompile(`\bname: *` + regexp.QuoteMeta(m[1]) + `\b`).FindStringIndex(text)
		if begins != nil {
			lines[i] = fmt.Sprintf("line %d: %s", strings.Count(text[:begins[0]], "\n")+1, l)
		}
	}
	return strings.Join(lines, "\n  ")
}

var shellWord = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,-]+$`)

// Quoted is s as one word of a POSIX shell, with every character of it.
func Quoted(s string) string {
	if shellWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
