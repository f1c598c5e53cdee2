// Package auditor reads, follows, exports and verifies the audit chains of a lab: a chain of decisions for each
// workload, one for the supervisor, and the business rows of the services that have a database.
package auditor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/operator"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/topology"
	"example.org/security-training/services/wait"
	"example.org/security-training/synth/nearest"
)

// Chain is a chain that was verified.
type Chain struct {
	Name        string
	Entries     int
	Checkpoints int // signed ends that it was held against
	Faults      []*audit.Fault
}

// Notary is a Lab that keeps signed ends of all chains, and the key to verify them by.
type Notary interface {
	Checkpoints() (lines, public []byte, err error)
}

// Verify verifies every chain of decisions against its signed checkpoints, and every chain of business rows
// against the ends that its writer reported in its chain of decisions. It goes on after a bad chain: the error is all
// faults of all chains, each an *audit.Fault, with those of the checkpoints first.
func Verify(ctx context.Context, l lab.Lab, o *operator.Operator) ([]Chain, error) {
	pins, _, err := pinsOf(l)
	if err != nil {
		return nil, err
	}
	names := chainNames(o.Node.Topology(), pins)
	var out []Chain
	if of := of(pins.Faults(), audit.OfCheckpoints); len(of) > 0 {
		out = append(out, Chain{Name: audit.OfCheckpoints, Checkpoints: len(pins.Checkpoints()), Faults: of})
	}
	young := time.Now().Add(signedWithin)
	for _, name := range names {
		text, missing, err := chainText(ctx, l, name)
		if err != nil {
			return out, err
		}
		if missing == nil && len(text) > 0 && pins.Of(name) == 0 {
			if pins, err = signedSince(ctx, l, name, young); err != nil {
				return out, err
			}
		}
		c := Chain{Name: name, Checkpoints: pins.Of(name), Faults: of(pins.Faults(), name)}
		if missing == nil {
			c.Entries, err = audit.Verify(bytes.NewReader(text), name, pins)
			missing, err = asFault(err)
			if err != nil {
				return out, err
			}
		}
		out = append(out, c.with(missing))
	}
	for _, w := range o.Node.Topology().Serving(audit.RouteRows) {
		c, err := verifyRows(ctx, l, o, w.Name, young)
		if err != nil {
			return out, err
		}
		out = append(out, c)
	}
	return out, faultsOf(out)
}

// verifyRows verifies a writer's business rows, of which none need have been reported until young.
func verifyRows(ctx context.Context, l lab.Lab, o *operator.Operator, name string, young time.Time) (Chain, error) {
	for {
		pins, err := TipsOf(ctx, l, name) // before the rows: what is reported now may be of a row that comes now
		if _, err := asFault(err); err != nil {
			return Chain{}, err
		}
		c := Chain{Name: audit.RowsOf(name), Checkpoints: pins.Of(audit.RowsOf(name)), Faults: pins.Faults()}
		rows, err := o.BusinessRows(ctx, name)
		if ctx.Err() != nil {
			return c, ctx.Err()
		}
		if err != nil {
			return c.with(&audit.Fault{Kind: audit.MissingChain, Workload: c.Name, What: err.Error()}), nil
		}
		if len(rows) > 0 && c.Checkpoints == 0 && time.Now().Before(young) &&
			wait.For(ctx, 100*time.Millisecond) == nil {
			continue
		}
		c.Entries, err = audit.VerifyRows(rows, name, pins)
		bad, err := asFault(err)
		return c.with(bad), err
	}
}

// signedWithin is how long a chain that has just begun may be without a checkpoint.
const signedWithin = 4 * time.Second

