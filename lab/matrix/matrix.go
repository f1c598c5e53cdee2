// Package matrix tries every caller on every route of a lab, and compares the outcomes with the policy.
//
// The callers are the workloads, each with its own certificate, and strangers who must be refused: without a
// certificate, with a forged or expired one, over plaintext, and so on.
package matrix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/security-training/lab"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
	"example.org/security-training/services/wait"
	"example.org/security-training/synth/nearest"
)

// Cell is one caller on one route: the outcome that the policy demands, and the one that was measured.
type Cell struct {
	Caller   string           `json:"caller"`
	Callee   string           `json:"callee"`
	Route    topology.Route   `json:"route"`
	Expected topology.Outcome `json:"expected"`
	Measured topology.Outcome `json:"measured"` // on a new connection; probe.Undecided if the callee is down
	Kept     topology.Outcome `json:"kept"`     // on a connection that was opened before
	Status   int              `json:"status"`   // of the answer on the new connection, 0 if there was none
	Reason   string           `json:"reason,omitempty"`
	OK       bool             `json:"ok"`
	// Running is the decision of the running policy, if it differs from the one of the shipped policy.
	Running topology.Outcome `json:"running,omitempty"`
}

// asExpected says whether the cell was measured as expected. A refusal also needs a reason.
func (c *Cell) asExpected() bool {
	return c.Measured == c.Expected && c.Kept == c.Expected && c.Running == "" &&
		(c.Measured != topology.Refused || c.Reason != "")
}

// The policies that a matrix can be compared with.
const (
	AgainstShipped = "shipped" // the policy that the lab was made with
	AgainstRunning = "running" // the policy in force, which may have been edited
)

// Options restrict a matrix to some callers and callees, and choose the policy that it is compared with.
type Options struct {
	Against string // AgainstShipped, the default, or AgainstRunning
	Caller  string // a workload, or one of Strangers; "": all
	Callee  string // a workload; "": all
}

// policies returns the policy that the matrix is compared with, and the running one. If the running policy has a fault,
// the shipped one stands in for it.
func (o Options) policies(p lab.Policy) (topo, running *topology.Topology, err error) {
	running, fault := lab.RunningPolicy(p)
	switch o.Against {
	case "", AgainstShipped:
		if topo, err = lab.ShippedPolicy(p); err != nil {
			return nil, nil, err
		}
		if fault != nil {
			running = topo
		}
		return topo, running, nil
	case AgainstRunning:
		return running, running, fault
	}
	return nil, nil, &lab.Error{
		Code: lab.ExitUsage,
		What: "try the matrix",
		Why:  fmt.Errorf("against %q: want %s or %s", o.Against, AgainstShipped, AgainstRunning),
	}
}

// narrow returns the callers and callees that o asks for.
func (o Options) narrow(topo *topology.Topology) (callers []string, callees []topology.Workload, err error) {
	var all, serving []string
	for _, w := range topo.Workloads {
		all = append(all, w.Name)
		if len(w.Routes()) > 0 {
			serving = append(serving, w.Name)
		}
		if (o.Callee == "" || o.Callee == w.Name) && len(w.Routes()) > 0 {
			callees = append(callees, w)
		}
	}
	for _, s := range Strangers {
		all = append(all, s.Name)
	}
	callers = all
	if o.Caller != "" {
		callers = []string{o.Caller}
		if !slices.Contains(all, o.Caller) {
			return nil, nil, &lab.Error{
				Code: lab.ExitUsage,
				What: "try the matrix",
				Why: fmt.Errorf(
					"there is no caller %q%s; there are %s", o.Caller, nearest.Hint(o.Caller, all), strings.Join(all, ", "),
				),
			}
		}
	}
	if len(callees) == 0 {
		return nil, nil, &lab.Error{
			Code: lab.ExitUsage,
			What: "try the matrix",
			Why:  fmt.Errorf("there is no callee %q that serves anything%s", o.Callee, nearest.Hint(o.Callee, serving)),
		}
	}
	return callers, callees, nil
}

