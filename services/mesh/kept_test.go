package mesh_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/security-training/manifests"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

// open is a kept connection from one workload to another that has been answered once.
func open(t testing.TB, n *meshtest.Net, from, to string, route topology.Route, ttl time.Duration) *probe.Conn {
	t.Helper()
	conn, err := probe.Open(t.Context(), n.Addr(to), probe.Caller{SVID: n.Mint(t, from, ttl, nil)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if got := conn.Try(t.Context(), route); got.Outcome != topology.Allowed {
		t.Fatalf("the connection's first request: %+v, want Allowed", got)
	}
	return conn
}

// wantEnd demands that a kept connection is answered 401 for want, closed, and recorded as Refused.
func wantEnd(t testing.TB, n *meshtest.Net, conn *probe.Conn, to string, route topology.Route, want mesh.Reason) {
	t.Helper()
	before := last(t, n, to)
	got := conn.Try(t.Context(), route)
	if got.Status != http.StatusUnauthorized || got.Reason != string(want) || got.Outcome != topology.Refused {
		t.Errorf("%+v, want 401 %s", got, want)
	}
	if !conn.Closed(10 * time.Second) {
		t.Error("the connection stays open")
	}
	if e := awaitNext(t, n, to, "decision", topology.Refused, before); e.Reason != string(want) ||
		e.Route != string(route) {
		t.Errorf("recorded %s %s on %s, want Refused %s on %s", e.Outcome, e.Reason, e.Route, want, route)
	}
}

// offset is a clock that a test puts forward.
type offset struct{ by atomic.Int64 }

func (o *offset) now() time.Time { return time.Now().Add(time.Duration(o.by.Load())) }

func TestKeptConnectionEndsWhenTheCallerExpires(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	clock := &offset{}
	n.Now = clock.now
	n.ServeStubs(t, n.Join(t, callee))
	conn := open(t, n, caller, callee, generate, 5*time.Minute)
	unlisted := open(t, n, caller, callee, generate, 5*time.Minute)
	clock.by.Store(int64(4 * time.Minute))
	if got := conn.Try(t.Context(), generate); got.Outcome != topology.Allowed {
		t.Errorf("a minute before the end: %+v, want Allowed", got)
	}
	clock.by.Store(int64(6 * time.Minute))
	wantEnd(t, n, conn, callee, generate, mesh.Expired)
	// Nor does a path that does not exist answer the expired.
	if got := unlisted.Send(t.Context(), http.MethodGet, "/nowhere",
		probe.MediaType); got.Status != http.StatusUnauthorized {
		t.Errorf("a path that does not exist, after the end: %+v, want 401", got)
	}
}

func TestKeptConnectionEndsWhenTheIntermediateExpires(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	clock := &offset{}
	n.Now = clock.now
	n.ServeStubs(t, n.Join(t, callee))
	f := &forger{t, n, n.Topology.ID(caller)}
	short, err := n.CA.Intermediate(n.Now(), 5*time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := probe.Open(t.Context(), n.Addr(callee), probe.Caller{SVID: f.sign(short, f.template(), short)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.Try(t.Context(), generate); got.Outcome != topology.Allowed {
		t.Fatalf("before the end: %+v, want Allowed", got)
	}
	clock.by.Store(int64(6 * time.Minute))
	wantEnd(t, n, conn, callee, generate, mesh.Expired)
}

// edit replaces text in the topology's file as an operator would: whole, by renaming.
func edit(t testing.TB, n *meshtest.Net, old, new string) {
	t.Helper()
	text, err := os.ReadFile(n.File)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(old)) {
		t.Fatalf("the topology does not hold %q", old)
	}
	replace(t, n, strings.Replace(string(text), old, new, 1))
}

func replace(t testing.TB, n *meshtest.Net, text string) {
	t.Helper()
	if err := os.WriteFile(n.File+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(n.File+".new", n.File); err != nil {
		t.Fatal(err)
	}
}

func awaitReload(t testing.TB, n *meshtest.Net, name string, outcome topology.Outcome) audit.Entry {
	t.Helper()
	return n.AwaitAudit(t, name, "a reload that is "+string(outcome),
		func(e audit.Entry) bool { return e.Kind == "reload" && e.Outcome == string(outcome) })
}

func TestCallerStruckOffIsRefusedOnItsKeptConnectionWithinASecond(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, callee))
	conn := open(t, n, caller, callee, generate, time.Hour)
	began := time.Now()
	edit(t, n, "POST /v1/generate: [lms]", "POST /v1/generate: [risk-scorer]")
	awaitReload(t, n, callee, topology.Allowed)
	if took := time.Since(began); took > time.Second {
		t.Errorf("the new topology took %s", took)
	}
	wantEnd(t, n, conn, callee, generate, mesh.NotAdmitted)
	if got := probe.Once(t.Context(), n.Addr(callee), probe.Caller{SVID: n.Mint(t, caller, time.Hour, nil)},
		generate); got.Outcome != topology.Refused {
		t.Errorf("on a new connection: %+v, want Refused", got)
	}
	if got := probe.Once(t.Context(), n.Addr(callee), probe.Caller{SVID: n.Mint(t, "risk-scorer", time.Hour, nil)},
		generate); got.Outcome != topology.Allowed {
		t.Errorf("whom the new topology lists: %+v, want Allowed", got)
	}
}

func TestAListWithoutCallersAdmitsNoOne(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, callee))
	conn := open(t, n, caller, callee, generate, time.Hour)
	edit(t, n, "POST /v1/generate: [lms]", "POST /v1/generate: []")
	awaitReload(t, n, callee, topology.Allowed)
	wantEnd(t, n, conn, callee, generate, mesh.NotAdmitted)
	for _, w := range []string{caller, "instructor", "risk-scorer", "git-collector"} {
		if got := probe.Once(
			t.Context(),
			n.Addr(callee),
			probe.Caller{SVID: n.Mint(t, w, time.Hour, nil)},
			generate,
		); got.Outcome != topology.Refused {
			t.Errorf("%s, where no one is listed: %+v, want Refused", w, got)
		}
	}
	before := last(t, n, callee)
	edit(t, n, "POST /v1/generate: []", "POST /v1/generate: [lms]")
	n.AwaitAudit(t, callee, "a second reload", func(e audit.Entry) bool { return e.Kind == "reload" && e.Seq > before })
	if got := probe.Once(
		t.Context(),
		n.Addr(callee),
		probe.Caller{SVID: n.Mint(t, caller, time.Hour, nil)},
		generate,
	); got.Outcome != topology.Allowed {
		t.Errorf("listed again: %+v, want Allowed", got)
	}
}

func TestRouteTakenAwayIsForbiddenAndTheConnectionStays(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, "risk-scorer"))
	const route = topology.Route("GET /v1/organisation")
	conn := open(t, n, caller, "risk-scorer", route, time.Hour)
	edit(t, n, "GET /v1/organisation: [instructor, lms]", "GET /v1/organisation: [instructor]")
	awaitReload(t, n, "risk-scorer", topology.Allowed)
	before := last(t, n, "risk-scorer")
	if got := conn.Try(t.Context(), route); got.Outcome != topology.Forbidden || got.Status != http.StatusForbidden ||
		got.Reason != string(mesh.NotForCaller) {
		t.Errorf("%+v, want Forbidden", got)
	}
	if e := awaitNext(t, n, "risk-scorer", "decision", topology.Forbidden, before); e.Reason != string(mesh.NotForCaller) {
		t.Errorf("recorded %s %s, want Forbidden", e.Outcome, e.Reason)
	}
	if got := conn.Try(t.Context(), "GET /v1/people"); got.Outcome != topology.Allowed {
		t.Errorf("another route on the same connection: %+v, want Allowed", got)
	}
}

