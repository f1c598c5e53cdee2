// Package mesh is the one door: every byte between workloads passes through it, with mutual TLS by SPIFFE identity.
//
// A workload joins with the name that its identity must prove, hangs up handlers for the routes that topology lists under
// that name, and serves. Who may call what is decided per request, by whole SPIFFE ID, from the topology in force at that
// moment. There is no way to switch any of it off.
package mesh

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// Config is what Join needs beside the workload's name.
type Config struct {
	TopologyFile string           // read again when it changes
	AuditFile    string           // the workload's own chain
	Host         string           // where every workload is found; empty: each at its service's name, and listening everywhere
	TrustDomain  string           // if set, must be the topology's
	PeopleTLS    string           // the folder of the people's certificates; empty: the row's webTLS port is not served
	PeopleListen string           // where that port listens instead of Host: a host, or a host and a port
	PeopleHosts  []string         // further names under which browsers reach the ports for people, in lower case
	Identities   Identities       // nil: the Workload API at Socket
	Socket       string           // "unix:///…"
	Pprof        string           // the path of a unix socket on which Go's profiles are served; empty: they are not
	Now          func() time.Time // nil: the wall clock
	Log          *slog.Logger     // nil: JSON lines on stderr
}

// HandlerFunc answers a request. A returned *httpjson.Error is answered as it says; any other error is logged here, once,
// and answered as an internal error without its text.
type HandlerFunc func(http.ResponseWriter, *http.Request) error

// Node is a workload's place in the mesh.
type Node struct {
	self       topology.Workload
	cfg        Config
	topology   atomic.Pointer[topology.Topology]
	identities Identities
	audit      *audit.Log
	refusals   refusals
	log        *slog.Logger
	now        func() time.Time

	mux      *http.ServeMux
	handlers map[topology.Route]HandlerFunc
	people   http.Handler

	mu      sync.Mutex
	peers   map[string]*Client
	checks  []func(context.Context) error
	hosts   []string          // that AdmitHost added
	leaf    *x509.Certificate // the people's, as of leafAt
	leafAt  time.Time
	serving atomic.Bool
}

