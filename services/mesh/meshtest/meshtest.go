// Package meshtest runs a whole topology, or any part of it, in one process: an in-memory CA, real TLS, real sockets.
package meshtest

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/topology"
)

// Net is one trust domain on one loopback address.
type Net struct {
	Topology *topology.Topology
	CA       *authority.CA
	Foreign  *authority.CA // a federated domain: its bundle is known, its workloads are listed nowhere
	Host     string
	File     string // the topology, for edits
	Now      func() time.Time

	dir string
	mu  sync.Mutex
	ids map[string]*mesh.Held
	cas []*x509.Certificate // the bundle
}

// Start creates a net from the topology in text. Nothing runs before Join.
func Start(t testing.TB, text []byte) *Net {
	t.Helper()
	topo, err := topology.FromYAML(text)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ca, err := authority.New(topo.Domain(), now, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := authority.New(spiffeid.RequireTrustDomainFromString("partner.example.net"), now, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	n := &Net{Topology: topo, CA: ca, Foreign: foreign, Now: time.Now, dir: t.TempDir(), ids: map[string]*mesh.Held{},
		cas: []*x509.Certificate{ca.Cert}}
	n.Host = freeHost(t, topo)
	n.File = filepath.Join(n.dir, "topology.yaml")
	if err := os.WriteFile(n.File, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// hostsInUse are the addresses of this process's nets, since parallel tests look for one at the same time.
var hostsInUse sync.Map

// freeHost finds a loopback address on which every port of the topology is free. The ports are fixed, so each net and
// each lab has its own address.
func freeHost(t testing.TB, topo *topology.Topology) string {
	t.Helper()
	for try := range 200 {
		x := os.Getpid()*131 + int(time.Now().UnixNano()/1000) + try*7919
		host := fmt.Sprintf("127.%d.%d.%d", 64+x%120, x/120%250, 2+x/30000%250)
		if _, taken := hostsInUse.LoadOrStore(host, true); !taken && free(host, topo) {
			return host
		}
	}
	t.Fatal("find a loopback address: 200 were taken, or this system has only 127.0.0.1")
	return ""
}

func free(host string, topo *topology.Topology) bool {
	for _, w := range topo.Workloads {
		for _, port := range []int{w.Port, w.Health} {
			if port == 0 {
				continue
			}
			l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				return false
			}
			l.Close()
		}
	}
	return true
}

// Bundles are what members verify others with: one bundle for each domain, never merged.
func (n *Net) Bundles() *x509bundle.Set {
	n.mu.Lock()
	defer n.mu.Unlock()
	return x509bundle.NewSet(
		x509bundle.FromX509Authorities(n.Topology.Domain(), n.cas),
		x509bundle.FromX509Authorities(n.Foreign.Domain, []*x509.Certificate{n.Foreign.Cert}),
	)
}

// Trust replaces the domain's authorities and tells every member.
func (n *Net) Trust(cas ...*x509.Certificate) {
	n.mu.Lock()
	n.cas = cas
	held := make([]*mesh.Held, 0, len(n.ids))
	for _, h := range n.ids {
		held = append(held, h)
	}
	n.mu.Unlock()
	bundles := n.Bundles()
	for _, h := range held {
		if id, err := h.Current(); err == nil {
			h.Set(id.SVID, bundles)
		}
	}
}

// Mint issues an SVID of the net's CA for name.
func (n *Net) Mint(t testing.TB, name string, ttl time.Duration, edit func(*x509.Certificate)) *x509svid.SVID {
	t.Helper()
	svid, err := n.CA.Issue(n.Topology.ID(name), n.Now(), ttl, edit)
	if err != nil {
		t.Fatal(err)
	}
	return svid
}

// Identity is the identity of the member called name; tests replace or clear it.
func (n *Net) Identity(name string) *mesh.Held {
	n.mu.Lock()
	defer n.mu.Unlock()
	h, ok := n.ids[name]
	if !ok {
		h = &mesh.Held{}
		n.ids[name] = h
	}
	return h
}

// Config is the configuration that Join uses for name, for tests that change it first.
func (n *Net) Config(name string) mesh.Config {
	return mesh.Config{
		TopologyFile: n.File,
		AuditFile:    n.AuditFile(name),
		Host:         n.Host,
		Identities:   n.Identity(name),
		Now:          n.Now,
		Log:          slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// AuditFile is where name records its decisions.
func (n *Net) AuditFile(name string) string { return filepath.Join(n.dir, name+".audit") }

// Join makes name a member with an SVID of one hour. It does not serve yet.
func (n *Net) Join(t testing.TB, name string) *mesh.Node {
	t.Helper()
	n.Identity(name).Set(n.Mint(t, name, time.Hour, nil), n.Bundles())
	node, err := mesh.Join(t.Context(), name, n.Config(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // a node that has served has closed it already
		if err := node.Audit().Close(); err != nil {
			t.Errorf("close audit of %s: %v", name, err)
		}
	})
	return node
}

// Serve runs node until the test ends, and returns once its mesh port and its health port answer.
func (n *Net) Serve(t testing.TB, node *mesh.Node) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve %s: %v", node.Self().Name, err)
		}
	})
	name := node.Self().Name
	AwaitPort(t, net.JoinHostPort(n.Host, strconv.Itoa(node.Self().Health)))
	AwaitPort(t, n.Addr(name))
	// AwaitPort is itself a caller that closed its connection; later entries are the test's own.
	n.AwaitAudit(t, name, "the first knock", func(e audit.Entry) bool { return e.Reason == string(mesh.HungUp) })
}

// ServeStubs runs every route of node with a handler that answers 204.
func (n *Net) ServeStubs(t testing.TB, node *mesh.Node) {
	t.Helper()
	for _, route := range node.Self().Routes() {
		node.Handle(route, func(w http.ResponseWriter, r *http.Request) error {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return err
			}
			w.WriteHeader(http.StatusNoContent)
			return nil
		})
	}
	n.Serve(t, node)
}

// Addr is the address of name's mesh port.
func (n *Net) Addr(name string) string {
	w, _ := n.Topology.Workload(name)
	return net.JoinHostPort(n.Host, strconv.Itoa(w.Port))
}

// AwaitPort waits until addr accepts a connection.
func AwaitPort(t testing.TB, addr string) {
	t.Helper()
	Await(t, "a listener on "+addr, func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// Await calls cond every few milliseconds until it is true, for at most thirty seconds.
func Await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

// AwaitAudit waits for an entry of name's chain that match accepts.
func (n *Net) AwaitAudit(t testing.TB, name, what string, match func(audit.Entry) bool) audit.Entry {
	t.Helper()
	var found audit.Entry
	Await(t, "an audit entry of "+name+": "+what, func() bool {
		for _, e := range n.Entries(t, name) {
			if match(e) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// Entries reads what name has written to its audit chain.
func (n *Net) Entries(t testing.TB, name string) []audit.Entry {
	t.Helper()
	f, err := os.Open(n.AuditFile(name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	entries, err := audit.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// NoPeople answers 404 to every request, for tests that need a web port and no pages.
var NoPeople = http.NotFoundHandler()
