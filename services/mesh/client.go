package mesh

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	// For Egress: the image has no root certificates.
	_ "golang.org/x/crypto/x509roots/fallback"

	"example.org/security-training/services/topology"
)

// Client calls exactly one workload: the other side must prove its name.
type Client struct {
	node *Node
	peer topology.Workload

	mu      sync.Mutex
	current *generation
}

// generation is a transport for one identity. It is retired when the identity changes or its connections have reached
// the end of their lease; requests in flight are finished.
type generation struct {
	transport *http.Transport
	identity  uint64

	mu       sync.Mutex
	until    time.Time
	inFlight int
	retired  bool
}

// Peer is the client for the workload called name. It panics if the topology does not list the name; programs call it
// when they start.
func (n *Node) Peer(name string) *Client {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c, ok := n.peers[name]; ok {
		return c
	}
	w, ok := n.topology.Load().Workload(name)
	if !ok {
		panic(fmt.Sprintf("mesh: topology does not list %q", name))
	}
	c := &Client{node: n, peer: w}
	n.peers[name] = c
	return c
}

// Serving is the client for the only workload that serves route.
func (n *Node) Serving(route topology.Route) (*Client, error) {
	rows := n.topology.Load().Serving(route)
	if len(rows) != 1 {
		return nil, fmt.Errorf("find who serves %s: topology lists %d workloads", route, len(rows))
	}
	return n.Peer(rows[0].Name), nil
}

func (n *Node) closePeers() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.peers {
		c.mu.Lock()
		if c.current != nil {
			c.current.retire()
			c.current = nil
		}
		c.mu.Unlock()
	}
}

// Name is the name of the workload that c calls.
func (c *Client) Name() string { return c.peer.Name }

// HTTP is an http.Client that sends all requests to the peer; the host of their URL is ignored. It follows no redirect.
func (c *Client) HTTP() *http.Client {
	return &http.Client{Transport: c, CheckRedirect: noRedirect}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Do sends one request; path may have a query. The caller must close the response's body.
func (c *Client) Do(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+c.node.peerAddress(c.peer)+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", c.peer.Name, err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", c.peer.Name, err)
	}
	return resp, nil
}

// Post sends body as contentType.
func (c *Client) Post(ctx context.Context, path, contentType string, body []byte) (*http.Response, error) {
	return c.Do(ctx, http.MethodPost, path, contentType, body)
}

// Get requests path.
func (c *Client) Get(ctx context.Context, path string) (*http.Response, error) {
	return c.Do(ctx, http.MethodGet, path, "", nil)
}

// RoundTrip implements http.RoundTripper.
func (c *Client) RoundTrip(req *http.Request) (*http.Response, error) {
	g, err := c.generation()
	if err != nil {
		return nil, err
	}
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host, out.Host = "https", c.node.peerAddress(c.peer), c.peer.Host()
	if out.Header.Get("Idempotency-Key") == "" {
		// This also allows net/http to repeat a request when the server has closed the connection.
		out.Header.Set("Idempotency-Key", rand.Text())
	}
	resp, err := g.transport.RoundTrip(out)
	if err != nil {
		g.release()
		return nil, err
	}
	resp.Body = &countedBody{ReadCloser: resp.Body, generation: g}
	return resp, nil
}

// countedBody releases the generation when the body is closed.
type countedBody struct {
	io.ReadCloser
	generation *generation
	once       sync.Once
}

func (l *countedBody) Close() error {
	err := l.ReadCloser.Close()
	l.once.Do(l.generation.release)
	return err
}

