// Package mesh carries all traffic between workloads, with mutual TLS by SPIFFE identity.
//
// A workload joins with the name that its identity must prove, adds handlers for the routes that the topology lists
// under that name, and serves. Who may call what is decided for each request, by the whole SPIFFE ID, from the current
// topology. No setting switches any of this off.
package mesh

import (
	"context"
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

	"example.org/security-training/services/audit"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// Config is what Join needs in addition to the workload's name.
type Config struct {
	TopologyFile string // read again when it changes
	AuditFile    string // the workload's own chain
	// the address of every workload; empty: each has its service's name, and listens on all addresses
	Host         string
	TrustDomain  string           // if set, must be the topology's
	PeopleTLS    string           // the folder of the people's certificates; empty: the row's webTLS port is not served
	PeopleListen string           // where that port listens instead of Host: a host, or a host and a port
	PeopleHosts  []string         // more host names of the ports for people, in lower case
	Identities   Identities       // nil: the Workload API at Socket
	Socket       string           // "unix:///…"
	Pprof        string           // the path of a unix socket on which Go's profiles are served; empty: they are not
	Now          func() time.Time // nil: the wall clock
	Log          *slog.Logger     // nil: JSON lines on stderr
}

// HandlerFunc answers a request. A returned *httpjson.Error is sent as the answer. Any other error is logged, once, and
// answered as an internal error without its text.
type HandlerFunc func(http.ResponseWriter, *http.Request) error

// Node is a workload that has joined the mesh.
type Node struct {
	self     topology.Workload
	cfg      Config
	topology atomic.Pointer[topology.Topology]
	own      credentials
	audit    *audit.Log
	refusals refusals
	log      *slog.Logger

	handlers map[topology.Route]HandlerFunc
	people   http.Handler

	mu      sync.Mutex
	peers   map[string]*Client
	checks  []func(context.Context) error
	hosts   []string // added by AdmitHost
	serving atomic.Bool
}

// FromEnv joins by settings: WORKLOAD (the name), TOPOLOGY_FILE, AUDIT_FILE, SPIFFE_ENDPOINT_SOCKET and, optionally,
// TRUST_DOMAIN, MESH_HOST, PEOPLE_TLS_DIR, PEOPLE_LISTEN, PEOPLE_HOSTS (names separated by commas) and PPROF_SOCKET.
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

// Join waits for an identity, and fails if it is not that of self. The node lives until ctx ends.
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
		self: row, cfg: cfg, own: credentials{cfg.Identities, cfg.Now}, log: cfg.Log,
		handlers: map[topology.Route]HandlerFunc{}, peers: map[string]*Client{},
	}
	n.topology.Store(topo)
	if n.own.now == nil {
		n.own.now = time.Now
	}
	if n.log == nil {
		n.log = slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("workload", self)
	}
	if cfg.Pprof != "" {
		if err := servePprof(ctx, cfg.Pprof, n.log); err != nil {
			return nil, fmt.Errorf("join mesh: %w", err)
		}
	}
	if n.own.Identities == nil {
		held := &Held{}
		if err := watch(ctx, cfg.Socket, held); err != nil {
			return nil, fmt.Errorf("join mesh: %w", err)
		}
		n.own.Identities = held
	}
	id, err := awaitIdentity(ctx, n.own)
	if err != nil {
		return nil, fmt.Errorf("join mesh: %w", err)
	}
	if want := topo.ID(self); id.SVID.ID != want {
		return nil, fmt.Errorf(
			"join mesh: this process is %s, but the identity issued to it is %s; check which entry attests it", want, id.SVID.ID,
		)
	}
	if n.audit, err = audit.Open(cfg.AuditFile, self); err != nil {
		return nil, fmt.Errorf("join mesh: %w", err)
	}
	n.audit.Write(audit.Entry{Kind: "start", Peer: id.SVID.ID.String(), Serial: serialOf(id), Identity: auditIdentity(id)})
	n.log.Info("spiffe identity", "id", id.SVID.ID.String(), "serial", serialOf(id), "expires", id.NotAfter().UTC())
	context.AfterFunc(ctx, n.closePeers) // for a node that does not serve; Serve closes them after draining
	go n.watchTopology(ctx)
	go n.watchIdentity(ctx, id)
	return n, nil
}

// Self is this workload's row.
func (n *Node) Self() topology.Workload { return n.self }

// Topology is the current topology.
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

// Handle adds the handler of a route, written as in the topology. Serve fails if the topology does not list the route.
func (n *Node) Handle(route topology.Route, h HandlerFunc) {
	n.handlers[route] = h
}

// address is where to listen on port.
func (n *Node) address(port int) string {
	return net.JoinHostPort(n.cfg.Host, strconv.Itoa(port))
}

// peerAddress is the address of another workload.
func (n *Node) peerAddress(w topology.Workload) string {
	host := n.cfg.Host
	if host == "" {
		host = w.Host()
	}
	return net.JoinHostPort(host, strconv.Itoa(w.Port))
}

// Check returns nil when the workload has an identity that has not expired, can record its decisions, and passes all
// added checks.
func (n *Node) Check(ctx context.Context) error {
	id, err := n.own.Current()
	if err != nil {
		return err
	}
	if n.own.now().After(id.NotAfter()) {
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
