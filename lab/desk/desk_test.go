package desk

import (
	"context"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab"
	"example.org/security-training/manifests"
)

// fakeBench is a lab without workloads.
type fakeBench struct{ status lab.Status }

func (b fakeBench) Status() lab.Status                  { return b.status }
func (fakeBench) Changed() <-chan struct{}              { return nil }
func (fakeBench) Restart(context.Context, string) error { return nil }
func (fakeBench) Order(context.Context, Order) error    { return nil }
func (fakeBench) Mint(context.Context, spiffeid.ID, time.Time, time.Duration) (*x509svid.SVID, []*x509.Certificate, error) {
	return nil, nil, nil
}

// opened is a desk in a folder of its own, and the lab that stands before it.
func opened(t *testing.T) (*Desk, *Lab) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab-") // the test's own folder has too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := Folder(filepath.Join(dir, "lab"))
	if err := os.Mkdir(string(f), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Topology(), manifests.Topology(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(Settings{Runtime: "fake", Spec: lab.Spec{Name: "lab"}, Host: "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	d, err := Open(f, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := LabOf(f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d, l
}

// TestWhoOrdersTheEndGetsTheWholeAnswer holds up the handler just after the order to end: a supervisor that closed its desk there
// would end before its answer is out.
func TestWhoOrdersTheEndGetsTheWholeAnswer(t *testing.T) {
	d, l := opened(t)
	closed := make(chan error, 1)
	end := func() {
		go func() { closed <- d.Close() }()
		select {
		case err := <-closed:
			t.Errorf("the desk closed (%v) before the answer was given", err)
			closed <- err
		case <-time.After(100 * time.Millisecond):
		}
	}
	status := lab.Status{Name: "lab", Workloads: make([]lab.WorkloadStatus, 500)} // many buffers full
	if err := d.Serve(fakeBench{status}, end, make(chan error, 1)); err != nil {
		t.Fatal(err)
	}
	if err := l.End(t.Context()); err != nil {
		t.Errorf("who ordered the end sees %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := l.Status(t.Context()); err == nil {
		t.Error("a closed desk answers")
	}
}
