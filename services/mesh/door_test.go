package mesh

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

// pipes is a listener in memory: what runs in a bubble of synctest has a clock of its own, and no machine is too slow
// for it.
type pipes struct {
	knocks chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{knocks: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.knocks:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// dial is the other end of a connection to the listener.
func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.knocks <- theirs
	return ours
}

// serving runs f, a server of its listener, until the test ends.
func serving(t *testing.T, f func(context.Context, net.Listener) error) *pipes {
	t.Helper()
	l := newPipes()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

const routeX = topology.Route("GET /x")

// handling hangs up n's one handler.
func handling(n *Node, h HandlerFunc) {
	n.handlers = map[topology.Route]HandlerFunc{routeX: h}
}

func noContent(w http.ResponseWriter, _ *http.Request) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// visitor is b, with an SVID that lives for ttl, on a new connection to a.
func visitor(t *testing.T, l *pipes, n *Node, ca *authority.CA, ttl time.Duration) *probe.Conn {
	t.Helper()
	svid, err := ca.Issue(n.topology.Load().ID("b"), time.Now(), ttl, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := probe.Over(t.Context(), l.dial(), probe.Caller{SVID: svid})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// allowed demands that a request on conn is answered by the handler.
func allowed(t *testing.T, conn *probe.Conn) {
	t.Helper()
	if got := conn.Try(t.Context(), routeX); got.Outcome != topology.Allowed || got.Status != http.StatusNoContent {
		t.Fatalf("%+v, want Allowed", got)
	}
}

// wantClosed demands that conn is closed when its time is up, and neither before nor a while after.
func wantClosed(t *testing.T, conn *probe.Conn, began time.Time, after time.Duration) {
	t.Helper()
	if !conn.Closed(time.Hour) {
		t.Fatal("the connection was open for an hour")
	}
	if lived := time.Since(began); lived < after || lived > after+flushTime {
		t.Errorf("the connection was open for %s, want %s", lived, after)
	}
}

func TestIdleConnectionLivesHalfAnIdentityAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := domainCA(t)
		n := lone(t, "a", ca)
		handling(n, noContent)
		l := serving(t, newMeshPort(n).serve)
		began := time.Now()
		conn := visitor(t, l, n, ca, 20*time.Second)
		allowed(t, conn)
		wantClosed(t, conn, began, 10*time.Second)
	})
}

func TestConnectionInUseEndsWithAnAnswerAfterHalfAnIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := domainCA(t)
		n := lone(t, "a", ca)
		handling(n, func(w http.ResponseWriter, r *http.Request) error {
			<-time.After(3 * time.Second)
			return noContent(w, r)
		})
		l := serving(t, newMeshPort(n).serve)
		began := time.Now()
		conn := visitor(t, l, n, ca, 20*time.Second)
		for range 4 { // the fourth began at 9 s and is answered at 12 s
			allowed(t, conn)
		}
		wantClosed(t, conn, began, 12*time.Second)
	})
}

func TestConnectionBusyAtHalfItsLifeEndsWhenItIsIdleOrWithItsNextAnswer(t *testing.T) {
	for _, c := range []struct {
		name  string
		busy  []time.Duration
		lives time.Duration
	}{
		{"idle afterwards", []time.Duration{4500 * time.Millisecond}, 4500 * time.Millisecond},
		{"asked again at once", []time.Duration{4500 * time.Millisecond, 3 * time.Second}, 7500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := domainCA(t)
				n := lone(t, "a", ca)
				pauses := make(chan time.Duration, 1)
				handling(n, func(w http.ResponseWriter, r *http.Request) error {
					<-time.After(<-pauses)
					return noContent(w, r)
				})
				l := serving(t, newMeshPort(n).serve)
				began := time.Now()
				conn := visitor(t, l, n, ca, 8*time.Second)
				for _, d := range c.busy {
					pauses <- d
					allowed(t, conn)
				}
				wantClosed(t, conn, began, c.lives)
			})
		})
	}
}

