package mesh_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/security-training/manifests"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

// wantRefused demands that a call from node fails for want, and that node records it.
func wantRefused(t testing.TB, n *meshtest.Net, ctx context.Context, node *mesh.Node, want mesh.Reason) {
	t.Helper()
	before := last(t, n, node.Self().Name)
	resp, err := node.Peer(callee).Post(ctx, generate.Path(), "application/json", []byte("{}"))
	if err == nil {
		resp.Body.Close()
	}
	var refusal *mesh.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != want {
		t.Errorf("the call ended with %v, want a refusal for %s", err, want)
	}
	if e := awaitNext(t, n, node.Self().Name, "dial", topology.Refused, before); e.Reason != string(want) ||
		e.Route != callee {
		t.Errorf("recorded %s on %s (%s), want %s on %s", e.Reason, e.Route, e.Detail, want, callee)
	}
}

func TestAnotherWorkloadInTheCalleesPlaceIsRefused(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	node := n.Join(t, caller)
	for _, name := range []string{"risk-scorer", "git-collector", caller, "postgres"} {
		svid := n.Mint(t, name, time.Hour, nil)
		stop := impostor(t, n.Addr(callee), func(ctx context.Context, l net.Listener) error {
			return probe.Serve(ctx, l,
				svid)
		})
		wantRefused(t, n, t.Context(), node, mesh.UnexpectedPeer)
		stop()
	}
}

func TestCallerNeverSpeaksPlaintext(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	node := n.Join(t, caller)
	var heard atomic.Int32
	stop := impostor(t, n.Addr(callee), func(_ context.Context, l net.Listener) error {
		return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { heard.Add(1) }))
	})
	defer stop()
	for range 3 {
		wantRefused(t, n, t.Context(), node, mesh.Plaintext)
	}
	if heard.Load() > 0 {
		t.Errorf("a plaintext server heard %d requests", heard.Load())
	}
}

func TestCallerRefusesAnOldTLSVersion(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	node := n.Join(t, caller)
	svid := n.Mint(t, callee, time.Hour, nil)
	stop := impostor(t, n.Addr(callee), func(_ context.Context, l net.Listener) error {
		cert := tls.Certificate{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			conn := tls.Server(c, &tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}})
			if err := conn.Handshake(); err == nil {
				t.Error("a TLS 1.2 handshake came about")
			}
			conn.Close()
		}
	})
	defer stop()
	wantRefused(t, n, t.Context(), node, mesh.TLSVersion)
}

func TestCallerDoesNotWaitForASilentServer(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	node := n.Join(t, caller)
	l, err := net.Listen("tcp", n.Addr(callee)) // the kernel accepts, and no program answers
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := node.Peer(callee).Get(ctx, "/"); err == nil || time.Since(began) > 2*time.Second {
		t.Errorf("after %s: %v, want the deadline", time.Since(began), err)
	}
	l.Close() // net/http lets the dialling go on; it ends now
}

// serve runs callee with one handler behind its route.
func serve(t testing.TB, n *meshtest.Net, h mesh.HandlerFunc) {
	t.Helper()
	node := n.Join(t, callee)
	node.Handle(generate, h)
	n.Serve(t, node)
}

func read(t testing.TB, resp *http.Response, err error) (int, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	var trapped atomic.Int32
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { trapped.Add(1) }))
	defer trap.Close()
	serve(t, n, func(w http.ResponseWriter, r *http.Request) error {
		http.Redirect(w, r, trap.URL, http.StatusTemporaryRedirect)
		return nil
	})
	node := n.Join(t, caller)
	resp, err := node.Peer(callee).HTTP().Post("https://elsewhere.invalid/v1/generate", "application/json",
		strings.NewReader("{}"))
	if status, _ := read(t, resp, err); status != http.StatusTemporaryRedirect || trapped.Load() > 0 {
		t.Errorf("status %d and %d requests in the trap, want 307 and none", status, trapped.Load())
	}
	if resp, err := node.Egress().Get(trap.URL + "/x"); err == nil {
		resp.Body.Close()
	}
	egress := httptest.NewServer(http.RedirectHandler(trap.URL, http.StatusTemporaryRedirect))
	defer egress.Close()
	before := trapped.Load()
	resp, err = node.Egress().Get(egress.URL)
	if status, _ := read(t, resp, err); status != http.StatusTemporaryRedirect || trapped.Load() != before {
		t.Errorf("the way out followed a redirect: status %d", status)
	}
	node.Egress().CloseIdleConnections()
}

