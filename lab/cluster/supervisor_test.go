package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/services/topology"
)

// socketed makes a lab's folder whose path is short enough for a socket, and returns the socket's path.
func socketed(t *testing.T) (l *control.Lab, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	in := &Installation{
		Runtime: &Runtime{Lookup: func(string) (string, bool) { return "", false }},
		Folder:  control.StateDir(filepath.Join(dir, "lab")),
		Spec:    lab.Spec{Name: "lab"},
	}
	if _, err := in.prepare(); err != nil {
		t.Fatal(err)
	}
	if l, err = control.LabOf(in.Folder, nil); err != nil {
		t.Fatal(err)
	}
	return l, in.Folder.Path("admin.sock")
}

func serve(t *testing.T, socket string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
}

func TestASupervisorThatDoesNotRunNeedsNoEnd(t *testing.T) {
	l, socket := socketed(t)
	notRunning := func(what string) {
		t.Helper()
		if removed, s, err := EndSupervisor(t.Context(), l); err != nil || len(removed) > 0 || s.Spec.Name != "lab" {
			t.Errorf("%s: removed %v of %q, %v", what, removed, s.Spec.Name, err)
		}
	}
	notRunning("no socket")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	notRunning("a socket on which nothing listens")
}

func TestASupervisorThatDoesNotEndKeepsItsFolder(t *testing.T) {
	for what, h := range map[string]http.HandlerFunc{
		"it refuses": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(
				w, "{}", http.StatusUnprocessableEntity,
			)
		},
		"it hangs":         func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"it goes on":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) },
		"it breaks it off": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		l, socket := socketed(t)
		serve(t, socket, h)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		removed, err := down(ctx, l)
		cancel()
		var e *lab.Error
		if !errors.As(err, &e) || e.Code != lab.ExitTimeout || e.Why == nil || e.Try == "" || len(removed) > 0 {
			t.Errorf("%s: removed %v, %v", what, removed, err)
		}
		if _, err := os.Stat(string(l.StateDir())); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestASupervisorIsEndedWhenItsSocketIsGone(t *testing.T) {
	l, socket := socketed(t)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{}
	asked := 0
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked == 3 {
			go server.Shutdown(context.WithoutCancel(r.Context()))
		}
		_, _ = w.Write([]byte("{}"))
	})
	go server.Serve(listener)
	removed, _, err := EndSupervisor(t.Context(), l)
	if err != nil || len(removed) != 1 || asked < 3 {
		t.Errorf("asked %d times: removed %v, %v", asked, removed, err)
	}
}

// TestTheDatabasesPortIsOneThatIsFree: a lab can be made although another program has the database's port of the
// topology.
func TestTheDatabasesPortIsOneThatIsFree(t *testing.T) {
	in, s := installation(t, nil)
	topo, err := topology.FromFile(in.Folder.Topology())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range topo.Workloads {
		if w.Port == 0 {
			continue
		}
		host, port, err := net.SplitHostPort(s.Addr(w))
		if err != nil || host != s.Host {
			t.Errorf("%s is at %s, %v", w.Name, s.Addr(w), err)
		}
		own := port == strconv.Itoa(w.Port)
		if own == (w.Kind == topology.KindDatabase) {
			t.Errorf("%s, a %s, whose port is %d, is at %s", w.Name, w.Kind, w.Port, s.Addr(w))
		}
	}
}

func TestALabIsForwardedWhereSomethingElseHasTheDatabasesPort(t *testing.T) {
	in, s := installation(t, nil)
	d, err := control.Open(in.Folder, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	database := d.Topo.OfKind(topology.KindDatabase)[0]
	taken, err := net.Listen("tcp", net.JoinHostPort(s.Host, strconv.Itoa(database.Port)))
	if err == nil { // otherwise it is taken already
		defer taken.Close()
	}
	none := cache.NewIndexer(
		cache.MetaNamespaceKeyFunc,
		cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
	)
	x := &supervisor{control: d, settings: s, pods: listers.NewPodLister(none)}
	if err := x.forward(t.Context(), d.Log); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.Addr(database))
	if err != nil {
		t.Fatalf("nothing listens on the address in the status: %v", err)
	}
	c.Close()
}