// Try tries every caller, strangers included, on every route, on a new connection and on a kept one.
func Try(ctx context.Context, l lab.Lab, o Options) ([]Cell, error) {
	kept, ok := l.(lab.Policy)
	if !ok {
		return nil, fmt.Errorf("try the matrix: %T keeps no policy here", l)
	}
	topo, running, err := o.policies(kept)
	if err != nil {
		return nil, err
	}
	callers, callees, err := o.narrow(topo)
	if err != nil {
		return nil, err
	}
	status, err := l.Status(ctx)
	if err != nil {
		return nil, err
	}
	addr := map[string]string{}
	for _, w := range status.Workloads {
		addr[w.Name] = w.Address
	}
	began := time.Now()
	var mu sync.Mutex
	var cells []*Cell
	serials := map[string]*Cell{} // by callee and serial number of the caller's certificate
	group, trying := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, caller := range callers {
		for _, callee := range callees {
			routes := callee.Routes()
			row := make([]*Cell, len(routes))
			for i, route := range routes {
				row[i] = &Cell{Caller: caller, Callee: callee.Name, Route: route, Expected: topo.Decide(caller, callee.Name, route)}
				if is := running.Decide(caller, callee.Name, route); is != row[i].Expected {
					row[i].Running = is
				}
			}
			cells = append(cells, row...)
			group.Go(func() error {
				who, err := Impostor(trying, l, topo, caller, SomeCaller(topo, callee))
				if err != nil {
					return err
				}
				if who.SVID != nil {
					mu.Lock()
					serials[callee.Name+" "+fmt.Sprintf("%x", who.SVID.Certificates[0].SerialNumber)] = row[0]
					mu.Unlock()
				}
				tryRow(trying, addr[callee.Name], who, row)
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("try the matrix: %w", err)
	}
	if err := explain(ctx, l, topo, cells, serials, began); err != nil {
		return nil, err
	}
	out := make([]Cell, len(cells))
	for i, c := range cells {
		c.OK = c.asExpected()
		out[i] = *c
	}
	return out, nil
}

func tryRow(ctx context.Context, addr string, who probe.Caller, row []*Cell) {
	kept, err := probe.Open(ctx, addr, who)
	without := topology.Refused // the outcome of a request if there is no kept connection
	switch {
	case err == nil:
		defer kept.Close()
	case errors.Is(err, probe.ErrNobody):
		without = probe.Undecided
	}
	for _, cell := range row {
		r := probe.Once(ctx, addr, who, cell.Route)
		cell.Measured, cell.Reason, cell.Status = r.Outcome, r.Reason, r.Status
		cell.Kept = without
		if kept != nil {
			r := kept.Try(ctx, cell.Route)
			cell.Kept = r.Outcome
			if r.Outcome == topology.Refused || errors.Is(r.Err, probe.ErrNobody) { // the server closed it, or does not answer
				kept.Close()
				kept, without = nil, r.Outcome
			}
		}
	}
}

// explain fills in why each call was refused. Only the callee knows the reason, and it writes the reason to its audit,
// possibly a moment after it has refused: explain waits up to five seconds for all of them. A cell whose reason is
// still missing then keeps an empty one, and so does not count as expected.
func explain(
	ctx context.Context,
	l lab.Lab,
	topo *topology.Topology,
	cells []*Cell,
	serials map[string]*Cell,
	began time.Time,
) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, w := range topo.Workloads {
		unexplained := refusedBy(w.Name, cells)
		for len(unexplained) > 0 {
			entries, err := lab.Entries(ctx, l, w.Name)
			if err != nil && ctx.Err() == nil {
				return err
			}
			reasons := reasonsOf(entries, w.Name, serials, began)
			unexplained = slices.DeleteFunc(unexplained, func(c *Cell) bool {
				c.Reason = reasons[c.Caller]
				return c.Reason != ""
			})
			if len(unexplained) > 0 && wait.For(ctx, 20*time.Millisecond) != nil {
				break
			}
		}
	}
	return nil
}

// refusedBy returns the cells that the callee refused and whose reason is not known yet.
func refusedBy(callee string, cells []*Cell) []*Cell {
	var list []*Cell
	for _, c := range cells {
		if c.Callee == callee && c.Measured == topology.Refused && c.Reason == "" {
			list = append(list, c)
		}
	}
	return list
}

// reasonsOf reads the reasons of refusals from a callee's audit, by the caller's name. An entry belongs to the caller
// whose certificate has the entry's serial number. An entry has no serial number if the callee never read a
// certificate: it belongs to the stranger who is refused for that reason, if it was written after the matrix began.
func reasonsOf(entries []audit.Entry, callee string, serials map[string]*Cell, began time.Time) map[string]string {
	reasons := map[string]string{}
	for _, e := range entries {
		if e.Outcome != string(topology.Refused) {
			continue
		}
		if c := serials[callee+" "+e.Serial]; c != nil {
			reasons[c.Caller] = e.Reason
		}
		for _, s := range Strangers {
			if e.Serial == "" && e.Reason == s.Reason && !e.At.Before(began) {
				reasons[s.Name] = e.Reason
			}
		}
	}
	return reasons
}
