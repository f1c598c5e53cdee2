package mesh_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.org/security-training/manifests"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/meshtest"
)

// bySocket asks a unix socket.
func bySocket(t *testing.T, socket, path string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Get("http://workload" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// shortDir is a folder with mode whose name leaves room for a socket's.
func shortDir(t *testing.T, mode os.FileMode) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mesh-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestProfilesAreServedOnTheOwnersSocketAndOnNoPort(t *testing.T) {
	n := meshtest.Start(t, manifests.Topology())
	socket := filepath.Join(shortDir(t, 0o700), "pprof.sock")
	earlier, err := net.Listen("unix", socket) // of a process that was killed: its file is left
	if err != nil {
		t.Fatal(err)
	}
	earlier.(*net.UnixListener).SetUnlinkOnClose(false)
	earlier.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	n.Identity(callee).Set(n.Mint(t, callee, time.Hour, nil), n.Bundles())
	cfg := n.Config(callee)
	cfg.Pprof = socket
	node, err := mesh.Join(ctx, callee, cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.ServeStubs(t, node)
	if fi, err := os.Stat(socket); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("the socket has mode %v, %v", fi.Mode(), err)
	}
	for path, want := range map[string]string{
		"/debug/pprof/":                  "goroutine",
		"/debug/pprof/heap?debug=1":      "heap profile",
		"/debug/pprof/goroutine?debug=1": "servePprof",
		"/debug/pprof/cmdline":           filepath.Base(os.Args[0]),
	} {
		if code, text := bySocket(t, socket, path); code != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%s: %d, want 200 and %q", path, code, want)
		}
	}
	row := node.Self()
	anyone := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := anyone.Get("http://" + net.JoinHostPort(n.Host, strconv.Itoa(row.Health)) + "/debug/pprof/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("the port for health answers %d for profiles", resp.StatusCode)
	}
	stop()
	meshtest.Await(t, "the socket to go with the node", func() bool {
		_, err := os.Stat(socket)
		return os.IsNotExist(err)
	})
}

func TestProfilesAreNotServedWhereOthersMayEnter(t *testing.T) {
	n := meshtest.Start(t, manifests.Topology())
	n.Identity(callee).Set(n.Mint(t, callee, time.Hour, nil), n.Bundles())
	cfg := n.Config(callee)
	cfg.Pprof = filepath.Join(shortDir(t, 0o750), "pprof.sock")
	if _, err := mesh.Join(t.Context(), callee, cfg); err == nil || !strings.Contains(err.Error(), "others may enter") {
		t.Errorf("a folder that a group may enter: %v", err)
	}
	if _, err := os.Stat(cfg.Pprof); !os.IsNotExist(err) {
		t.Errorf("the socket is there: %v", err)
	}
}