// generation returns the transport for the current identity, with this request counted.
func (c *Client) generation() (*generation, error) {
	id, err := c.node.own.Current()
	if err != nil {
		return nil, &Refusal{Reason: NoIdentity, Detail: err.Error()}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && c.current.acquire(id.Generation) {
		return c.current, nil
	}
	if c.current != nil {
		c.current.retire()
	}
	now := c.node.own.now()
	g := &generation{identity: id.Generation, until: time.Now().Add(lease(now, id.NotAfter()))}
	g.transport = &http.Transport{
		DialTLSContext:        func(ctx context.Context, _, addr string) (net.Conn, error) { return c.dial(ctx, g, addr) },
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       50 * time.Second, // shorter than the server's, so that the client usually closes first
		ResponseHeaderTimeout: 60 * time.Second,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
	c.current = g
	g.inFlight = 1
	return g, nil
}

// lease is how long a client uses its connections: half of the server's limit, so that no request is in flight when the
// server closes one.
func lease(now time.Time, ends ...time.Time) time.Duration { return halfOf(now, ends...) / 2 }

// acquire counts one more request, unless the generation may not be used any more.
func (g *generation) acquire(identity uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retired || g.identity != identity || time.Now().After(g.until) {
		return false
	}
	g.inFlight++
	return true
}

func (g *generation) release() {
	g.mu.Lock()
	g.inFlight--
	over := g.retired && g.inFlight == 0
	g.mu.Unlock()
	if over {
		g.transport.CloseIdleConnections()
	}
}

func (g *generation) retire() {
	g.mu.Lock()
	g.retired = true
	g.mu.Unlock()
	g.transport.CloseIdleConnections()
}

// dial opens a connection to the peer and refuses a server that does not prove to be the peer.
func (c *Client) dial(ctx context.Context, g *generation, addr string) (net.Conn, error) {
	n := c.node
	var dialer net.Dialer
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	var verified *Peer
	config := n.clientConfig(c.peer.Name, func(p *Peer) { verified = p })
	config.NextProtos = []string{"h2", "http/1.1"}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		r := classifyHandshake(err)
		n.audit.Write(r.entry("dial", topology.Route(c.peer.Name)))
		return nil, r
	}
	g.mu.Lock()
	if soft := time.Now().Add(lease(n.own.now(), verified.NotAfter)); soft.Before(g.until) {
		g.until = soft
	}
	g.mu.Unlock()
	return conn, nil
}

// clientConfig verifies that the server is the workload called name, and passes the verified peer to found.
func (n *Node) clientConfig(name string, found func(*Peer)) *tls.Config {
	config := n.own.config(func(p *Peer) error {
		if want := n.topology.Load().ID(name); p.ID != want {
			return &Refusal{Reason: UnexpectedPeer, ID: p.ID.String(), Serial: p.Serial, Detail: "want " + want.String()}
		}
		found(p)
		return nil
	})
	config.InsecureSkipVerify = true // skips only the host name; VerifyConnection checks the SPIFFE ID
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return n.own.certificate()
	}
	return config
}

// Database is the TLS configuration for the database's driver: this workload's identity as the client certificate, and
// a server that must prove to be the topology's database. Its host name does not matter.
func (n *Node) Database() *tls.Config {
	name := ""
	for _, w := range n.topology.Load().OfKind(topology.KindDatabase) {
		name = w.Name
	}
	return n.clientConfig(name, func(*Peer) {})
}

// DatabaseAddress is the host and port of the database; DB_HOST and DB_PORT override it.
func (n *Node) DatabaseAddress() string {
	for _, w := range n.topology.Load().OfKind(topology.KindDatabase) {
		return n.peerAddress(w)
	}
	return ""
}

// HalfLife is half of the remaining lifetime of the own identity, the limit for pooled connections opened with it.
func (n *Node) HalfLife() time.Duration {
	id, err := n.own.Current()
	if err != nil {
		return 0
	}
	return halfOf(n.own.now(), id.NotAfter())
}

// Egress is a client for public HTTPS outside the mesh, verified with the system's roots, or Mozilla's where the system
// has none. It follows no redirect, because a redirect would send the request's credentials to another host.
func (n *Node) Egress() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:     true,
			TLSHandshakeTimeout:   handshakeTimeout,
			ResponseHeaderTimeout: 60 * time.Second,
			IdleConnTimeout:       60 * time.Second,
		},
		CheckRedirect: noRedirect,
	}
}
