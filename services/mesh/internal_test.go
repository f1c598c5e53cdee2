package mesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/topology"
)

// two is the smallest topology with a call in it.
const two = `
trustDomain: example.org
workloads:
- {name: a, kind: scorer, binary: a, port: 7001, health: 7002, serves: {"GET /x": [b]}}
- {name: b, kind: dashboard, binary: b, port: 7003, health: 7004, serves: {"GET /x": [a]}}
`

// lone makes a node without listeners or watchers.
func lone(t *testing.T, self string, ca *authority.CA) *Node {
	t.Helper()
	topo, err := topology.FromYAML([]byte(two))
	if err != nil {
		t.Fatal(err)
	}
	held := &Held{}
	svid, err := ca.Issue(topo.ID(self), time.Now(), time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	held.Set(svid, x509bundle.NewSet(x509bundle.FromX509Authorities(ca.Domain, []*x509.Certificate{ca.Cert})))
	row, _ := topo.Workload(self)
	n := &Node{
		self: row, own: credentials{held, time.Now}, log: slog.New(slog.DiscardHandler), peers: map[string]*Client{},
	}
	n.topology.Store(topo)
	n.cfg.AuditFile = filepath.Join(t.TempDir(), self)
	if n.audit, err = audit.Open(n.cfg.AuditFile, self); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.audit.Close() })
	return n
}

func domainCA(t *testing.T) *authority.CA {
	t.Helper()
	ca, err := authority.New(spiffeid.RequireTrustDomainFromString("example.org"), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// shake makes a handshake over a socket and has the server say a word, after which the client holds the session's
// ticket.
func shake(t *testing.T, server, client *tls.Config) (resumed bool, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, c := range []net.Conn{a, b} {
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		done <- err
	}()
	c := tls.Client(b, client)
	clientErr = c.Handshake()
	if clientErr == nil {
		_, clientErr = io.ReadFull(c, make([]byte, 1))
	}
	resumed = c.ConnectionState().DidResume
	if clientErr != nil {
		b.Close()
	}
	return resumed, <-done, clientErr
}

// configs are the two sides as door and Client make them.
func configs(server, client *Node) (*tls.Config, *tls.Config) {
	s := server.own.config(newMeshPort(server).admits)
	s.ClientAuth = tls.RequireAnyClientCert
	s.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return server.own.certificate() }
	c := client.clientConfig(server.self.Name, func(*Peer) {})
	c.ServerName = "a" // sessions are kept by this name
	return s, c
}

func TestNoTicketIsIssuedForAClientThatWouldResume(t *testing.T) {
	ca := domainCA(t)
	s, c := configs(lone(t, "a", ca), lone(t, "b", ca))
	c.SessionTicketsDisabled, c.ClientSessionCache = false, tls.NewLRUClientSessionCache(8)
	for range 3 {
		if resumed, serverErr, clientErr := shake(t, s, c); resumed || serverErr != nil || clientErr != nil {
			t.Fatalf("resumed %v, server %v, client %v; want a full handshake", resumed, serverErr, clientErr)
		}
	}
}

func TestSessionResumedOnPurposeIsRefused(t *testing.T) {
	for _, side := range []string{"the server checks", "the client checks"} {
		t.Run(side, func(t *testing.T) {
			ca := domainCA(t)
			s, c := configs(lone(t, "a", ca), lone(t, "b", ca))
			s.SessionTicketsDisabled = false // as a server would that issues tickets
			c.SessionTicketsDisabled, c.ClientSessionCache = false, tls.NewLRUClientSessionCache(8)
			careless, check := c, func(serverErr, _ error) error { return serverErr }
			if side == "the client checks" {
				careless, check = s, func(_, clientErr error) error { return clientErr }
			}
			careless.VerifyConnection = nil // the other side is a stranger's, and does not look
			if _, serverErr, clientErr := shake(t, s, c); serverErr != nil || clientErr != nil {
				t.Fatalf("the first handshake: server %v, client %v", serverErr, clientErr)
			}
			_, serverErr, clientErr := shake(t, s, c)
			var refusal *Refusal
			if err := check(serverErr, clientErr); !errors.As(err, &refusal) || refusal.Reason != Resumed {
				t.Errorf("the second handshake: server %v, client %v; want %s", serverErr, clientErr, Resumed)
			}
		})
	}
}

// TestHostNamesAreUncheckedOnlyBesideTheCheckByID pairs the two settings that must never come apart.
func TestHostNamesAreUncheckedOnlyBesideTheCheckByID(t *testing.T) {
	ca := domainCA(t)
	n := lone(t, "b", ca)
	for name, c := range map[string]*tls.Config{"peer": n.clientConfig("a", func(*Peer) {}),
		"server": n.own.config(newMeshPort(n).admits)} {
		if c.VerifyConnection == nil || c.MinVersion != tls.VersionTLS13 || !c.SessionTicketsDisabled {
			t.Errorf("%s: VerifyConnection set: %v, at least TLS %x, tickets off: %v", name, c.VerifyConnection != nil,
				c.MinVersion, c.SessionTicketsDisabled)
		}
	}
}

func TestHandshakeThatNeverBeginsIsRefusedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lone(t, "a", domainCA(t))
		d := &handshaker{port: newMeshPort(n), done: make(chan struct{})}
		ours, theirs := net.Pipe()
		defer theirs.Close()
		began := time.Now()
		d.admit(ours)
		if took := time.Since(began); took != handshakeTimeout {
			t.Errorf("a silent caller was given %s, want %s", took, handshakeTimeout)
		}
		if err := n.audit.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(n.cfg.AuditFile)
		if err != nil || !strings.Contains(string(text), `"`+string(HandshakeTimeout)+`"`) {
			t.Errorf("recorded %s (%v), want %s", text, err, HandshakeTimeout)
		}
	})
}

