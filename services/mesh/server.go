package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/topology"
)

const (
	handshakeTimeout = 5 * time.Second
	handshakesAtOnce = 1024
)

// connection is one admitted caller. It may outlive the reasons for its admission, so each request is decided
// separately.
type connection struct {
	tls        *tls.Conn
	peer       *Peer
	soft       time.Time     // after this, the next answer closes it
	generation atomic.Uint64 // of the bundles that it was last verified with
	idle       atomic.Bool
	half, end  *time.Timer // they close it; half only if it is idle
}

// flushTime is the time for an answer to reach the wire: HTTP/2 reports a connection as idle shortly before that.
const flushTime = 250 * time.Millisecond

// watch closes the connection at its end: at soft if it is idle, as soon as it is idle if it was busy then, and in any
// case when the peer's identity has expired. A busy one is closed by its next answer.
func (c *connection) watch(hangUp func()) {
	c.half = time.AfterFunc(time.Until(c.soft), func() {
		if c.idle.Load() {
			hangUp()
		}
	})
	c.end = time.AfterFunc(time.Until(c.peer.NotAfter)+time.Second, hangUp)
}

// setState follows the states that net/http reports. A closed connection's timers are stopped: they would keep it in
// memory until the peer's identity expires.
func (c *connection) setState(state http.ConnState) {
	c.idle.Store(state == http.StateIdle)
	switch state {
	case http.StateIdle:
		if !time.Now().Before(c.soft) {
			c.half.Reset(flushTime)
		}
	case http.StateClosed, http.StateHijacked:
		c.half.Stop()
		c.end.Stop()
	}
}

// meshPort serves the routes of the topology. It admits connections, and decides each of their requests.
type meshPort struct {
	node *Node
	mux  *http.ServeMux
}

// newMeshPort serves the routes that n has handlers for.
func newMeshPort(n *Node) *meshPort {
	m := &meshPort{node: n, mux: http.NewServeMux()}
	for route := range n.handlers {
		m.mux.Handle(string(route), http.HandlerFunc(m.dispatch))
	}
	return m
}

// listen serves on the port of the topology until ctx ends.
func (m *meshPort) listen(ctx context.Context) error {
	l, err := net.Listen("tcp", m.node.address(m.node.self.Port))
	if err != nil {
		return err
	}
	return m.serve(ctx, l)
}

// handshaker is a listener that accepts TCP connections, makes each handshake in its own goroutine, so that accepting
// never waits, and returns the admitted connections.
type handshaker struct {
	net.Listener
	port     *meshPort
	admitted chan *connection
	pending  sync.Map // *tls.Conn → *connection, until net/http calls ConnContext
	slots    chan struct{}
	done     chan struct{}
	close    sync.Once
}

// serve serves on l until ctx ends.
func (m *meshPort) serve(ctx context.Context, l net.Listener) error {
	d := &handshaker{
		Listener: l, port: m, admitted: make(chan *connection),
		slots: make(chan struct{}, handshakesAtOnce), done: make(chan struct{}),
	}
	go d.accept()

	var live sync.Map // *tls.Conn → *connection
	s := newServer(m.node.log, http.HandlerFunc(m.gate))
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	// This makes net/http use HTTP/2 on connections whose handshake is done.
	s.TLSConfig = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		conn, ok := d.take(c)
		if !ok {
			return ctx
		}
		live.Store(c, conn)
		conn.watch(func() { c.Close() })
		return context.WithValue(ctx, connectionKey{}, conn)
	}
	s.ConnState = func(c net.Conn, state http.ConnState) {
		if v, ok := live.Load(c); ok {
			v.(*connection).setState(state)
			if state == http.StateClosed || state == http.StateHijacked {
				live.Delete(c)
			}
		}
	}
	return serveHTTP(ctx, s, d)
}

type connectionKey struct{}

func (d *handshaker) take(c net.Conn) (*connection, bool) {
	v, ok := d.pending.LoadAndDelete(c)
	if !ok {
		return nil, false
	}
	return v.(*connection), true
}

