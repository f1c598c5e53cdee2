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

// connection is one admitted caller. It outlives the decision that admitted it, so every request decides anew.
type connection struct {
	tls        *tls.Conn
	peer       *Peer
	soft       time.Time     // from here on, the next answer closes it
	generation atomic.Uint64 // the bundles that it was last verified against
	idle       atomic.Bool
	half, end  *time.Timer // close it, the first one if it is idle
}

// flushTime is what an answer that was given gets to reach the wire: HTTP/2 calls a connection idle a moment before that.
const flushTime = 250 * time.Millisecond

// watch has the connection closed when its time is up: at soft if it is idle, as soon as it is idle if it was busy then, and
// in any case when the peer's identity has ended. Busy ones are told by their next answer.
func (c *connection) watch(hangUp func()) {
	c.half = time.AfterFunc(time.Until(c.soft), func() {
		if c.idle.Load() {
			hangUp()
		}
	})
	c.end = time.AfterFunc(time.Until(c.peer.NotAfter)+time.Second, hangUp)
}

// turn follows what net/http says of the connection. What is over keeps no timer, which would keep the connection in memory
// for as long as the peer's identity lives.
func (c *connection) turn(state http.ConnState) {
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

// door accepts TCP connections, makes each handshake in a goroutine of its own, so that accepting never waits, and hands
// over those that are admitted.
type door struct {
	net.Listener
	node     *Node
	admitted chan *connection
	handed   sync.Map // *tls.Conn → *connection, until net/http asks who it is
	slots    chan struct{}
	done     chan struct{}
	close    sync.Once
}

func (n *Node) serveMesh(ctx context.Context) error {
	l, err := net.Listen("tcp", n.address(n.self.Port))
	if err != nil {
		return err
	}
	return n.serveDoor(ctx, l)
}

func (n *Node) serveDoor(ctx context.Context, l net.Listener) error {
	d := &door{Listener: l, node: n, admitted: make(chan *connection), slots: make(chan struct{}, handshakesAtOnce), done: make(chan struct{})}
	go d.accept()

	var live sync.Map // *tls.Conn → *connection
	s := n.newServer(http.HandlerFunc(n.gate))
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.TLSConfig = &tls.Config{NextProtos: []string{"h2", "http/1.1"}} // makes net/http speak HTTP/2 on connections that are already open
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
			v.(*connection).turn(state)
			if state == http.StateClosed || state == http.StateHijacked {
				live.Delete(c)
			}
		}
	}
	return n.serveHTTP(ctx, s, d)
}

type connectionKey struct{}

func (d *door) take(c net.Conn) (*connection, bool) {
	v, ok := d.handed.LoadAndDelete(c)
	if !ok {
		return nil, false
	}
	return v.(*connection), true
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.admitted:
		d.handed.Store(net.Conn(c.tls), c)
		return c.tls, nil
	case <-d.done:
		return nil, net.ErrClosed
	}
}

func (d *door) Close() error {
	d.close.Do(func() { close(d.done) })
	return d.Listener.Close()
}

func (d *door) accept() {
	for {
		raw, err := d.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			d.node.log.Warn("accept", "error", err.Error())
			select { // out of file descriptors, most likely: wait for some to come back
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
			raw.Close() // a flood of half-open connections must not starve the others of memory
			d.node.refuse(&Refusal{Reason: Flooded}, "", raw.RemoteAddr())
		}
	}
}

func (d *door) admit(raw net.Conn) {
	n := d.node
	var peer *Peer
	config := n.tlsConfig(func(p *Peer) error {
		peer = p
		return n.admits(p)
	})
	config.ClientAuth = tls.RequireAnyClientCert
	config.NextProtos = []string{"h2", "http/1.1"}
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.ownCertificate() }
	conn := tls.Server(raw, config)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		n.refuse(classifyHandshake(err), "", raw.RemoteAddr())
		return
	}
	id, err := n.identities.Current()
	if err != nil { // it went away in this very moment
		conn.Close()
		return
	}
	now := n.now()
	c := &connection{tls: conn, peer: peer, soft: time.Now().Add(half(now, peer.NotAfter, id.NotAfter()))}
	c.generation.Store(id.Generation)
	c.idle.Store(true)
	select {
	case d.admitted <- c:
	case <-d.done:
		conn.Close()
	}
}

