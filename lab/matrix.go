package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"golang.org/x/sync/errgroup"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

// Cell is one caller on one route: what topology promises, and what was measured.
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
	// What the policy in force says, where the one that the lab came with says otherwise.
	Running topology.Outcome `json:"running,omitempty"`
}

// What a matrix can be held against.
const (
	AgainstShipped = "shipped" // the policy that the lab came with
	AgainstRunning = "running" // the one in force, as it was edited
)

// MatrixOptions narrow a matrix, and say what it is held against.
type MatrixOptions struct {
	Against string // AgainstShipped, which is the default, or AgainstRunning
	Caller  string // a workload, or one of Strangers; all where it is empty
	Callee  string // a workload; all where it is empty
}

// Strangers are callers that no topology lists.
const (
	Nobody   = "nobody"   // no certificate
	Stranger = "stranger" // an ID of the domain that is not listed
	Foreign  = "foreign"  // an ID of another domain, of a CA that speaks for it
	Forged   = "forged"   // a listed ID, signed by somebody else
	Ended    = "expired"  // a listed ID whose life is over
	Clear    = "plaintext"
	OldTLS   = "tls12"
)

// Strangers lists them in display order, each with why it is refused.
var Strangers = []struct{ Name, Reason string }{
	{Nobody, "no_certificate"}, {Stranger, "not_listed"}, {Foreign, "foreign_trust_domain"}, {Forged, "unknown_issuer"},
	{Ended, "expired"}, {Clear, "plaintext"}, {OldTLS, "tls_version"},
}

// PastMinter is a Lab whose CA signs certificates for any time: their life begins from after now, before it if negative.
type PastMinter interface {
	MintFrom(ctx context.Context, id spiffeid.ID, from, ttl time.Duration) (*x509svid.SVID, *x509bundle.Set, error)
}

// Impostor makes the credentials of a caller: a workload's own, or a stranger's. As names the workload that a forged or
// expired certificate claims to be.
func Impostor(ctx context.Context, l Lab, topo *topology.Topology, who, as string) (probe.Caller, error) {
	mint := func(id spiffeid.ID, ttl time.Duration) (probe.Caller, error) {
		svid, _, err := l.Mint(ctx, id, ttl)
		return probe.Caller{SVID: svid}, err
	}
	now := time.Now()
	switch who {
	case Nobody:
		return probe.Caller{}, nil
	case Clear:
		return probe.Caller{Manner: probe.Plaintext}, nil
	case OldTLS:
		c, err := mint(topo.ID(as), time.Hour)
		c.Manner = probe.TLS12
		return c, err
	case Stranger:
		return mint(spiffeid.RequireFromPath(topo.Domain(), "/mallory"), time.Hour)
	case Ended:
		past, ok := l.(PastMinter)
		if !ok {
			return probe.Caller{}, fmt.Errorf("make an expired caller: %T cannot mint for the past", l)
		}
		svid, _, err := past.MintFrom(ctx, topo.ID(as), -time.Hour, 30*time.Minute)
		return probe.Caller{SVID: svid}, err
	case Foreign, Forged:
		domain := topo.Domain()
		if who == Foreign {
			domain = spiffeid.RequireTrustDomainFromString("elsewhere.example.net")
		}
		ca, err := authority.New(domain, now, time.Hour)
		if err != nil {
			return probe.Caller{}, err
		}
		svid, err := ca.Issue(spiffeid.RequireFromPath(domain, "/"+as), now, time.Hour, nil)
		return probe.Caller{SVID: svid}, err
	}
	return mint(topo.ID(who), time.Hour)
}

// policies are what a matrix is held against, and the one in force; with a fault in that one, the latter is the former.
func (o MatrixOptions) policies(p Policy) (topo, running *topology.Topology, err error) {
	running, fault := RunningPolicy(p)
	switch o.Against {
	case "", AgainstShipped:
		if topo, err = ShippedPolicy(p); err != nil {
			return nil, nil, err
		}
		if fault != nil {
			running = topo
		}
		return topo, running, nil
	case AgainstRunning:
		return running, running, fault
	}
	return nil, nil, &Error{
		Code: ExitUsage,
		What: "try the matrix",
		Why:  fmt.Errorf("against %q: want %s or %s", o.Against, AgainstShipped, AgainstRunning),
	}
}

