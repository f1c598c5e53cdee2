package probe_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

const route = topology.Route("GET /x")

// wantUndecided requires an outcome that is different from topology's.
func wantUndecided(t *testing.T, got probe.Result) {
	t.Helper()
	decisions := []topology.Outcome{topology.Allowed, topology.Forbidden, topology.Refused}
	if got.Outcome != probe.Undecided || slices.Contains(decisions, got.Outcome) || !errors.Is(got.Err, probe.ErrNobody) {
		t.Errorf("%+v, want %s and ErrNobody", got, probe.Undecided)
	}
}

func minted(t *testing.T) *x509svid.SVID {
	t.Helper()
	ca, err := authority.New(spiffeid.RequireTrustDomainFromString("example.org"), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	svid, err := ca.Issue(spiffeid.RequireFromPath(ca.Domain, "/a"), time.Now(), time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	return svid
}

func serverOf(svid *x509svid.SVID) *tls.Config {
	cert := tls.Certificate{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true}
}

func TestADeadCalleeRefusesNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, manner := range []probe.Manner{probe.TLS13, probe.TLS12, probe.Plaintext} {
		wantUndecided(t, probe.Once(t.Context(), addr, probe.Caller{Manner: manner}, route))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantUndecided(t, probe.Once(ctx, addr, probe.Caller{}, route))
}

func TestACalleeThatSaysNothingRefusesNobody(t *testing.T) {
	config := serverOf(minted(t))
	for name, callee := range map[string]func(net.Conn){
		"hangs up at once": func(c net.Conn) { c.Close() },
		"says nothing":     func(net.Conn) {},
		"says nothing but its name": func(c net.Conn) {
			conn := tls.Server(c, config)
			for b := make([]byte, 1<<10); ; {
				if _, err := conn.Read(b); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				go callee(theirs)
				began := time.Now()
				conn, err := probe.Over(t.Context(), ours, probe.Caller{})
				if err == nil {
					defer conn.Close()
					wantUndecided(t, conn.Try(t.Context(), route))
				} else if !errors.Is(err, probe.ErrNobody) {
					t.Errorf("%v, want ErrNobody", err)
				}
				most := 5 * time.Second
				if name == "says nothing but its name" { // it shook hands, so it may be at work
					most = 20 * time.Second
				}
				if took := time.Since(began); took > most {
					t.Errorf("it waited %s", took)
				}
			})
		})
	}
}

func TestACalleeThatTurnsACertificateAwayRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	svid := minted(t)
	config := serverOf(svid)
	config.ClientAuth = tls.RequireAnyClientCert
	config.VerifyConnection = func(tls.ConnectionState) error { return errors.New("not you") }
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			err = tls.Server(c, config).Handshake()
		}
		done <- err
	}()
	got := probe.Once(t.Context(), l.Addr().String(), probe.Caller{SVID: svid}, route)
	if got.Outcome != topology.Refused || errors.Is(got.Err, probe.ErrNobody) {
		t.Errorf("%+v, want Refused", got)
	}
	if err := <-done; err == nil {
		t.Error("it was let in")
	}
}