// admits refuses a verified peer that no route of this workload lists.
func (n *Node) admits(p *Peer) error {
	topo := n.topology.Load()
	w, ok := topo.ByID(p.ID)
	switch {
	case !ok:
		return &Refusal{Reason: Unlisted, ID: p.ID.String(), Serial: p.Serial}
	case !topo.Admits(w.Name, n.self.Name):
		return &Refusal{Reason: NotAdmitted, ID: p.ID.String(), Serial: p.Serial}
	}
	return nil
}

// gate answers only those connections that would still be admitted, whatever they ask for: a path that does not exist, too.
func (n *Node) gate(w http.ResponseWriter, r *http.Request) {
	conn, ok := r.Context().Value(connectionKey{}).(*connection)
	if !ok {
		n.log.Error("a request without a verified connection")
		w.Header().Set("Connection", "close")
		httpjson.WriteError(w, httpjson.Errorf(http.StatusUnauthorized, "refused", "no verified connection"))
		return
	}
	if refusal := n.stillAdmitted(conn); refusal != nil {
		_, pattern := n.mux.Handler(r)
		n.refuse(refusal, topology.Route(pattern), conn.tls.RemoteAddr())
		w.Header().Set("Mesh-Reason", string(refusal.Reason))
		w.Header().Set("Connection", "close") // HTTP/1.1: closes; HTTP/2: net/http answers GOAWAY
		httpjson.WriteError(w, httpjson.Errorf(http.StatusUnauthorized, "refused", "this connection is no longer admitted: %s", refusal.Reason))
		return
	}
	if time.Now().After(conn.soft) {
		w.Header().Set("Connection", "close")
	}
	n.mux.ServeHTTP(w, r)
}

// dispatch decides one request and, if it is allowed, lets the handler answer. While decisions cannot be recorded, none is made.
func (n *Node) dispatch(w http.ResponseWriter, r *http.Request) {
	if n.unrecorded(w, r) {
		return
	}
	conn := r.Context().Value(connectionKey{}).(*connection) // gate lets nothing else through
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
	ctx := context.WithValue(r.Context(), callerKey{}, callerValue{caller, conn.peer.Serial})
	err := httpjson.Address(r)
	if err == nil {
		err = n.handlers[route](w, r.WithContext(ctx))
	}
	if err != nil {
		if e := httpjson.FromError(err); e.Status >= 500 {
			n.log.Error("request failed", "route", string(route), "caller", caller.Name, "error", err.Error())
		} else {
			n.log.Info("request refused", "route", string(route), "caller", caller.Name, "status", e.Status,
				"error", audit.Clip(err.Error(), mostOfError))
		}
		httpjson.WriteError(w, err)
	}
}

// unrecorded answers 503 while decisions cannot be recorded, and says whether it did.
func (n *Node) unrecorded(w http.ResponseWriter, r *http.Request) bool {
	err := n.audit.Err()
	if err == nil {
		return false
	}
	n.log.Error(
		"request not decided",
		"method",
		r.Method,
		"path",
		audit.Clip(r.URL.Path, mostOfDetail),
		"error",
		"write audit: "+err.Error(),
	)
	w.Header().Set("Mesh-Reason", string(Unrecorded))
	httpjson.WriteError(w, httpjson.Errorf(http.StatusServiceUnavailable, string(Unrecorded), "decisions cannot be recorded here, so none is made").After(time.Second))
	return true
}

// stillAdmitted checks what may have changed since the handshake: the peer's expiry, the bundles, the topology, and whether
// this side still has an identity at all.
func (n *Node) stillAdmitted(c *connection) *Refusal {
	id, err := n.identities.Current()
	if err != nil {
		return &Refusal{Reason: NoIdentity, Detail: err.Error()}
	}
	now := n.now()
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
	if err := n.admits(c.peer); err != nil {
		return classifyHandshake(err)
	}
	return nil
}

type callerKey struct{}

type callerValue struct {
	workload topology.Workload
	serial   string
}

// Caller is the verified workload that sent the request of ctx, the zero Workload outside one.
func Caller(ctx context.Context) topology.Workload {
	v, _ := ctx.Value(callerKey{}).(callerValue)
	return v.workload
}

// CallerSerial is the serial number, in hex, of the SVID that Caller proved itself by.
func CallerSerial(ctx context.Context) string {
	v, _ := ctx.Value(callerKey{}).(callerValue)
	return v.serial
}

// WithCaller is a context as a handler sees it when w calls, for tests of handlers without a connection.
func WithCaller(ctx context.Context, w topology.Workload, serial string) context.Context {
	return context.WithValue(ctx, callerKey{}, callerValue{w, serial})
}