// narrow gives the callers and callees that are asked for.
func (o MatrixOptions) narrow(topo *topology.Topology) (callers []string, callees []topology.Workload, err error) {
	var all []string
	for _, w := range topo.Workloads {
		all = append(all, w.Name)
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
			return nil, nil, &Error{
				Code: ExitUsage,
				What: "try the matrix",
				Why:  fmt.Errorf("there is no caller %q: there are %s", o.Caller, strings.Join(all, ", ")),
			}
		}
	}
	if len(callees) == 0 {
		return nil, nil, &Error{
			Code: ExitUsage,
			What: "try the matrix",
			Why:  fmt.Errorf("there is no callee %q that serves anything", o.Callee),
		}
	}
	return callers, callees, nil
}

// Matrix tries every caller, strangers included, on every route, on a new and on a kept connection.
func Matrix(ctx context.Context, l Lab, o MatrixOptions) ([]Cell, error) {
	kept, ok := l.(Policy)
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
	serials := map[string]*Cell{} // of a refused caller's certificate, by callee
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
				who, err := Impostor(trying, l, topo, caller, someCaller(topo, callee))
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
		c.OK = c.Measured == c.Expected && c.Kept == c.Expected && c.Running == "" &&
			(c.Measured != topology.Refused || c.Reason != "")
		out[i] = *c
	}
	return out, nil
}

// someCaller is a workload that callee admits: what a forger would claim to be.
func someCaller(topo *topology.Topology, callee topology.Workload) string {
	for _, w := range topo.Workloads {
		if topo.Admits(w.Name, callee.Name) {
			return w.Name
		}
	}
	return callee.Name
}

func tryRow(ctx context.Context, addr string, who probe.Caller, row []*Cell) {
	kept, err := probe.Open(ctx, addr, who)
	without := topology.Refused // what a request comes to on a kept connection that is not there
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
			if r.Outcome == topology.Refused || errors.Is(r.Err, probe.ErrNobody) { // the server has closed it, or is silent
				kept.Close()
				kept, without = nil, r.Outcome
			}
		}
	}
}

// explain adds the reasons of refusals, which only the refusing side knows, from its audit; what it is still writing is waited for.
// A caller whose certificate was never read leaves no serial number there: its refusal is told by its reason, noted since began.
func explain(ctx context.Context, l Lab, topo *topology.Topology, cells []*Cell, serials map[string]*Cell, began time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, w := range topo.Workloads {
		var open []*Cell
		for _, c := range cells {
			if c.Callee == w.Name && c.Measured == topology.Refused && c.Reason == "" {
				open = append(open, c)
			}
		}
		for len(open) > 0 {
			entries, err := Entries(ctx, l, w.Name)
			if err != nil && ctx.Err() == nil {
				return err
			}
			reasons := map[string]string{} // by caller
			for _, e := range entries {
				if e.Outcome != string(topology.Refused) {
					continue
				}
				if c := serials[w.Name+" "+e.Serial]; c != nil {
					reasons[c.Caller] = e.Reason
				}
				for _, s := range Strangers {
					if e.Serial == "" && e.Reason == s.Reason && !e.At.Before(began) {
						reasons[s.Name] = e.Reason
					}
				}
			}
			open = slices.DeleteFunc(open, func(c *Cell) bool {
				c.Reason = reasons[c.Caller]
				return c.Reason != ""
			})
			if len(open) > 0 && pause(ctx, 20*time.Millisecond) != nil {
				break // a cell without a reason is not as expected
			}
		}
	}
	return nil
}

// Entries reads a workload's chain of decisions.
func Entries(ctx context.Context, l Lab, workload string) ([]audit.Entry, error) {
	r, err := l.Audit(ctx, workload)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return audit.Read(r)
}

// WriteMatrixJSON writes cells as one JSON array.
func WriteMatrixJSON(w io.Writer, cells []Cell) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(cells)
}