// FromEnv joins by settings: WORKLOAD (the name), TOPOLOGY_FILE, AUDIT_FILE, SPIFFE_ENDPOINT_SOCKET and, optionally,
// TRUST_DOMAIN, MESH_HOST, PEOPLE_TLS_DIR, PEOPLE_LISTEN, PEOPLE_HOSTS (names, with a comma between) and PPROF_SOCKET.
func FromEnv(ctx context.Context, lookup env.Lookup) (*Node, error) {
	r := env.Read(lookup)
	self := r.Required("WORKLOAD")
	cfg := Config{
		TopologyFile: r.Required("TOPOLOGY_FILE"),
		AuditFile:    r.Required("AUDIT_FILE"),
		Socket:       r.Required("SPIFFE_ENDPOINT_SOCKET"),
		TrustDomain:  r.Optional("TRUST_DOMAIN", ""),
		Host:         r.Optional("MESH_HOST", ""),
		PeopleTLS:    r.Optional("PEOPLE_TLS_DIR", ""),
		PeopleListen: r.Optional("PEOPLE_LISTEN", ""),
		Pprof:        r.Optional("PPROF_SOCKET", ""),
		PeopleHosts: strings.FieldsFunc(
			strings.ToLower(r.Optional("PEOPLE_HOSTS", "")),
			func(c rune) bool { return c == ',' || c == ' ' },
		),
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return Join(ctx, self, cfg)
}

// Join waits for an identity, and fails if it is not self's. The node lives until ctx ends.
func Join(ctx context.Context, self string, cfg Config) (*Node, error) {
	topo, err := topology.FromFile(cfg.TopologyFile)
	if err != nil {
		return nil, err
	}
	row, ok := topo.Workload(self)
	if !ok {
		return nil, fmt.Errorf("join mesh: %s does not list a workload %q", cfg.TopologyFile, self)
	}
	if cfg.TrustDomain != "" && cfg.TrustDomain != topo.TrustDomain {
		return nil, fmt.Errorf("join mesh: TRUST_DOMAIN is %s, but the topology's is %s", cfg.TrustDomain, topo.TrustDomain)
	}
	n := &Node{
		self: row, cfg: cfg, identities: cfg.Identities, now: cfg.Now, log: cfg.Log,
		mux: http.NewServeMux(), handlers: map[topology.Route]HandlerFunc{}, peers: map[string]*Client{},
	}
	n.topology.Store(topo)
	if n.now == nil {
		n.now = time.Now
	}
	if n.log == nil {
		n.log = slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("workload", self)
	}
	if cfg.Pprof != "" {
		if err := servePprof(ctx, cfg.Pprof, n.log); err != nil {
			return nil, fmt.Errorf("join mesh: %w", err)
		}
	}
	if n.identities == nil {
		held := &Held{}
		if err := watch(ctx, cfg.Socket, held); err != nil {
			return nil, fmt.Errorf("join mesh: %w", err)
		}
		n.identities = held
	}
	id, err := awaitIdentity(ctx, n.identities)
	if err != nil {
		return nil, fmt.Errorf("join mesh: %w", err)
	}
	if want := topo.ID(self); id.SVID.ID != want {
		return nil, fmt.Errorf("join mesh: this process is %s, but the identity issued to it is %s; check which entry attests it", want, id.SVID.ID)
	}
	if n.audit, err = audit.Open(cfg.AuditFile, self); err != nil {
		return nil, fmt.Errorf("join mesh: %w", err)
	}
	n.audit.Write(audit.Entry{Kind: "start", Peer: id.SVID.ID.String(), Serial: serialOf(id), Identity: held(id)})
	n.log.Info("spiffe identity", "id", id.SVID.ID.String(), "serial", serialOf(id), "expires", id.NotAfter().UTC())
	context.AfterFunc(ctx, n.closePeers) // for a node that only calls; one that serves closes them once it has drained
	go n.watchTopology(ctx)
	go n.watchIdentity(ctx, id)
	return n, nil
}

// held is how long an identity is good for, and which authorities it is held with.
func held(id *Identity) *audit.Identity {
	h := &audit.Identity{Until: id.NotAfter().UTC()}
	if b, ok := id.Bundles.Get(id.SVID.ID.TrustDomain()); ok {
		h.Trusts = TrustDigest(b)
	}
	return h
}

// TrustDigest tells bundles apart: SHA-256 over their authorities in a fixed order, the first 16 hex digits.
func TrustDigest(b *x509bundle.Bundle) string {
	var all []string
	for _, c := range b.X509Authorities() {
		all = append(all, string(c.Raw))
	}
	slices.Sort(all)
	sum := sha256.Sum256([]byte(strings.Join(all, "")))
	return hex.EncodeToString(sum[:8])
}

func serialOf(id *Identity) string { return fmt.Sprintf("%x", id.SVID.Certificates[0].SerialNumber) }

func awaitIdentity(ctx context.Context, ids Identities) (*Identity, error) {
	for {
		changed := ids.Changed()
		id, err := ids.Current()
		if err == nil {
			return id, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for an identity: %w (%w)", err, context.Cause(ctx))
		case <-changed:
		}
	}
}

// Self is this workload's row.
func (n *Node) Self() topology.Workload { return n.self }

// Topology is the one in force now.
func (n *Node) Topology() *topology.Topology { return n.topology.Load() }

// Audit is this workload's chain of decisions.
func (n *Node) Audit() *audit.Log { return n.audit }

// Log is this workload's log.
func (n *Node) Log() *slog.Logger { return n.log }

// Ready adds a check to the health port: until all checks pass, the workload is not ready.
func (n *Node) Ready(check func(context.Context) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.checks = append(n.checks, check)
}

// Handle hangs up a handler for a route, written as topology writes it. Serve fails if topology does not list it.
func (n *Node) Handle(route topology.Route, h HandlerFunc) {
	n.handlers[route] = h
}

// Serve answers until ctx ends, then drains. It fails at once if a listed route has no handler, or a handler no listing.
func (n *Node) Serve(ctx context.Context) error {
	if err := n.checkRoutes(); err != nil {
		return fmt.Errorf("serve %s: %w", n.self.Name, err)
	}
	for route := range n.handlers {
		n.mux.Handle(string(route), http.HandlerFunc(n.dispatch))
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group sync.WaitGroup
	run := func(what string, f func(context.Context) error) {
		group.Go(func() {
			if err := f(ctx); err != nil {
				stop(fmt.Errorf("serve %s: %s: %w", n.self.Name, what, err))
			}
		})
	}
	run("health", n.serveHealth)
	if len(n.self.Serves) > 0 {
		run("mesh", n.serveMesh)
	}
	if n.people != nil {
		run("people", n.servePeople)
		if n.self.WebTLS != 0 && n.cfg.PeopleTLS != "" {
			run("people with certificates", n.servePeopleTLS)
		}
	}
	n.serving.Store(true)
	<-ctx.Done()
	n.serving.Store(false)
	group.Wait()
	n.closePeers()
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	n.refusals.close()
	n.audit.Write(audit.Entry{Kind: "stop"})
	return errors.Join(err, n.audit.Close())
}

func (n *Node) checkRoutes() error {
	var faults []error
	for _, route := range n.self.Routes() {
		if n.handlers[route] == nil {
			faults = append(faults, fmt.Errorf("topology lists the route %q, for which there is no handler", route))
		}
	}
	if (n.people != nil) != (n.self.Web != 0) {
		faults = append(faults, errors.New("a handler for people and a web port go together, and only one of them is there"))
	}
	for route := range n.handlers {
		if _, listed := n.self.Serves[route]; !listed {
			faults = append(faults, fmt.Errorf("there is a handler for the route %q, which topology does not list", route))
		}
	}
	return errors.Join(faults...)
}

// HandlePeople hangs up the handler for people, who have no SVID: it is served on the row's web port, on loopback or behind
// a port-forward. Who may see what is the handler's to decide.
func (n *Node) HandlePeople(h http.Handler) { n.people = h }

func (n *Node) servePeople(ctx context.Context) error {
	listener, err := net.Listen("tcp", n.address(n.self.Web))
	if err != nil {
		return err
	}
	return n.serveHTTP(ctx, n.peopleServer(), listener)
}

// PeopleWriteTimeout is how long an answer on the ports for people may take, from the end of the request's headers to the last
// byte: a reader who stops reading holds nothing for longer. A handler whose answer takes longer, such as a feed, sets the
// deadline anew, by http.NewResponseController(w).SetWriteDeadline, before each write.
const PeopleWriteTimeout = 30 * time.Second

// peopleServer decides only for which hosts it answers; what n.people decides is recorded in the same chain, so that it
// is not asked either while that cannot be written.
func (n *Node) peopleServer() *http.Server {
	known := n.toKnownHost(n.people)
	s := n.newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !n.unrecorded(w, r) {
			known.ServeHTTP(w, r)
		}
	}))
	s.WriteTimeout = PeopleWriteTimeout
	return s
}

