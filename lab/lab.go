// Package lab brings a whole company up on one machine, and takes it down again without a trace.
//
// A Runtime knows one way to do that; a Lab is one that is up. What only one runtime can do is a second small interface,
// found by type assertion.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab/progress"
	"example.org/security-training/services/audit"
)

// Spec is what a lab is made from.
type Spec struct {
	Name     string  `json:"name"`
	People   int     `json:"people"`
	Seed     uint64  `json:"seed"`
	Days     int     `json:"days"`
	Pace     float64 `json:"pace"`     // how many seconds of the lab pass in one, after the history
	Identity string  `json:"identity"` // auto, embedded or spire
	Listen   string  `json:"listen,omitempty"`
}

// Runtime is one way to run a lab.
type Runtime interface {
	// Up brings the lab of spec up, or repairs it, and returns when every workload is ready. A healthy lab is left alone.
	Up(ctx context.Context, spec Spec, p progress.Reporter) (Lab, error)
	// Find returns the lab called name, or ErrNone. It asks the runtime, not a file.
	Find(ctx context.Context, name string) (Lab, error)
}

// Renewer is a Runtime that can give the workloads of a running lab the programs that were built since they were
// started.
type Renewer interface {
	// Outdated lists the workloads of l that run another program than the one that was built last, in the topology's
	// order.
	Outdated(ctx context.Context, l Lab) ([]string, error)
	// Renew restarts workloads, one after another: each gets the program that was built last and is ready again before
	// the next one's turn.
	Renew(ctx context.Context, l Lab, workloads []string, p progress.Reporter) error
}

// Lab is a lab that is up, wholly or partly.
type Lab interface {
	// Status says how each workload is.
	Status(ctx context.Context) (Status, error)
	// Addr is the host and port of a workload's mesh listener.
	Addr(ctx context.Context, workload string) (string, error)
	// Mint is the CA speaking: an SVID for any ID of the lab's domain, and the bundles to verify others by.
	Mint(ctx context.Context, id spiffeid.ID, ttl time.Duration) (*x509svid.SVID, *x509bundle.Set, error)
	// Audit is a workload's own chain, as far as it is written.
	Audit(ctx context.Context, workload string) (io.ReadCloser, error)
	// Restart ends a workload and starts it again.
	Restart(ctx context.Context, workload string) error
	// Down ends everything and removes it. It says what it removed.
	Down(ctx context.Context) ([]string, error)
}

// Status is a lab's state. Its JSON keys are a contract.
type Status struct {
	Name      string           `json:"name"`
	Runtime   string           `json:"runtime"`
	Identity  string           `json:"identity"` // who issues it
	Isolated  string           `json:"isolation"`
	Healthy   bool             `json:"healthy"`
	Seeded    bool             `json:"seeded"`
	Dashboard string           `json:"dashboard"`
	Room      string           `json:"room"` // the dashboard by HTTPS, for people with certificates
	Folder    string           `json:"folder"`
	Spec      Spec             `json:"spec"`
	Workloads []WorkloadStatus `json:"workloads"`
	Processes []ProcessStatus  `json:"processes"` // those that are no row of the topology
	Counts    *Counts          `json:"counts,omitempty"`
}

// Counts is how far events have come.
type Counts struct {
	Events      int64             `json:"events"` // scored
	DeadLetters int64             `json:"dead_letters"`
	Lag         map[string]uint64 `json:"lag"` // by collector: accepted and not yet scored
	// GivenUp is what collectors accepted and had to give up, rejected or dead-lettered: how many, by collector and
	// reason.
	GivenUp map[string]map[string]uint64 `json:"given_up"`
	Clock   time.Time                    `json:"clock"`
}

// ProcessStatus is a process of the runtime's own. One that runs in a cluster, or does not run, has no PID here.
type ProcessStatus struct {
	Name     string `json:"name"`
	PID      int    `json:"pid"`
	Restarts int    `json:"restarts"`
	Why      string `json:"why,omitempty"`     // why it does not run, as far as it is known
	Program  string `json:"program,omitempty"` // which build of the lab's own program it runs
}

// WorkloadStatus is the state of one row of the topology.
type WorkloadStatus struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind"`
	State    string    `json:"state"` // ready, starting, restarting, or unknown: nobody there answers
	Ready    bool      `json:"ready"`
	Address  string    `json:"address"`
	SPIFFEID string    `json:"spiffe_id"`
	Serial   string    `json:"svid_serial,omitempty"`
	Expires  time.Time `json:"svid_expires,omitzero"`
	PID      int       `json:"pid,omitempty"`
	Pod      string    `json:"pod,omitempty"`
	UID      int       `json:"uid"`
	Restarts int       `json:"restarts"`
	Why      string    `json:"why,omitempty"` // why it is not ready, as far as it is known
	// Program is which build of its program it runs: a build ID, or in a cluster the image.
	Program string `json:"program,omitempty"`
}

// ErrNone says that there is no such lab.
var ErrNone = errors.New("no such lab")

// Exit codes of the command line.
const (
	ExitAssertion    = 1
	ExitUsage        = 2
	ExitPrecondition = 3
	ExitTimeout      = 4
	ExitPartly       = 5
	ExitConflict     = 6
	ExitInterrupted  = 130
)

// Error is what people see: what failed, why, what to try, and where to read more.
type Error struct {
	Code int    // an exit code
	What string // the act
	Why  error
	Try  string // a command
	Log  string // a file
	Last string // the last lines of it
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %v", e.What, e.Why)
	if e.Try != "" {
		s += "\n  try:  " + e.Try
	}
	if e.Log != "" {
		s += "\n  log:  " + e.Log
	}
	if e.Last != "" {
		s += "\n" + e.Last
	}
	return s
}

func (e *Error) Unwrap() error { return e.Why }

// Entries reads a workload's chain of decisions.
func Entries(ctx context.Context, l Lab, workload string) ([]audit.Entry, error) {
	r, err := l.Audit(ctx, workload)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return audit.Read(r)
}

// SortedKeys are the keys of m in order.
func SortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
