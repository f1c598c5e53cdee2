// Package auditor reads, follows, exports and verifies the audit chains of a lab. There is a chain of decisions for
// each workload and one for the supervisor. The services that have a database also keep a chain of business rows there.
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

// Chain is the result of verifying one chain.
type Chain struct {
	Name        string
	Entries     int
	Checkpoints int // how many signed checkpoints the chain was compared with
	Faults      []*audit.Fault
}

// Notary is a Lab that keeps signed checkpoints of all chains, and the key that verifies them.
type Notary interface {
	Checkpoints() (lines, public []byte, err error)
}

// Verify verifies every chain of decisions against its signed checkpoints, and every chain of business rows against the
// ends that its writer recorded in its chain of decisions. It continues after a bad chain. The error joins all faults
// of all chains, each an *audit.Fault; faults of the checkpoints come first.
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

// verifyRows verifies a writer's business rows. Until the time young, the writer need not have recorded an end of them.
func verifyRows(ctx context.Context, l lab.Lab, o *operator.Operator, name string, young time.Time) (Chain, error) {
	for {
		pins, err := TipsOf(ctx, l, name) // read before the rows: an end that is recorded later may be of a later row
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

// signedWithin is how long a new chain may have no checkpoint.
const signedWithin = 4 * time.Second

// signedSince waits until the first checkpoint of a chain is there, but not longer than until young. It returns the
// checkpoints that there are then.
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

// with returns c with f added to its faults; nil adds nothing.
func (c Chain) with(f *audit.Fault) Chain {
	if f != nil {
		c.Faults = append(c.Faults, f)
	}
	return c
}

// asFault returns err as a fault of the chain, or as an error if the chain could not be read.
func asFault(err error) (*audit.Fault, error) {
	var f *audit.Fault
	if errors.As(err, &f) {
		return f, nil
	}
	return nil, err
}

// of returns the faults of one chain.
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

// chainNames lists all chains of decisions: the supervisor's, every workload's, and any other that was ever signed.
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

// chainText reads a chain up to its last complete line, because its writer may be writing another. A chain that cannot
// be read counts as missing.
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

// pinsOf reads the lab's checkpoints, and the public key of their signatures.
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

// TipsOf returns the ends of a writer's business rows, as the writer recorded them in its chain of decisions. If there
// is no such chain, it returns no ends and an *audit.Fault.
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
		if json.Unmarshal(line, &e) == nil { // a line that is no entry is reported when that chain is verified
			entries = append(entries, e)
		}
	}
	return audit.TipPins(name, entries), nil
}

// Tail writes the decisions of the workloads in names, or of all workloads if names is empty, as they are made. It runs
// until ctx ends and returns the error of ctx.
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

// follow sends the lines of a file that grows.
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

// Export writes everything that Verify reads as JSON lines: {"chain": …, "entry"|"checkpoint"|"row"|"key": …}.
func Export(ctx context.Context, l lab.Lab, o *operator.Operator, w io.Writer) error {
	type line struct {
		Chain      string            `json:"chain"`
		Entry      *audit.Entry      `json:"entry,omitempty"`
		Checkpoint *audit.Checkpoint `json:"checkpoint,omitempty"`
		Row        *audit.Row        `json:"row,omitempty"`
		Key        []byte            `json:"key,omitempty"` // an Ed25519 public key
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
