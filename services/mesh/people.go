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

// servePeopleTLS is servePeople by HTTPS. It requests a client certificate and does not require one: people without one
// sign in by other means.
func (n *Node) servePeopleTLS(ctx context.Context) error {
	if _, err := n.peopleConfig(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", n.peopleAddress())
	if err != nil {
		return err
	}
	return n.serveHTTP(ctx, n.peopleServer(), tls.NewListener(listener, &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Read for each connection, so that a renewed certificate and a new CA are used at once.
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return n.peopleConfig() },
	}))
}

// peopleAddress is where the port for people with certificates listens: Config.PeopleListen, a host or a host and a
// port, else the mesh's host.
func (n *Node) peopleAddress() string {
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

func (n *Node) peopleConfig() (*tls.Config, error) {
	dir := n.cfg.PeopleTLS
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
		Time:                   n.now,
	}, nil
}
