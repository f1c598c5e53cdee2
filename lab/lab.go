// Package lab defines what a lab is: a whole company that one command brings up on one machine, and that another
// command removes without a trace.
//
// A Runtime is one way to run a lab: local processes, kind, or a Kubernetes cluster. A Lab is a lab that is up. A
// feature that only some runtimes have is a small interface of its own, such as Renewer; callers find it by type
// assertion.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab/progress"
	"example.org/security-training/services/audit"
)

// The default size of a lab's company and of its history.
const (
	DefaultPeople = 50
	DefaultDays   = 30
)

// Spec says how a lab is to be made.
type Spec struct {
	Name     string  `json:"name"`
	People   int     `json:"people"`
	Seed     uint64  `json:"seed"`
	Days     int     `json:"days"`
	Pace     float64 `json:"pace"`     // seconds of the lab's time that pass in one second, after the history
	Identity string  `json:"identity"` // auto, embedded or spire
	Listen   string  `json:"listen,omitempty"`
}

// Runtime is one way to run a lab.
type Runtime interface {
	// Up brings up the lab that spec describes, or repairs it, and returns when every workload is ready. It leaves a
	// healthy lab alone.
	Up(ctx context.Context, spec Spec, p progress.Reporter) (Lab, error)
	// Find returns the lab called name, or ErrNone if there is none. It asks the runtime and does not trust a file.
	Find(ctx context.Context, name string) (Lab, error)
}

// Renewer is a Runtime that can give the workloads of a running lab the programs that were built after they were
// started.
type Renewer interface {
	// Outdated lists the workloads of l whose program is not the one that was built last, in the topology's order.
	Outdated(ctx context.Context, l Lab) ([]string, error)
	// Renew restarts workloads one after another. Each one gets the program that was built last, and is ready again
	// before the next one is restarted.
	Renew(ctx context.Context, l Lab, workloads []string, p progress.Reporter) error
}

// Lab is a lab that is up, completely or in part.
type Lab interface {
	// Status returns the state of the lab and of each workload.
	Status(ctx context.Context) (Status, error)
	// Addr returns the host and port of a workload's mesh listener.
	Addr(ctx context.Context, workload string) (string, error)
	// Mint issues an SVID for any ID of the lab's trust domain. It also returns the bundles that verify the others.
	Mint(ctx context.Context, id spiffeid.ID, ttl time.Duration) (*x509svid.SVID, *x509bundle.Set, error)
	// Audit opens a workload's own audit chain, as far as it is written.
	Audit(ctx context.Context, workload string) (io.ReadCloser, error)
	// Restart ends a workload and starts it again.
	Restart(ctx context.Context, workload string) error
	// Down ends and removes everything. It returns a description of each thing that it removed.
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
	Room      string           `json:"room"` // the dashboard's HTTPS address, for people with client certificates
	Folder    string           `json:"folder"`
	Spec      Spec             `json:"spec"`
	Workloads []WorkloadStatus `json:"workloads"`
	Processes []ProcessStatus  `json:"processes"` // processes that are not rows of the topology
	Counts    *Counts          `json:"counts,omitempty"`
}

// Counts says how many events have been processed.
type Counts struct {
	Events      int64             `json:"events"` // scored
	DeadLetters int64             `json:"dead_letters"`
	Lag         map[string]uint64 `json:"lag"` // by collector: accepted and not yet scored
	// GivenUp is the number of events that collectors accepted and then gave up because the scorer rejected or
	// dead-lettered them, by collector and reason.
	GivenUp map[string]map[string]uint64 `json:"given_up"`
	Clock   time.Time                    `json:"clock"`
}

// ProcessStatus is the state of a process of the runtime itself. The PID is 0 if it runs in a cluster or does not run.
type ProcessStatus struct {
	Name     string `json:"name"`
	PID      int    `json:"pid"`
	Restarts int    `json:"restarts"`
	Why      string `json:"why,omitempty"`     // why it does not run, if that is known
	Program  string `json:"program,omitempty"` // which build of the lab's own program it runs
}

// WorkloadStatus is the state of one row of the topology.
type WorkloadStatus struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind"`
	State    string    `json:"state"` // ready, starting, restarting, or unknown if the supervisor cannot tell
	Ready    bool      `json:"ready"`
	Address  string    `json:"address"`
	SPIFFEID string    `json:"spiffe_id"`
	Serial   string    `json:"svid_serial,omitempty"`
	Expires  time.Time `json:"svid_expires,omitzero"`
	PID      int       `json:"pid,omitempty"`
	Pod      string    `json:"pod,omitempty"`
	UID      int       `json:"uid"`
	Restarts int       `json:"restarts"`
	Why      string    `json:"why,omitempty"` // why it is not ready, if that is known
	// Program is the build of the program that it runs: a build ID, or the image in a cluster.
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

// Error is an error for people: what failed, why, what to try, and where to read more.
type Error struct {
	Code int    // an exit code
	What string // what failed
	Why  error
	Try  string // a command that may help
	Log  string // a file
	Last string // the last lines of Log
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

// DiskFull says whether err means that a disk, or a user's quota on it, is full.
func DiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Entries reads a workload's audit chain.
func Entries(ctx context.Context, l Lab, workload string) ([]audit.Entry, error) {
	r, err := l.Audit(ctx, workload)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return audit.Read(r)
}

// SortedKeys returns the keys of m in order.
func SortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