func (d *handshaker) Accept() (net.Conn, error) {
	select {
	case c := <-d.admitted:
		d.pending.Store(net.Conn(c.tls), c)
		return c.tls, nil
	case <-d.done:
		return nil, net.ErrClosed
	}
}

func (d *handshaker) Close() error {
	d.close.Do(func() { close(d.done) })
	return d.Listener.Close()
}

func (d *handshaker) accept() {
	for {
		raw, err := d.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			d.port.node.log.Warn("accept", "error", err.Error())
			select { // most likely out of file descriptors: wait for some to be released
			case <-d.done:
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		select {
		case d.slots <- struct{}{}:
			go func() {
				defer func() { <-d.slots }()
				d.admit(raw)
			}()
		default:
			raw.Close() // half-open connections must not exhaust the memory
			d.port.node.refuse(&Refusal{Reason: Flooded}, "", raw.RemoteAddr())
		}
	}
}

func (d *handshaker) admit(raw net.Conn) {
	n := d.port.node
	var peer *Peer
	config := n.own.config(func(p *Peer) error {
		peer = p
		return d.port.admits(p)
	})
	config.ClientAuth = tls.RequireAnyClientCert
	config.NextProtos = []string{"h2", "http/1.1"}
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.own.certificate() }
	conn := tls.Server(raw, config)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		n.refuse(classifyHandshake(err), "", raw.RemoteAddr())
		return
	}
	id, err := n.own.Current()
	if err != nil { // it was withdrawn during the handshake
		conn.Close()
		return
	}
	now := n.own.now()
	c := &connection{tls: conn, peer: peer, soft: time.Now().Add(halfOf(now, peer.NotAfter, id.NotAfter()))}
	c.generation.Store(id.Generation)
	c.idle.Store(true)
	select {
	case d.admitted <- c:
	case <-d.done:
		conn.Close()
	}
}

// admits refuses a verified peer that no route of this workload lists.
func (m *meshPort) admits(p *Peer) error {
	topo := m.node.topology.Load()
	w, ok := topo.ByID(p.ID)
	switch {
	case !ok:
		return &Refusal{Reason: Unlisted, ID: p.ID.String(), Serial: p.Serial}
	case !topo.Admits(w.Name, m.node.self.Name):
		return &Refusal{Reason: NotAdmitted, ID: p.ID.String(), Serial: p.Serial}
	}
	return nil
}

// gate answers only connections that would still be admitted, also for a path that does not exist.
func (m *meshPort) gate(w http.ResponseWriter, r *http.Request) {
	conn, ok := r.Context().Value(connectionKey{}).(*connection)
	if !ok {
		m.node.log.Error("a request without a verified connection")
		w.Header().Set("Connection", "close")
		httpjson.WriteError(w, httpjson.Errorf(http.StatusUnauthorized, "refused", "no verified connection"))
		return
	}
	if refusal := m.stillAdmitted(conn); refusal != nil {
		_, pattern := m.mux.Handler(r)
		m.node.refuse(refusal, topology.Route(pattern), conn.tls.RemoteAddr())
		w.Header().Set("Mesh-Reason", string(refusal.Reason))
		w.Header().Set("Connection", "close") // HTTP/1.1: closes; HTTP/2: net/http answers GOAWAY
		httpjson.WriteError(w, httpjson.Errorf(
			http.StatusUnauthorized, "refused", "this connection is no longer admitted: %s", refusal.Reason,
		))
		return
	}
	if time.Now().After(conn.soft) {
		w.Header().Set("Connection", "close")
	}
	m.mux.ServeHTTP(w, r)
}