// TestNothingIsLostWhenAConnectionOfHTTP2EndsAtHalfItsLife has an answer of many frames end after that.
func TestNothingIsLostWhenAConnectionOfHTTP2EndsAtHalfItsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := domainCA(t)
		a, b := lone(t, "a", ca), lone(t, "b", ca)
		body := strings.Repeat("x", 1<<20)
		var mu sync.Mutex
		var ended time.Time
		handling(a, func(w http.ResponseWriter, _ *http.Request) error {
			<-time.After(12 * time.Second)
			_, err := io.WriteString(w, body)
			return err
		})
		l := serving(t, newMeshPort(a).serve)
		svid, err := ca.Issue(a.topology.Load().ID("b"), time.Now(), 20*time.Second, nil)
		if err != nil {
			t.Fatal(err)
		}
		id, err := b.own.Current()
		if err != nil {
			t.Fatal(err)
		}
		b.own.Identities.(*Held).Set(svid, id.Bundles)
		config := b.clientConfig("a", func(*Peer) {})
		config.NextProtos = []string{"h2"}
		transport := &http.Transport{
			ForceAttemptHTTP2: true,
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn := tls.Client(&noted{Conn: l.dial(), end: func() { mu.Lock(); defer mu.Unlock(); ended = time.Now() }}, config)
				return conn, conn.HandshakeContext(ctx)
			},
		}
		defer transport.CloseIdleConnections()
		began := time.Now()
		resp, err := (&http.Client{Transport: transport}).Get("https://a/x")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != body || resp.ProtoMajor != 2 {
			t.Errorf("%d bytes by %s, %v; want all", len(got), resp.Proto, err)
		}
		<-time.After(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if lived := ended.Sub(began); lived < 12*time.Second || lived > 13*time.Second {
			t.Errorf("the connection was open for %s, want 12 s", lived)
		}
	})
}

// noted tells when its owner is done with it, which a client is once the server has said goodbye.
type noted struct {
	net.Conn
	end func()
}

func (c *noted) Close() error {
	c.end()
	return c.Conn.Close()
}

func TestAConnectionThatIsOverKeepsNoTimer(t *testing.T) {
	for _, over := range []http.ConnState{http.StateClosed, http.StateHijacked} {
		synctest.Test(t, func(t *testing.T) {
			closed := 0
			c := &connection{soft: time.Now().Add(time.Minute), peer: &Peer{NotAfter: time.Now().Add(2 * time.Minute)}}
			c.watch(func() { closed++ })
			c.setState(http.StateIdle)
			c.setState(over)
			if c.half.Stop() || c.end.Stop() {
				t.Errorf("%s: a timer runs on", over)
			}
			<-time.After(time.Hour)
			if closed > 0 {
				t.Errorf("%s: closed %d times more", over, closed)
			}
		})
	}
}

func TestKeyExchangeIsHybridAndPostgresMayDoWithout(t *testing.T) {
	ca := domainCA(t)
	for _, c := range []struct {
		name string
		peer []tls.CurveID // what the other side has; nil: ours
		want tls.CurveID   // 0: no session
	}{
		{"one of us", nil, tls.X25519MLKEM768},
		{"one that has all", []tls.CurveID{tls.CurveP521, tls.CurveP384, tls.CurveP256, tls.X25519, tls.X25519MLKEM768},
			tls.X25519MLKEM768},
		{"one of before", []tls.CurveID{tls.CurveP256, tls.X25519}, tls.X25519},
		{"PostgreSQL before 18", []tls.CurveID{tls.CurveP256}, tls.CurveP256},
		{"one of no curve of ours", []tls.CurveID{tls.CurveP384, tls.CurveP521}, 0},
	} {
		for _, side := range []string{"server", "client"} {
			server, client := configs(lone(t, "a", ca), lone(t, "b", ca))
			theirs, ours := server, client
			if side == "client" {
				theirs, ours = client, server
			}
			if c.peer != nil {
				theirs.CurvePreferences = c.peer
			}
			var got tls.CurveID
			verify := ours.VerifyConnection
			ours.VerifyConnection = func(cs tls.ConnectionState) error { got = cs.CurveID; return verify(cs) }
			_, serverErr, clientErr := shake(t, server, client)
			if err := errors.Join(serverErr, clientErr); got != c.want || (err == nil) != (c.want != 0) {
				t.Errorf("%s as the %s: %s, %v; want %s", c.name, side, got, err, c.want)
			}
		}
	}
}

// disk is full until it is not.
type disk struct {
	mu   sync.Mutex
	full bool
	text bytes.Buffer
}

func (d *disk) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return 0, errors.New("no space left on device")
	}
	return d.text.Write(b)
}

func (d *disk) Close() error { return nil }

func (d *disk) fill(full bool) {
	d.mu.Lock()
	d.full = full
	d.mu.Unlock()
}

