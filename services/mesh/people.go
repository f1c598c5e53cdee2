package mesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Files in the folder of Config.PeopleTLS. They come from the people's CA, which is separate from the mesh's: neither
// accepts the other's certificates.
const (
	peopleChain   = "server.pem"
	peopleKey     = "server.key"
	peopleClients = "clients.pem" // the CA of people's certificates
)

// Certificate is the verified certificate of a person on the port for people with certificates.
type Certificate struct {
	Name   string // the subject's common name: an id of the roster, or a role
	Role   string // the subject's organisational unit: person, instructor or admin
	Serial string // hex
	Begins time.Time
	Ends   time.Time
}

// PersonOf is the client certificate of a request's connection, if there is one.
func PersonOf(r *http.Request) (Certificate, bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return Certificate{}, false
	}
	leaf := r.TLS.VerifiedChains[0][0]
	c := Certificate{
		Name: leaf.Subject.CommonName, Serial: fmt.Sprintf("%x", leaf.SerialNumber),
		Begins: leaf.NotBefore, Ends: leaf.NotAfter,
	}
	if len(leaf.Subject.OrganizationalUnit) == 1 {
		c.Role = leaf.Subject.OrganizationalUnit[0]
	}
	return c, true
}

// HandlePeople adds the handler for people, who have no SVID. It is served on the row's web port, on loopback or behind
// a port-forward. The handler decides who may see what.
func (n *Node) HandlePeople(h http.Handler) { n.people = h }

// peoplePorts serve people: one without TLS, on loopback or behind a port-forward, and one that requests certificates.
type peoplePorts struct {
	node *Node

	mu     sync.Mutex
	leaf   *x509.Certificate // the server's, as read at leafAt
	leafAt time.Time
}

func newPeoplePorts(n *Node) *peoplePorts { return &peoplePorts{node: n} }

// serve serves the port without TLS until ctx ends.
func (p *peoplePorts) serve(ctx context.Context) error {
	listener, err := net.Listen("tcp", p.node.address(p.node.self.Web))
	if err != nil {
		return err
	}
	return serveHTTP(ctx, p.server(), listener)
}

// PeopleWriteTimeout is how long an answer on the ports for people may take, from the end of the request's headers to
// the last byte. It limits how long a client that stops reading holds a connection. A handler whose answer takes
// longer, such as a feed, sets a new deadline with http.NewResponseController(w).SetWriteDeadline before each write.
const PeopleWriteTimeout = 30 * time.Second

// server checks only the host of a request; the handler of HandlePeople decides everything else. Its decisions are
// recorded in the same audit chain, so it is not called while that cannot be written.
func (p *peoplePorts) server() *http.Server {
	known := p.forKnownHosts(p.node.people)
	s := newServer(p.node.log, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.node.refuseUnrecorded(w, r) {
			known.ServeHTTP(w, r)
		}
	}))
	s.WriteTimeout = PeopleWriteTimeout
	return s
}

// serveTLS serves the port with HTTPS until ctx ends. It requests a client certificate and does not require one: people
// without one sign in by other means.
func (p *peoplePorts) serveTLS(ctx context.Context) error {
	if _, err := p.config(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", p.address())
	if err != nil {
		return err
	}
	return serveHTTP(ctx, p.server(), tls.NewListener(listener, &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Read for each connection, so that a renewed certificate and a new CA are used at once.
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return p.config() },
	}))
}

// address is where the port for people with certificates listens: Config.PeopleListen, a host or a host and a
// port, else the mesh's host.
func (p *peoplePorts) address() string {
	n := p.node
	port := strconv.Itoa(n.self.WebTLS)
	switch host, own, err := net.SplitHostPort(n.cfg.PeopleListen); {
	case n.cfg.PeopleListen == "":
		return n.address(n.self.WebTLS)
	case err != nil:
		return net.JoinHostPort(n.cfg.PeopleListen, port)
	default:
		return net.JoinHostPort(host, own)
	}
}

// config is the TLS configuration of the port with HTTPS, from the files of Config.PeopleTLS as they are now.
func (p *peoplePorts) config() (*tls.Config, error) {
	dir := p.node.cfg.PeopleTLS
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, peopleChain), filepath.Join(dir, peopleKey))
	if err != nil {
		return nil, fmt.Errorf("read the people's certificate: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, peopleClients))
	if err != nil {
		return nil, fmt.Errorf("read the people's CA: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(text) {
		return nil, errors.New("read the people's CA: no certificate in " + peopleClients)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{pair},
		ClientAuth:             tls.VerifyClientCertIfGiven,
		ClientCAs:              clients,
		SessionTicketsDisabled: true, // each connection proves its identity
		NextProtos:             []string{"h2", "http/1.1"},
		Time:                   p.node.own.now,
	}, nil
}