// dispatch decides one request and, if it is allowed, calls its handler. It makes no decision while decisions cannot be
// recorded.
func (m *meshPort) dispatch(w http.ResponseWriter, r *http.Request) {
	n := m.node
	if n.refuseUnrecorded(w, r) {
		return
	}
	conn := r.Context().Value(connectionKey{}).(*connection) // gate has checked it
	route := topology.Route(r.Pattern)
	topo := n.topology.Load()
	caller, _ := topo.ByID(conn.peer.ID)
	entry := audit.Entry{Kind: "decision", Peer: conn.peer.ID.String(), Serial: conn.peer.Serial, Route: string(route)}
	outcome := topo.Decide(caller.Name, n.self.Name, route)
	entry.Outcome = string(outcome)
	if outcome != topology.Allowed {
		entry.Reason = string(NotForCaller)
		n.audit.Write(entry)
		n.log.Warn("forbidden", "reason", entry.Reason, "peer", entry.Peer, "route", entry.Route)
		w.Header().Set("Mesh-Reason", entry.Reason)
		httpjson.WriteError(w, httpjson.Errorf(http.StatusForbidden, "forbidden", "%s is not for %s", route, caller.Name))
		return
	}
	n.audit.Write(entry)
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				panic(p)
			}
			n.log.Error("panic", "route", string(route), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			httpjson.WriteError(w, errors.New("panic"))
		}
	}()
	ctx := WithCaller(r.Context(), caller, conn.peer.Serial)
	err := httpjson.Address(r)
	if err == nil {
		err = n.handlers[route](w, r.WithContext(ctx))
	}
	if err != nil {
		if e := httpjson.FromError(err); e.Status >= 500 {
			n.log.Error("request failed", "route", string(route), "caller", caller.Name, "error", err.Error())
		} else {
			n.log.Info("request refused", "route", string(route), "caller", caller.Name, "status", e.Status,
				"error", audit.Clip(err.Error(), maxErrorBytes))
		}
		httpjson.WriteError(w, err)
	}
}

// refuseUnrecorded answers 503 while decisions cannot be recorded, and says whether it did.
func (n *Node) refuseUnrecorded(w http.ResponseWriter, r *http.Request) bool {
	err := n.audit.Err()
	if err == nil {
		return false
	}
	n.log.Error("request not decided", "method", r.Method, "path", audit.Clip(r.URL.Path, maxDetailBytes),
		"error", "write audit: "+err.Error())
	w.Header().Set("Mesh-Reason", string(Unrecorded))
	httpjson.WriteError(w, httpjson.Errorf(http.StatusServiceUnavailable, string(Unrecorded),
		"decisions cannot be recorded here, so none is made").After(time.Second))
	return true
}

// stillAdmitted checks what may have changed since the handshake: this side's identity, the peer's expiry, the bundles,
// and the topology.
func (m *meshPort) stillAdmitted(c *connection) *Refusal {
	id, err := m.node.own.Current()
	if err != nil {
		return &Refusal{Reason: NoIdentity, Detail: err.Error()}
	}
	now := m.node.own.now()
	if now.After(id.NotAfter()) {
		return &Refusal{Reason: NoIdentity, Detail: "the own identity has ended"}
	}
	if now.After(c.peer.NotAfter) {
		return &Refusal{Reason: Expired, ID: c.peer.ID.String(), Serial: c.peer.Serial, Detail: "on an open connection"}
	}
	if c.generation.Load() != id.Generation {
		if _, err := verify(c.peer.chain, id.Bundles, now); err != nil {
			return classifyHandshake(err)
		}
		c.generation.Store(id.Generation)
	}
	if err := m.admits(c.peer); err != nil {
		return classifyHandshake(err)
	}
	return nil
}

type callerKey struct{}

type callerValue struct {
	workload topology.Workload
	serial   string
}

// Caller is the verified workload that sent the request of ctx; the zero Workload if ctx is not of a request.
func Caller(ctx context.Context) topology.Workload {
	v, _ := ctx.Value(callerKey{}).(callerValue)
	return v.workload
}

// CallerSerial is the serial number, in hex, of the caller's SVID.
func CallerSerial(ctx context.Context) string {
	v, _ := ctx.Value(callerKey{}).(callerValue)
	return v.serial
}

// WithCaller is the context of a request from w. Tests use it to call handlers without a connection.
func WithCaller(ctx context.Context, w topology.Workload, serial string) context.Context {
	return context.WithValue(ctx, callerKey{}, callerValue{w, serial})
}