func TestHandshakeErrorsAreNamed(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Reason
	}{
		{context.DeadlineExceeded, HandshakeTimeout},
		{io.EOF, HungUp},
		{net.ErrClosed, HungUp},
		{&Refusal{Reason: Expired}, Expired},
		{fmt.Errorf("dial: %w", &Refusal{Reason: Scheme}), Scheme},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, Plaintext},
		{tls.AlertError(42), PeerRefused},
		{errors.New("remote error: tls: bad certificate"), PeerRefused},
		{errors.New("tls: something new"), HandshakeFailed},
	} {
		if got := classifyHandshake(c.err); got.Reason != c.want {
			t.Errorf("%v: %s, want %s", c.err, got.Reason, c.want)
		}
	}
}

// TestIDsAreReadAsStrictlyAsGoSPIFFEDoes compares the reading of raw IDs with the library's: what it refuses is refused
// here, and what is refused here beyond that is an ID without a path or one that is too long.
func TestIDsAreReadAsStrictlyAsGoSPIFFEDoes(t *testing.T) {
	piece := rapid.SampledFrom([]string{"spiffe://", "example.org", "/", "//", "..", ".", "%2e", "a", "A", "ü", "~", "@",
		":", "80", "?", "#", " ", "\x00", "-", "_", "x.y", "spiffe:", "http://"})
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(piece, 0, 8).Draw(t, "parts")
		uri := strings.Join(parts, "")
		if rapid.Bool().Draw(t, "prefixed") {
			uri = "spiffe://example.org/" + uri
		}
		id, err := spiffeid.FromString(uri)
		ours := checkID(uri)
		switch {
		case err != nil && ours == "":
			t.Fatalf("%q is taken, but go-spiffe says: %v", uri, err)
		case err == nil && ours != "" && !(ours == NoPath && id.Path() == ""):
			t.Fatalf("%q is refused for %s, but go-spiffe takes it", uri, ours)
		}
	})
}

func TestPausesGrowFromAQuarterToTwoSeconds(t *testing.T) {
	b := backoff{}.NewBackoff()
	var got []time.Duration
	for range 5 {
		got = append(got, b.Next())
	}
	want := []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 2 * time.Second}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("pauses %v, want %v", got, want)
		}
	}
	if b.Reset(); b.Next() != minBackoff {
		t.Error("a reset does not start over")
	}
}