func TestHandlerLearnsWhoCallsAndByWhichCertificate(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	serve(t, n, func(w http.ResponseWriter, r *http.Request) error {
		who := mesh.Caller(r.Context())
		_, err := io.WriteString(w,
			who.Name+" "+who.Kind+" "+mesh.CallerSerial(r.Context())+" "+r.Header.Get("Idempotency-Key"))
		return err
	})
	node := n.Join(t, caller)
	keys := map[string]bool{}
	for range 3 {
		svid := n.Mint(t, caller, time.Hour, nil)
		n.Identity(caller).Set(svid, n.Bundles())
		resp, err := node.Peer(callee).Post(t.Context(), generate.Path(), "application/json", []byte("{}"))
		_, body := read(t, resp, err)
		fields := strings.Fields(body)
		if len(fields) != 4 || fields[0] != caller || fields[1] != topology.KindDashboard ||
			fields[2] != svid.Certificates[0].SerialNumber.Text(16) {
			t.Errorf("the handler saw %q, want %s, %s, the newest serial %x and a key", body, caller, topology.KindDashboard,
				svid.Certificates[0].SerialNumber)
		}
		keys[fields[len(fields)-1]] = true
	}
	if len(keys) != 3 {
		t.Errorf("%d Idempotency-Keys for 3 requests", len(keys))
	}
}

func TestErrorsOfHandlersAreAnsweredWithoutInternals(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	var fail func() error
	serve(t, n, func(http.ResponseWriter, *http.Request) error { return fail() })
	node := n.Join(t, caller)
	for _, c := range []struct {
		name   string
		fail   func() error
		status int
		code   string
	}{
		{"a typed error", func() error { return httpjson.Errorf(http.StatusConflict, "taken", "the name is taken") },
			http.StatusConflict, "taken"},
		{"a wrapped typed error", func() error {
			return errors.Join(errors.New("password=hunter2"), httpjson.Errorf(http.StatusTooManyRequests, "quota",
				"slow down").After(3*time.Second))
		}, http.StatusTooManyRequests, "quota"},
		{"any other error", func() error { return errors.New("password=hunter2") }, http.StatusInternalServerError,
			"internal"},
		{"a panic", func() error { panic("password=hunter2") }, http.StatusInternalServerError, "internal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fail = c.fail
			resp, err := node.Peer(callee).Post(t.Context(), generate.Path(), "application/json", []byte("{}"))
			status, body := read(t, resp, err)
			if status != c.status || !strings.Contains(body, `"`+c.code+`"`) || strings.Contains(body, "hunter2") {
				t.Errorf("%d %s, want %d %s and nothing of the cause", status, body, c.status, c.code)
			}
		})
	}
}

func TestUnknownPathsAndMethodsAreNotAnswered(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, callee))
	conn := open(t, n, caller, callee, generate, time.Hour)
	for _, c := range []struct {
		method, path string
		want         int
	}{{"GET", "/", 404}, {"GET", "/v1/generate", 405}, {"POST", "/v1/generate/x", 404}, {"GET", "/debug/pprof/", 404},
		{"GET", "/ready", 404}} {
		if got := conn.Send(t.Context(), c.method, c.path, probe.MediaType); got.Status != c.want {
			t.Errorf("%s %s: %+v, want %d", c.method, c.path, got, c.want)
		}
	}
}