func TestBadTopologyIsRefusedWholeAndTheOldOneStays(t *testing.T) {
	t.Parallel()
	good := string(manifests.Topology())
	for _, c := range []struct{ name, text, says string }{
		{"empty", "", "trustDomain"},
		{"half a file", good[:len(good)/2], ""},
		{"a wildcard caller", strings.Replace(good, "POST /v1/generate: [lms]", `POST /v1/generate: ["*"]`, 1), "wildcard"},
		{"an unknown key", strings.Replace(good, "kind: gateway", "kind: gateway\n  allow: all", 1), "allow"},
		{"another port", strings.Replace(good, "port: 8520", "port: 8521", 1), "port"},
		{"another trust domain", strings.Replace(good, "trustDomain: security-training.example.org",
			"trustDomain: example.org", 1), "trustDomain"},
		{"another name", strings.Replace(good, "- name: sim-git\n", "- name: sim-hub\n", 1), "sim-git"},
		{"a route without a handler", strings.Replace(good, "POST /v1/generate: [lms]",
			"POST /v1/generate: [lms]\n    GET /v1/quota: [instructor]", 1), "routes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.text == good {
				t.Fatal("the edit changes nothing")
			}
			n := meshtest.Start(t, manifests.Topology())
			n.ServeStubs(t, n.Join(t, callee))
			conn := open(t, n, caller, callee, generate, time.Hour)
			replace(t, n, c.text)
			e := awaitReload(t, n, callee, topology.Refused)
			if e.Reason != "bad_topology" || !strings.Contains(e.Detail, c.says) {
				t.Errorf("recorded %s: %s; want bad_topology and a word of %q", e.Reason, e.Detail, c.says)
			}
			if got := conn.Try(t.Context(), generate); got.Outcome != topology.Allowed {
				t.Errorf("by the old topology: %+v, want Allowed", got)
			}
			if got := probe.Once(t.Context(), n.Addr(callee), probe.Caller{SVID: n.Mint(t, "git-collector", time.Hour, nil)},
				generate); got.Outcome != topology.Refused {
				t.Errorf("a stranger by the old topology: %+v, want Refused", got)
			}
		})
	}
}