// address is where to listen on port.
func (n *Node) address(port int) string {
	return net.JoinHostPort(n.cfg.Host, strconv.Itoa(port))
}

// peerAddress is where another workload is found.
func (n *Node) peerAddress(w topology.Workload) string {
	host := n.cfg.Host
	if host == "" {
		host = w.Host()
	}
	return net.JoinHostPort(host, strconv.Itoa(w.Port))
}

// Check is nil when the workload has an identity that has not ended, can record its decisions, and all added checks pass.
func (n *Node) Check(ctx context.Context) error {
	id, err := n.identities.Current()
	if err != nil {
		return err
	}
	if n.now().After(id.NotAfter()) {
		return fmt.Errorf("the identity ended at %s", id.NotAfter().UTC().Format(time.RFC3339))
	}
	if err := n.audit.Err(); err != nil {
		return fmt.Errorf("decisions cannot be recorded: %w", err)
	}
	n.mu.Lock()
	checks := slices.Clone(n.checks)
	n.mu.Unlock()
	for _, check := range checks {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// serveHealth answers /live and /ready with a status and nothing else: a kubelet has no SVID, so there is nothing to read.
func (n *Node) serveHealth(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		if err := n.Check(ctx); err != nil || !n.serving.Load() {
			n.log.Debug("not ready", "why", err)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	listener, err := net.Listen("tcp", n.address(n.self.Health))
	if err != nil {
		return err
	}
	return n.serveHTTP(ctx, n.newServer(mux), listener)
}

// serveHTTP serves until ctx ends and then drains for up to five seconds.
func (n *Node) serveHTTP(ctx context.Context, s *http.Server, l net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(drain); err != nil {
		return s.Close()
	}
	return nil
}

func (n *Node) newServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       60 * time.Second,
		WriteTimeout:      120 * time.Second,
		IdleTimeout:       60 * time.Second,
		HTTP2:             &http.HTTP2Config{WriteByteTimeout: 30 * time.Second}, // HTTP/2 has WriteTimeout for an answer, and nothing else for a connection
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
}

// watchTopology reads the file again when it changes. A bad file, or one of another shape, is refused whole and audited; the
// old one stays in force.
func (n *Node) watchTopology(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	seen, _ := os.Stat(n.cfg.TopologyFile)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := os.Stat(n.cfg.TopologyFile)
		if err != nil {
			continue // between two files of an atomic replacement
		}
		if seen != nil && os.SameFile(seen, now) && seen.ModTime().Equal(now.ModTime()) && seen.Size() == now.Size() {
			continue
		}
		seen = now
		n.reload()
	}
}

func (n *Node) reload() {
	next, err := topology.FromFile(n.cfg.TopologyFile)
	if err == nil {
		err = n.topology.Load().SameShape(next)
	}
	if err != nil {
		n.log.Error("the topology stays as it was", "refused", err.Error())
		n.audit.Write(audit.Entry{Kind: "reload", Outcome: string(topology.Refused), Reason: "bad_topology", Detail: err.Error()})
		return
	}
	n.topology.Store(next)
	n.log.Info("topology reloaded")
	n.audit.Write(audit.Entry{Kind: "reload", Outcome: string(topology.Allowed)})
}

// watchIdentity drains connections of the identity before, and says what happened.
func (n *Node) watchIdentity(ctx context.Context, last *Identity) {
	for {
		changed := n.identities.Changed()
		if id, err := n.identities.Current(); err != nil {
			if last != nil {
				n.log.Error("identity lost", "why", err.Error())
				n.audit.Write(audit.Entry{Kind: "identity", Outcome: string(topology.Refused), Reason: string(NoIdentity), Detail: err.Error()})
			}
			last = nil
		} else if last == nil || id.Generation != last.Generation {
			n.log.Info("spiffe identity renewed", "id", id.SVID.ID.String(), "serial", serialOf(id), "expires", id.NotAfter().UTC())
			n.audit.Write(audit.Entry{Kind: "identity", Peer: id.SVID.ID.String(), Serial: serialOf(id), Identity: held(id)})
			last = id
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// tlsConfig is what both sides share. InsecureSkipVerify, where a side sets it, only switches off Go's check by host name:
// VerifyConnection, which also runs on what would be a resumed session, is the check by SPIFFE ID.
func (n *Node) tlsConfig(expect func(*Peer) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256}, // PostgreSQL before 18 has only the last
		SessionTicketsDisabled: true,
		Time:                   n.now,
		VerifyConnection: func(cs tls.ConnectionState) error {
			peer, err := n.verifyState(cs)
			if err != nil {
				return err
			}
			return expect(peer)
		},
	}
}

func (n *Node) verifyState(cs tls.ConnectionState) (*Peer, error) {
	if cs.DidResume {
		return nil, &Refusal{Reason: Resumed}
	}
	id, err := n.identities.Current()
	if err != nil {
		return nil, &Refusal{Reason: NoIdentity, Detail: err.Error()}
	}
	return verify(cs.PeerCertificates, id.Bundles, n.now())
}

func (n *Node) ownCertificate() (*tls.Certificate, error) {
	id, err := n.identities.Current()
	if err != nil {
		return nil, &Refusal{Reason: NoIdentity, Detail: err.Error()}
	}
	if n.now().After(id.NotAfter()) {
		return nil, &Refusal{Reason: NoIdentity, Detail: "the own identity has ended"}
	}
	return id.certificate(), nil
}

// Identity is this workload's own, now. It is for what must present it elsewhere than through the mesh: the database's server.
func (n *Node) Identity() (*Identity, error) { return n.identities.Current() }
