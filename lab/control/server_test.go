package control

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab"
	"example.org/security-training/lab/progress"
	"example.org/security-training/manifests"
)

// fakeBackend is a lab without workloads.
type fakeBackend struct{ look func() lab.Status }

func (b fakeBackend) Status() lab.Status { return b.look() }

func (fakeBackend) Changed() <-chan struct{} { return nil }

func (fakeBackend) Restart(context.Context, string) error { return nil }

func (fakeBackend) Order(context.Context, Order) error { return nil }

func (fakeBackend) Mint(
	context.Context,
	spiffeid.ID,
	time.Time,
	time.Duration,
) (*x509svid.SVID, []*x509.Certificate, error) {
	return nil, nil, nil
}

// opened makes a server in a folder of its own, and the lab that is its client.
func opened(t *testing.T) (*Server, *Lab) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab-") // the test's own folder has too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := StateDir(filepath.Join(dir, "lab"))
	if err := os.Mkdir(string(f), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Topology(), manifests.Topology(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(Settings{Runtime: "fake", Spec: lab.Spec{Name: "lab"}, Host: "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(f, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := LabOf(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, l
}

// TestWhoOrdersTheEndGetsTheWholeAnswer delays the handler just after the order to end. A supervisor that closed its
// server then would end before the answer is sent.
func TestWhoOrdersTheEndGetsTheWholeAnswer(t *testing.T) {
	s, l := opened(t)
	closed := make(chan error, 1)
	end := func() {
		go func() { closed <- s.Close() }()
		select {
		case err := <-closed:
			t.Errorf("the server closed (%v) before the answer was given", err)
			closed <- err
		case <-time.After(100 * time.Millisecond):
		}
	}
	status := lab.Status{Name: "lab", Workloads: make([]lab.WorkloadStatus, 500)} // larger than many buffers
	if err := s.Serve(fakeBackend{func() lab.Status { return status }}, end, make(chan error, 1)); err != nil {
		t.Fatal(err)
	}
	if err := l.End(t.Context()); err != nil {
		t.Errorf("who ordered the end sees %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := l.Status(t.Context()); err == nil {
		t.Error("a closed server answers")
	}
}

// An error names a process on which workloads depend before the workloads, and a process that ends again and again is
// not waited for.
func TestAFoundationThatEndsAgainAndAgainIsNamedAtOnce(t *testing.T) {
	s, l := opened(t)
	restarts := 7 // from before the wait
	look := func() lab.Status {
		st := lab.Status{
			Processes: []lab.ProcessStatus{
				{Name: "supervisor"},
				{Name: "spire-server", Restarts: restarts, Why: "CrashLoopBackOff"},
			},
			Workloads: []lab.WorkloadStatus{{Name: "lms", Why: "says that it is not ready"}},
		}
		restarts += 5 // each look finds five more
		return st
	}
	if err := s.Serve(fakeBackend{look}, func() {}, make(chan error, 1)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	err := l.AwaitReady(t.Context(), time.Minute)
	var e *lab.Error
	if !errors.As(err, &e) || e.Code != lab.ExitPartly || e.What != "start spire-server" ||
		e.Try != "lab logs spire-server" ||
		!strings.HasSuffix(e.Log, "logs/spire-server.log") {
		t.Errorf("%+v", err)
	}
	if restarts < 7+5 {
		t.Errorf("given up after %d restarts of this life", restarts-7)
	}
}

func TestWhoWaitsForTheirTurnIsToldSoAndMayGiveUp(t *testing.T) {
	f := StateDir(filepath.Join(t.TempDir(), "labs", "lab"))
	first, err := f.Turn(t.Context(), progress.Quiet{})
	if err != nil {
		t.Fatal(err)
	}
	told := &waiting{said: make(chan string, 1)}
	ctx, giveUp := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := f.Turn(ctx, told)
		ended <- err
	}()
	if said := <-told.said; !strings.Contains(said, "waiting") {
		t.Errorf("it says %q", said)
	}
	giveUp()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	next, err := f.Turn(t.Context(), progress.Quiet{})
	if err != nil {
		t.Fatal(err)
	}
	next.Close()
}

// waiting is a Reporter that passes on what is said.
type waiting struct {
	progress.Quiet
	said chan string
}

func (w *waiting) Say(format string, args ...any) { w.said <- fmt.Sprintf(format, args...) }

// AwaitWorkload ignores the other workloads, and the supervisor's chain records who was restarted.
func TestOneWorkloadIsWaitedForAndItsRestartIsRecorded(t *testing.T) {
	s, l := opened(t)
	look := func() lab.Status {
		return lab.Status{
			Workloads: []lab.WorkloadStatus{{Name: "lms", Ready: true}, {Name: "llm-gateway", Why: "is broken"}},
		}
	}
	if err := s.Serve(fakeBackend{look}, func() {}, make(chan error, 1)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := l.AwaitWorkload(t.Context(), "lms", time.Minute); err != nil {
		t.Errorf("one that is ready: %v", err)
	}
	var e *lab.Error
	if err := l.AwaitWorkload(t.Context(), "llm-gateway", 100*time.Millisecond); !errors.As(err, &e) ||
		e.Code != lab.ExitTimeout || !strings.Contains(err.Error(), "is broken") {
		t.Errorf("one that is not: %v", err)
	}
	if err := errors.Join(l.Restart(t.Context(), "lms"), l.RestartWith(t.Context(), "lms", "a-build")); err != nil {
		t.Fatal(err)
	}
	entries, err := lab.Entries(t.Context(), l, "supervisor")
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, e := range entries {
		if e.Kind == "restart" {
			told = append(told, e.Detail)
		}
	}
	if strings.Join(told, "; ") != "lms; lms takes up program a-build" {
		t.Errorf("the chain tells of %q", told)
	}
}