func TestKeptConnectionEndsWhenItsCAIsRemoved(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, callee))
	conn := open(t, n, caller, callee, generate, time.Hour)
	next, err := authority.New(n.Topology.Domain(), n.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	n.Trust(next.Cert, n.CA.Cert)
	if got := conn.Try(t.Context(), generate); got.Outcome != topology.Allowed {
		t.Fatalf("with both CAs trusted: %+v, want Allowed", got)
	}
	n.Trust(next.Cert)
	wantEnd(t, n, conn, callee, generate, mesh.UnknownIssuer)
}

// health asks a workload's health port.
func health(t testing.TB, n *meshtest.Net, name, path string) int {
	t.Helper()
	w, _ := n.Topology.Workload(name)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + n.Host + ":" + strconv.Itoa(w.Health) + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestWithdrawnIdentityEndsServiceAndReadinessUntilItIsBack(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	node := n.Join(t, callee)
	n.ServeStubs(t, node)
	meshtest.Await(t, "readiness", func() bool { return health(t, n, callee, "/ready") == http.StatusNoContent })
	conn := open(t, n, caller, callee, generate, time.Hour)
	if _, err := node.Peer("stub-gemini").Get(t.Context(), "/"); errors.As(err, new(*mesh.Refusal)) {
		t.Fatalf("a call while there is an identity is refused here: %v", err)
	}

	n.Identity(callee).Clear(errors.New("withdrawn"))
	if got := health(t, n, callee, "/ready"); got != http.StatusServiceUnavailable {
		t.Errorf("/ready answers %d, want 503", got)
	}
	if got := health(t, n, callee, "/live"); got != http.StatusNoContent {
		t.Errorf("/live answers %d, want 204: a restart would not bring the identity back", got)
	}
	wantEnd(t, n, conn, callee, generate, mesh.NoIdentity)
	before := last(t, n, callee)
	if got := probe.Once(t.Context(), n.Addr(callee), probe.Caller{SVID: n.Mint(t, caller, time.Hour, nil)},
		generate); got.Outcome != topology.Refused {
		t.Errorf("a new connection: %+v, want Refused", got)
	}
	if e := awaitNext(t, n, callee, "decision", topology.Refused, before); e.Reason != string(mesh.NoIdentity) {
		t.Errorf("recorded %s (%s), want %s", e.Reason, e.Detail, mesh.NoIdentity)
	}
	var refusal *mesh.Refusal
	if _, err := node.Peer("stub-gemini").Get(t.Context(), "/"); !errors.As(err, &refusal) ||
		refusal.Reason != mesh.NoIdentity {
		t.Errorf("a call without an identity ended with %v, want %s", err, mesh.NoIdentity)
	}
	n.AwaitAudit(t, callee, "the loss of the identity", func(e audit.Entry) bool {
		return e.Kind == "identity" &&
			e.Reason == string(mesh.NoIdentity)
	})

	n.Identity(callee).Set(n.Mint(t, callee, time.Hour, nil), n.Bundles())
	if got := health(t, n, callee, "/ready"); got != http.StatusNoContent {
		t.Errorf("/ready answers %d once the identity is back, want 204", got)
	}
	open(t, n, caller, callee, generate, time.Hour)
}

func TestOwnExpiredIdentityServesNobody(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	clock := &offset{}
	n.Now = clock.now
	n.ServeStubs(t, n.Join(t, callee)) // with an SVID of one hour
	conn := open(t, n, caller, callee, generate, 10*time.Hour)
	clock.by.Store(int64(61 * time.Minute))
	wantEnd(t, n, conn, callee, generate, mesh.NoIdentity)
	before := last(t, n, callee)
	if got := probe.Once(t.Context(), n.Addr(callee), probe.Caller{SVID: n.Mint(t, caller, time.Hour, nil)},
		generate); got.Outcome != topology.Refused {
		t.Errorf("a new connection: %+v, want Refused", got)
	}
	if e := awaitNext(t, n, callee, "decision", topology.Refused, before); e.Reason != string(mesh.NoIdentity) {
		t.Errorf("recorded %s, want %s", e.Reason, mesh.NoIdentity)
	}
	if got := health(t, n, callee, "/ready"); got != http.StatusServiceUnavailable {
		t.Errorf("/ready answers %d, want 503", got)
	}
}

func TestReadinessFollowsAddedChecks(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	node := n.Join(t, callee)
	var broken atomic.Bool
	node.Ready(func(context.Context) error {
		if broken.Load() {
			return errors.New("the disk is full")
		}
		return nil
	})
	n.ServeStubs(t, node)
	meshtest.Await(t, "readiness", func() bool { return health(t, n, callee, "/ready") == http.StatusNoContent })
	broken.Store(true)
	if got := health(t, n, callee, "/ready"); got != http.StatusServiceUnavailable {
		t.Errorf("/ready answers %d, want 503", got)
	}
	if got := health(t, n, callee, "/v1/generate"); got != http.StatusNotFound {
		t.Errorf("a route on the health port answers %d, want 404", got)
	}
}

func TestServeRefusesToStartWhenHandlersAndTopologyDisagree(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	answer := func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(http.StatusNoContent); return nil }
	serve := func(node *mesh.Node) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return node.Serve(ctx)
	}
	t.Run("a listed route without a handler", func(t *testing.T) {
		if err := serve(n.Join(t, callee)); err == nil || !strings.Contains(err.Error(), string(generate)) {
			t.Errorf("%v, want an error that names %s", err, generate)
		}
	})
	t.Run("a handler that topology does not list", func(t *testing.T) {
		node := n.Join(t, callee)
		node.Handle(generate, answer)
		node.Handle("GET /v1/backdoor", answer)
		if err := serve(node); err == nil || !strings.Contains(err.Error(), "/v1/backdoor") {
			t.Errorf("%v, want an error that names the handler", err)
		}
	})
	t.Run("a web port without a handler for people", func(t *testing.T) {
		node := n.Join(t, caller)
		for _, r := range node.Self().Routes() {
			node.Handle(r, answer)
		}
		if err := serve(node); err == nil || !strings.Contains(err.Error(), "web port") {
			t.Errorf("%v, want an error about the web port", err)
		}
	})
}

func TestJoinRefusesAnotherWorkloadsIdentity(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.Identity(callee).Set(n.Mint(t, caller, time.Hour, nil), n.Bundles())
	_, err := mesh.Join(t.Context(), callee, n.Config(callee))
	if err == nil || !strings.Contains(err.Error(), n.Topology.ID(caller).String()) || !strings.Contains(err.Error(),
		n.Topology.ID(callee).String()) {
		t.Errorf("%v, want an error that names both identities", err)
	}
}

func TestJoinWaitsForAnIdentityNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := mesh.Join(ctx, callee, n.Config(callee)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want that the deadline passed", err)
	}
}

func TestJoinRefusesAnUnlistedNameAndAnotherTrustDomain(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	if _, err := mesh.Join(t.Context(), "nobody", n.Config("nobody")); err == nil || !strings.Contains(err.Error(),
		"nobody") {
		t.Errorf("an unlisted name: %v", err)
	}
	cfg := n.Config(callee)
	cfg.TrustDomain = "other.example"
	if _, err := mesh.Join(t.Context(), callee, cfg); err == nil || !strings.Contains(err.Error(), "other.example") {
		t.Errorf("another trust domain: %v", err)
	}
}
