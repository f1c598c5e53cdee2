// Package bare is mutual TLS without the mesh, by the same curve and the same certificates: what `lab bench` measures the mesh's
// new connections beside. No service links it.
package bare

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/services/mesh"
)

// patience is how long one connection may take.
const patience = 10 * time.Second

// settings is an empty SETTINGS frame (RFC 9113, 6.5): the first that a server of HTTP/2 says, and here the proof that it has
// admitted the caller, which in TLS 1.3 the end of the caller's own handshake is not.
var settings = []byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0}

const frameSettings = 4

// config is what both sides share.
func config(svid *x509svid.SVID) *tls.Config {
	own := tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, c := range svid.Certificates {
		own.Certificate = append(own.Certificate, c.Raw)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768},
		SessionTicketsDisabled: true,
		Certificates:           []tls.Certificate{own},
		NextProtos:             []string{"h2"},
	}
}

func pool(trusts *x509bundle.Bundle) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range trusts.X509Authorities() {
		p.AddCert(c)
	}
	return p
}

// Server admits whoever has a certificate of its CA.
type Server struct {
	listener net.Listener
	config   *tls.Config
	admitted atomic.Int64
	group    sync.WaitGroup
}

// Listen starts a server on a free port of host.
func Listen(host string, svid *x509svid.SVID, trusts *x509bundle.Bundle) (*Server, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s := &Server{listener: l, config: config(svid)}
	s.config.ClientAuth, s.config.ClientCAs = tls.RequireAndVerifyClientCert, pool(trusts)
	s.group.Go(s.accept)
	return s, nil
}

func (s *Server) accept() {
	for {
		raw, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.group.Go(func() { s.admit(raw) })
	}
}

// admit says what a server of HTTP/2 says first, and waits for the caller to hang up.
func (s *Server) admit(raw net.Conn) {
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
		return
	}
	conn := tls.Server(raw, s.config)
	if err := conn.Handshake(); err != nil {
		return
	}
	s.admitted.Add(1) // before the caller can know
	if _, err := conn.Write(settings); err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, conn) // however the caller goes
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Admitted is how many connections were made and admitted so far.
func (s *Server) Admitted() int64 { return s.admitted.Load() }

// Close ends the server and waits for its connections, none of which outlives patience.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.group.Wait()
	return err
}

// Caller makes new connections to one peer, each with a handshake of its own.
type Caller struct {
	addr   string
	peer   spiffeid.ID
	config func() *tls.Config
}

// Call is a caller that knows nothing of the mesh: it believes the CA, and the peer's name in its certificate.
func Call(addr string, peer spiffeid.ID, svid *x509svid.SVID, trusts *x509bundle.Bundle) Caller {
	c := config(svid)
	c.RootCAs, c.ServerName = pool(trusts), peer.Path()[1:]
	return Caller{addr: addr, peer: peer, config: func() *tls.Config { return c }}
}

// CallByMesh is a caller that makes its connections as node does, with what node makes for each: its identity of that moment,
// and the mesh's own check of the peer. The peer is the row of node's topology that is the database.
func CallByMesh(addr string, peer spiffeid.ID, node *mesh.Node) Caller {
	return Caller{addr: addr, peer: peer, config: func() *tls.Config {
		c := node.Database()
		c.NextProtos = []string{"h2"}
		return c
	}}
}

// Knock makes one connection, proves that it is what it should be, and hangs up: TLS 1.3 by X25519MLKEM768, no resumed session, the
// peer that was called, and a peer that has admitted the caller.
func (c Caller) Knock(ctx context.Context) error {
	dialer := net.Dialer{Timeout: patience}
	raw, err := dialer.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return fmt.Errorf("knock: %w", err)
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("knock: %w", err)
	}
	conn := tls.Client(raw, c.config())
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("knock: %w", err)
	}
	if err := c.proves(conn.ConnectionState()); err != nil {
		return fmt.Errorf("knock: %w", err)
	}
	var frame [9]byte
	if _, err := io.ReadFull(conn, frame[:]); err != nil {
		return fmt.Errorf("knock: %s did not admit: %w", c.peer, err)
	}
	if frame[3] != frameSettings {
		return fmt.Errorf("knock: %s began with a frame of type %d, want SETTINGS", c.peer, frame[3])
	}
	return nil
}

func (c Caller) proves(s tls.ConnectionState) error {
	switch {
	case s.Version != tls.VersionTLS13:
		return fmt.Errorf("spoke %s, want TLS 1.3", tls.VersionName(s.Version))
	case s.CurveID != tls.X25519MLKEM768:
		return fmt.Errorf("agreed on %s, want X25519MLKEM768", s.CurveID)
	case s.DidResume:
		return errors.New("resumed a session")
	case len(s.PeerCertificates) == 0 || len(s.PeerCertificates[0].URIs) != 1 || s.PeerCertificates[0].URIs[0].String() != c.peer.String():
		return fmt.Errorf("found somebody else, want %s", c.peer)
	}
	return nil
}