func TestWhatCannotBeRecordedIsNotDecidedUntilItCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := domainCA(t)
		n := lone(t, "a", ca)
		d := &disk{}
		if err := n.audit.Close(); err != nil {
			t.Fatal(err)
		}
		n.audit = audit.New(d, "a")
		handled := 0
		handling(n, func(w http.ResponseWriter, r *http.Request) error { handled++; return noContent(w, r) })
		n.people = http.HandlerFunc(func(w http.ResponseWriter,
			_ *http.Request) {
			handled++
			w.WriteHeader(http.StatusNoContent)
		})
		people := newPeoplePorts(n).server().Handler
		l := serving(t, newMeshPort(n).serve)
		conn := visitor(t, l, n, ca, time.Hour)
		allowed(t, conn)

		synctest.Wait()
		d.fill(true)
		allowed(t, conn) // the failure is not known yet
		synctest.Wait()
		handled = 0
		for range 3 {
			if got := conn.Try(t.Context(), routeX); got.Outcome != probe.Undecided ||
				got.Status != http.StatusServiceUnavailable || got.Reason != string(Unrecorded) {
				t.Errorf("on a full disk: %+v, want 503 %s and no decision", got, Unrecorded)
			}
			<-time.After(10 * time.Second)
		}
		w := httptest.NewRecorder()
		people.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" ||
			!strings.Contains(w.Body.String(), `"code":"audit_unavailable"`) {
			t.Errorf("a person on a full disk: %d %v %s", w.Code, w.Header(), w.Body)
		}
		if handled > 0 {
			t.Errorf("%d requests were handled without a record", handled)
		}
		if err := n.Check(t.Context()); err == nil {
			t.Error("it is ready on a full disk")
		}

		d.fill(false)
		<-time.After(time.Second)
		allowed(t, conn)
		if err := n.Check(t.Context()); err != nil {
			t.Errorf("not ready with room on the disk: %v", err)
		}
		if err := n.audit.Close(); err != nil {
			t.Fatal(err)
		}
		if entries, err := audit.Read(&d.text); err != nil || len(entries) != 3 {
			t.Errorf("%d entries, %v; want one for each of three decisions", len(entries), err)
		}
	})
}

// get sends a request by HTTP/1.1 and reads nothing.
func get(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

func TestAReaderWhoStopsReadingHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lone(t, "a", domainCA(t))
		held := make(chan time.Duration)
		n.people = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began := time.Now()
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					break
				}
			}
			held <- time.Since(began)
		})
		l := serving(t, func(ctx context.Context, l net.Listener) error {
			return serveHTTP(ctx, newPeoplePorts(n).server(), l)
		})
		conn := l.dial()
		defer conn.Close()
		get(t, conn)
		if took := <-held; took != PeopleWriteTimeout {
			t.Errorf("the handler was held for %s, want %s", took, PeopleWriteTimeout)
		}
	})
}

func TestAReaderWhoStopsReadingOneAnswerOfHTTP2HoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, people := lone(t, "a", domainCA(t)), newSigner(t)
		n.cfg.PeopleTLS = t.TempDir()
		people.place(t, n.cfg.PeopleTLS)
		config, err := newPeoplePorts(n).config()
		if err != nil {
			t.Fatal(err)
		}
		held := make(chan time.Duration)
		n.people = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			began := time.Now()
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					break
				}
			}
			held <- time.Since(began)
		})
		l := serving(t, func(ctx context.Context, l net.Listener) error {
			return serveHTTP(ctx, newPeoplePorts(n).server(), tls.NewListener(l, config))
		})
		roots := x509.NewCertPool()
		roots.AddCert(people.cert)
		transport := &http.Transport{
			ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"},
			DialContext: func(context.Context, string, string) (net.Conn, error) { return l.dial(), nil },
		}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Get("https://localhost/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if took := <-held; took != PeopleWriteTimeout || resp.ProtoMajor != 2 {
			t.Errorf("by %s the handler was held for %s, want %s", resp.Proto, took, PeopleWriteTimeout)
		}
	})
}

func TestAFeedThatSetsItsDeadlineAnewStaysOpenForWhoReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lone(t, "a", domainCA(t))
		const notes = 40
		ended := make(chan error, 1)
		n.people = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			out := http.NewResponseController(w)
			for i := range notes {
				err := out.SetWriteDeadline(time.Now().Add(PeopleWriteTimeout))
				if err == nil {
					_, err = fmt.Fprintf(w, "data: %d\n\n", i)
				}
				if err := errors.Join(err, out.Flush()); err != nil {
					ended <- err
					return
				}
				<-time.After(15 * time.Second)
			}
			ended <- nil
		})
		l := serving(t, func(ctx context.Context, l net.Listener) error {
			return serveHTTP(ctx, newPeoplePorts(n).server(), l)
		})
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return l.dial(),
				nil
		}}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Get("http://localhost/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || strings.Count(string(body), "data: ") != notes {
			t.Errorf("%d notes of %d, %v", strings.Count(string(body), "data: "), notes, err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}

		conn := l.dial() // and a client that stops reading is disconnected nevertheless
		defer conn.Close()
		began := time.Now()
		get(t, conn)
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != PeopleWriteTimeout {
			t.Errorf("the feed without a reader ended with %v after %s, want %s", err, time.Since(began), PeopleWriteTimeout)
		}
	})
}
