package lab

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"example.org/security-training/services/topology"
)

// Policy is where a Lab keeps the rules of who may call what. There are two files: the running policy, which may be
// edited, and the shipped policy, a copy that was written once when the lab was made.
type Policy interface {
	Topology() string
	Shipped() string
}

// ShippedPolicy reads the policy that the lab was made with.
func ShippedPolicy(p Policy) (*topology.Topology, error) { return topology.FromFile(p.Shipped()) }

// RunningPolicy reads the policy in force. If its file has a fault, the error is an *Error with the file, the line and
// how to undo the edit; the workloads then go on with the last policy that had no fault.
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

// PolicyInForce reads the running policy, or the shipped one if the running one has a fault. Both have the same names,
// ports and routes.
func PolicyInForce(p Policy) (*topology.Topology, error) {
	running, err := RunningPolicy(p)
	if err != nil {
		return ShippedPolicy(p)
	}
	return running, nil
}

var ofWorkload = regexp.MustCompile(`^workload (\S+) `)

// withLines puts the line at which a workload begins in front of each fault that names the workload.
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

// Quoted quotes s so that a POSIX shell reads it as one word.
func Quoted(s string) string {
	if shellWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
