// Package bare is mutual TLS without the mesh, with the same curve and certificates. `lab bench` compares the mesh's
// new connections with it. No service uses it.
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

// patience is the time limit of one connection.
const patience = 10 * time.Second

// settings is an empty SETTINGS frame (RFC 9113, 6.5), the first frame of an HTTP/2 server. It proves that the server
// has admitted the caller; in TLS 1.3 the end of the caller's own handshake does not.
var settings = []byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0}

const frameSettings = 4

// config is the configuration that both sides share.
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

// Server admits every caller with a certificate of its CA.
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

// admit sends the first frame of an HTTP/2 server, and waits until the caller closes the connection.
func (s *Server) admit(raw net.Conn) {
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(patience)); err != nil {
		return
	}
	conn := tls.Server(raw, s.config)
	if err := conn.Handshake(); err != nil {
		return
	}
	s.admitted.Add(1) // before the caller is told
	if _, err := conn.Write(settings); err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, conn) // any end of the connection will do
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Admitted is the number of admitted connections.
func (s *Server) Admitted() int64 { return s.admitted.Load() }

// Close ends the server and waits for its connections, at most for the time of patience.
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

// Call is a caller without the mesh: it trusts the CA and checks the peer's name in its certificate.
func Call(addr string, peer spiffeid.ID, svid *x509svid.SVID, trusts *x509bundle.Bundle) Caller {
	c := config(svid)
	c.RootCAs, c.ServerName = pool(trusts), peer.Path()[1:]
	return Caller{addr: addr, peer: peer, config: func() *tls.Config { return c }}
}

// CallByMesh is a caller that opens connections as node does: with its current identity and the mesh's check of the
// peer. The peer must be the database of node's topology.
func CallByMesh(addr string, peer spiffeid.ID, node *mesh.Node) Caller {
	return Caller{addr: addr, peer: peer, config: func() *tls.Config {
		c := node.Database()
		c.NextProtos = []string{"h2"}
		return c
	}}
}

// Knock opens one connection, checks it, and closes it: it must be TLS 1.3 with X25519MLKEM768, not resumed, and to the
// right peer, which must have admitted the caller.
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
	case len(s.PeerCertificates) == 0 || len(s.PeerCertificates[0].URIs) != 1 ||
		s.PeerCertificates[0].URIs[0].String() != c.peer.String():
		return fmt.Errorf("found another peer, want %s", c.peer)
	}
	return nil
}
