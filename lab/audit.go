package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/topology"
)

const routeAudit topology.Route = "GET /v1/audit"

// Chain is a verified chain.
type Chain struct {
	Name        string
	Entries     int
	Checkpoints int // signed ends that it was held against
}

// Notary is a Lab that keeps signed ends of all chains, and the key to verify them by.
type Notary interface {
	Checkpoints() (lines, public []byte, err error)
}

// VerifyAudit verifies every chain of decisions against its signed checkpoints, and every chain of business rows against the
// end that its writer last reported in its chain of decisions. The error names the first bad entry.
func VerifyAudit(ctx context.Context, l Lab, o *Operator) ([]Chain, error) {
	var out []Chain
	checkpoints, key, err := checkpointsOf(l)
	if err != nil {
		return nil, err
	}
	names := []string{"supervisor"}
	for _, w := range o.Node.Topology().Workloads {
		if w.Kind != topology.KindOperator {
			names = append(names, w.Name)
		}
	}
	for _, name := range names {
		text, err := chainText(ctx, l, name)
		if err != nil {
			return out, err
		}
		n, err := audit.Verify(bytes.NewReader(text), name, checkpoints, key)
		if err != nil {
			return out, err
		}
		pins := 0
		for _, c := range checkpoints {
			if c.Workload == name {
				pins++
			}
		}
		out = append(out, Chain{name, n, pins})
	}
	for _, w := range o.Node.Topology().Serving(routeAudit) {
		rows, err := o.businessRows(ctx, w.Name)
		if err != nil {
			return out, err
		}
		tips, err := reportedTips(ctx, l, w.Name)
		if err != nil {
			return out, err
		}
		if err := verifyRows(w.Name, rows, tips); err != nil {
			return out, err
		}
		out = append(out, Chain{w.Name + " (database)", len(rows), len(tips)})
	}
	return out, nil
}

// chainText reads a chain up to its last whole line: its writer may be in the middle of another.
func chainText(ctx context.Context, l Lab, name string) ([]byte, error) {
	r, err := l.Audit(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read audit of %s: %w", name, err)
	}
	return text[:bytes.LastIndexByte(text, '\n')+1], nil
}

func checkpointsOf(l Lab) ([]audit.Checkpoint, ed25519.PublicKey, error) {
	n, ok := l.(Notary)
	if !ok {
		return nil, nil, nil
	}
	lines, public, err := n.Checkpoints()
	if err != nil {
		return nil, nil, err
	}
	if len(public) != ed25519.PublicKeySize {
		return nil, nil, fmt.Errorf("read the audit's public key: %d bytes, want %d", len(public), ed25519.PublicKeySize)
	}
	var out []audit.Checkpoint
	d := json.NewDecoder(bytes.NewReader(lines[:bytes.LastIndexByte(lines, '\n')+1]))
	for {
		var c audit.Checkpoint
		if err := d.Decode(&c); errors.Is(err, io.EOF) {
			return out, public, nil
		} else if err != nil {
			return nil, nil, fmt.Errorf("read checkpoints: entry %d: %w", len(out)+1, err)
		}
		out = append(out, c)
	}
}

// reportedTips are the ends of a writer's rows that it reported in its own chain of decisions: sequence number to hash.
func reportedTips(ctx context.Context, l Lab, name string) (map[int64]string, error) {
	entries, err := Entries(ctx, l, name)
	if err != nil {
		return nil, err
	}
	tips := map[int64]string{}
	for _, e := range entries {
		if e.Kind != audit.KindTip {
			continue
		}
		seq, hash, _ := strings.Cut(e.Detail, " ")
		n, err := strconv.ParseInt(seq, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read audit of %s, seq %d: tip %q: %w", name, e.Seq, e.Detail, err)
		}
		tips[n] = hash
	}
	return tips, nil
}