// signedSince waits for the first checkpoint of a chain that has none, until young. It gives the checkpoints of then.
func signedSince(ctx context.Context, l lab.Lab, name string, young time.Time) (*audit.Pins, error) {
	for {
		pins, _, err := pinsOf(l)
		if err != nil || pins.Of(name) > 0 || time.Now().After(young) {
			return pins, err
		}
		if err := wait.For(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// with is c with one fault more, if it is one.
func (c Chain) with(f *audit.Fault) Chain {
	if f != nil {
		c.Faults = append(c.Faults, f)
	}
	return c
}

// asFault tells a fault of the chain from one of reading it.
func asFault(err error) (*audit.Fault, error) {
	var f *audit.Fault
	if errors.As(err, &f) {
		return f, nil
	}
	return nil, err
}

// of are the faults of one chain.
func of(faults []*audit.Fault, name string) []*audit.Fault {
	return slices.DeleteFunc(slices.Clone(faults), func(f *audit.Fault) bool { return f.Workload != name })
}

func faultsOf(chains []Chain) error {
	var all []error
	for _, c := range chains {
		for _, f := range c.Faults {
			all = append(all, f)
		}
	}
	return errors.Join(all...)
}

// chainNames are all chains of decisions: the supervisor's, every workload's, and any other that was ever signed.
func chainNames(topo *topology.Topology, pins *audit.Pins) []string {
	names := []string{"supervisor"}
	for _, w := range topo.Workloads {
		if w.Kind != topology.KindOperator {
			names = append(names, w.Name)
		}
	}
	for _, name := range pins.Workloads() {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// chainText reads a chain up to its last whole line: its writer may be in the middle of another. One that cannot be
// read is missing.
func chainText(ctx context.Context, l lab.Lab, name string) ([]byte, *audit.Fault, error) {
	r, err := l.Audit(ctx, name)
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	if err != nil {
		return nil, &audit.Fault{Kind: audit.MissingChain, Workload: name, What: err.Error()}, nil
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, nil, fmt.Errorf("read audit of %s: %w", name, err)
	}
	return text[:bytes.LastIndexByte(text, '\n')+1], nil, nil
}

// pinsOf reads the lab's checkpoints, and the key that they are signed by.
func pinsOf(l lab.Lab) (*audit.Pins, ed25519.PublicKey, error) {
	n, ok := l.(Notary)
	if !ok {
		return nil, nil, fmt.Errorf("read checkpoints: %T keeps none", l)
	}
	lines, public, err := n.Checkpoints()
	if err != nil {
		return nil, nil, err
	}
	if len(public) != ed25519.PublicKeySize {
		return nil, nil, fmt.Errorf("read the audit's public key: %d bytes, want %d", len(public), ed25519.PublicKeySize)
	}
	pins, err := audit.ReadPins(bytes.NewReader(lines), public)
	return pins, public, err
}

// TipsOf are the ends of a writer's rows that it reported in its own chain of decisions. The error is an *audit.Fault
// if there is no such chain; then there are no ends either.
func TipsOf(ctx context.Context, l lab.Lab, name string) (*audit.Pins, error) {
	text, missing, err := chainText(ctx, l, name)
	if err != nil {
		return nil, err
	}
	if missing != nil {
		return audit.TipPins(name, nil), missing
	}
	var entries []audit.Entry
	for line := range bytes.Lines(text) {
		var e audit.Entry
		if json.Unmarshal(line, &e) == nil { // a line that is no entry is a fault of the other chain
			entries = append(entries, e)
		}
	}
	return audit.TipPins(name, entries), nil
}

// Tail writes decisions as they are made, of the workloads named or of all, until ctx ends, whose error it returns
// then.
func Tail(ctx context.Context, l lab.Lab, names []string, w io.Writer) error {
	st, err := l.Status(ctx)
	if err != nil {
		return err
	}
	var known []string
	for _, x := range st.Workloads {
		known = append(known, x.Name)
	}
	if len(names) == 0 {
		names = known
	}
	lines := make(chan []byte, 64)
	failed := make(chan error, len(names))
	for _, name := range names {
		if !slices.Contains(known, name) {
			return &lab.Error{
				Code: lab.ExitUsage,
				What: "follow the audit",
				Why: fmt.Errorf(
					"there is no workload %q%s; there are %s", name, nearest.Hint(name, known), strings.Join(known, ", "),
				),
			}
		}
		r, err := l.Audit(ctx, name)
		if err != nil {
			return err
		}
		go func() {
			defer r.Close()
			failed <- follow(ctx, r, lines)
		}()
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case line := <-lines:
			var e audit.Entry
			if err := json.Unmarshal(line, &e); err != nil {
				return fmt.Errorf("follow the audit: %w", err)
			}
			if _, err := fmt.Fprintln(w, strings.Join(slices.DeleteFunc([]string{
				e.At.Format("15:04:05.000"), e.Workload, e.Kind, e.Outcome, e.Reason, e.Peer, e.Route, e.Event, e.Person, e.Line(),
			}, func(s string) bool { return s == "" }), "  ")); err != nil {
				return err
			}
		}
	}
}

// follow sends the lines of a growing file.
func follow(ctx context.Context, r io.Reader, lines chan<- []byte) error {
	b := bufio.NewReader(r)
	var part []byte
	for {
		chunk, err := b.ReadBytes('\n')
		part = append(part, chunk...)
		if err == nil {
			select {
			case lines <- part:
			case <-ctx.Done():
				return nil
			}
			part = nil
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if wait.For(ctx, 50*time.Millisecond) != nil {
			return nil
		}
	}
}

// Export writes everything that VerifyAudit reads, as JSON lines: {"chain": …, "entry"|"checkpoint"|"row"|"key": …}.
func Export(ctx context.Context, l lab.Lab, o *operator.Operator, w io.Writer) error {
	type line struct {
		Chain      string            `json:"chain"`
		Entry      *audit.Entry      `json:"entry,omitempty"`
		Checkpoint *audit.Checkpoint `json:"checkpoint,omitempty"`
		Row        *audit.Row        `json:"row,omitempty"`
		Key        []byte            `json:"key,omitempty"` // Ed25519, public
	}
	out := json.NewEncoder(w)
	pins, key, err := pinsOf(l)
	if err != nil {
		return err
	}
	if err := out.Encode(line{Chain: "supervisor", Key: key}); err != nil {
		return err
	}
	for _, c := range pins.Checkpoints() {
		if err := out.Encode(line{Chain: c.Workload, Checkpoint: &c}); err != nil {
			return err
		}
	}
	for _, name := range chainNames(o.Node.Topology(), pins) {
		entries, err := lab.Entries(ctx, l, name)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := out.Encode(line{Chain: name, Entry: &e}); err != nil {
				return err
			}
		}
	}
	for _, x := range o.Node.Topology().Serving(audit.RouteRows) {
		rows, err := o.BusinessRows(ctx, x.Name)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := out.Encode(line{Chain: x.Name, Row: &r}); err != nil {
				return err
			}
		}
	}
	return nil
}