// verifyRows finds the first row that does not continue the one before it or differs from a reported end.
func verifyRows(name string, rows []audit.Row, tips map[int64]string) error {
	prev := ""
	for i, r := range rows {
		bad := func(what string) error {
			return fmt.Errorf("audit rows of %s, row %d (seq %d): %s", name, i+1, r.Seq, what)
		}
		switch {
		case r.Chain != name:
			return bad("a row of " + r.Chain)
		case r.Seq != int64(i)+1:
			return bad("something was removed, inserted or moved before it")
		case r.Prev != prev:
			return bad("does not continue the row before it")
		case r.Sum() != r.Hash:
			return bad("was edited: its hash does not fit its content")
		}
		if want, ok := tips[r.Seq]; ok && want != r.Hash {
			return bad("differs from what its writer reported: the chain was rewritten")
		}
		prev = r.Hash
	}
	for seq := range tips {
		if seq > int64(len(rows)) {
			return fmt.Errorf("audit rows of %s end at %d, but its writer reported %d: the end was cut off", name, len(rows), seq)
		}
	}
	return nil
}

// businessRows reads a writer's rows, page by page.
func (o *Operator) businessRows(ctx context.Context, workload string) ([]audit.Row, error) {
	const page = 10_000
	var rows []audit.Row
	for {
		after := int64(0)
		if len(rows) > 0 {
			after = rows[len(rows)-1].Seq
		}
		more, err := o.businessPage(ctx, workload, after, page)
		if err != nil {
			return nil, fmt.Errorf("read audit rows of %s after %d: %w", workload, after, err)
		}
		rows = append(rows, more...)
		if len(more) < page {
			return rows, nil
		}
	}
}

func (o *Operator) businessPage(ctx context.Context, workload string, after int64, limit int) ([]audit.Row, error) {
	resp, err := o.Node.Peer(workload).Get(ctx, fmt.Sprintf("%s?after=%d&limit=%d", routeAudit.Path(), after, limit))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %d", resp.StatusCode)
	}
	var rows []audit.Row
	d := json.NewDecoder(resp.Body)
	for {
		var r audit.Row
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return rows, nil
		} else if err != nil {
			return nil, fmt.Errorf("row %d: %w", len(rows)+1, err)
		}
		rows = append(rows, r)
	}
}

// TailAudit writes decisions as they are made, of the workloads named or of all, until ctx ends.
func TailAudit(ctx context.Context, l Lab, names []string, w io.Writer) error {
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
			return &Error{Code: ExitUsage, What: "follow the audit", Why: fmt.Errorf("there is no workload %q; there are %s", name, strings.Join(known, ", "))}
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
			return nil
		case err := <-failed:
			return err
		case line := <-lines:
			var e audit.Entry
			if err := json.Unmarshal(line, &e); err != nil {
				return fmt.Errorf("follow the audit: %w", err)
			}
			if _, err := fmt.Fprintln(w, strings.Join(slices.DeleteFunc([]string{
				e.At.Format("15:04:05.000"), e.Workload, e.Kind, e.Outcome, e.Reason, e.Peer, e.Route, e.Event, e.Person, e.Detail,
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
		if pause(ctx, 50*time.Millisecond) != nil {
			return nil
		}
	}
}

// ExportAudit writes everything that VerifyAudit reads, as JSON lines: {"chain": …, "entry"|"checkpoint"|"row"|"key": …}.
func ExportAudit(ctx context.Context, l Lab, o *Operator, w io.Writer) error {
	type line struct {
		Chain      string            `json:"chain"`
		Entry      *audit.Entry      `json:"entry,omitempty"`
		Checkpoint *audit.Checkpoint `json:"checkpoint,omitempty"`
		Row        *audit.Row        `json:"row,omitempty"`
		Key        []byte            `json:"key,omitempty"` // Ed25519, public
	}
	out := json.NewEncoder(w)
	checkpoints, key, err := checkpointsOf(l)
	if err != nil {
		return err
	}
	if err := out.Encode(line{Chain: "supervisor", Key: key}); err != nil {
		return err
	}
	for _, c := range checkpoints {
		if err := out.Encode(line{Chain: c.Workload, Checkpoint: &c}); err != nil {
			return err
		}
	}
	for _, x := range o.Node.Topology().Workloads {
		if x.Kind == topology.KindOperator {
			continue
		}
		entries, err := Entries(ctx, l, x.Name)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := out.Encode(line{Chain: x.Name, Entry: &e}); err != nil {
				return err
			}
		}
	}
	for _, x := range o.Node.Topology().Serving(routeAudit) {
		rows, err := o.businessRows(ctx, x.Name)
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
