package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"example.org/security-training/lab"
	"example.org/security-training/lab/matrix"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

const generate topology.Route = "POST /v1/generate"

func TestEveryCallerOnEveryRouteGetsWhatTopologySays(t *testing.T) {
	cells, err := matrix.Try(t.Context(), l.Lab, matrix.Options{})
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[topology.Outcome]int{}
	for _, c := range cells {
		if !c.OK {
			t.Errorf("%s -> %s %s: expected %s, new %s, kept %s", c.Caller, c.Callee, c.Route, c.Expected, c.Measured, c.Kept)
		}
		if c.Measured != topology.Allowed && c.Reason == "" {
			t.Errorf("%s -> %s %s: %s without a reason", c.Caller, c.Callee, c.Route, c.Measured)
		}
		if c.Measured == topology.Allowed && c.Route.Method() != http.MethodGet && c.Route.Method() != http.MethodDelete &&
			c.Status != http.StatusUnsupportedMediaType {
			t.Errorf(
				"%s -> %s %s: a probe was answered %d, want 415 before anything else",
				c.Caller,
				c.Callee,
				c.Route,
				c.Status,
			)
		}
		outcomes[c.Measured]++
	}
	for _, o := range []topology.Outcome{topology.Allowed, topology.Forbidden, topology.Refused} {
		if outcomes[o] == 0 {
			t.Errorf("not one cell is %s: this proves nothing", o)
		}
	}
	t.Logf("%d cells: %v", len(cells), outcomes)
}

func TestStrangersAreRefusedAndTheRefusingSideSaysWhy(t *testing.T) {
	gateway := serving(t, generate)
	for _, s := range matrix.Strangers {
		t.Run(s.Name, func(t *testing.T) {
			who, err := matrix.Impostor(t.Context(), l.Lab, l.topo, s.Name, named(t, topology.KindDashboard, ""))
			if err != nil {
				t.Fatal(err)
			}
			before := time.Now()
			if r := probe.Once(t.Context(), addr(t, gateway), who, generate); r.Outcome != topology.Refused ||
				r.Status == http.StatusOK {
				t.Fatalf("got %+v, want Refused", r)
			}
			awaitAudit(t, gateway, s.Reason, func(e audit.Entry) bool {
				return !e.At.Before(before) && e.Outcome == string(topology.Refused) && e.Reason == s.Reason
			})
		})
	}
}

func TestATokenDoesNotStandForACertificate(t *testing.T) {
	gateway := serving(t, generate)
	before := time.Now()
	r := probe.Once(t.Context(), addr(t, gateway), probe.Caller{Bearer: "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"}, generate)
	if r.Outcome != topology.Refused {
		t.Fatalf("got %+v, want Refused", r)
	}
	awaitAudit(
		t,
		gateway,
		"no_certificate",
		func(e audit.Entry) bool { return e.At.After(before) && e.Reason == "no_certificate" },
	)
}

func TestASessionIsNeverResumed(t *testing.T) {
	gateway := serving(t, generate)
	svid, _, err := l.Mint(t.Context(), l.topo.ID(named(t, topology.KindDashboard, "")), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	who := probe.Caller{SVID: svid, Tickets: probe.NewTickets()}
	for range 3 {
		r := probe.Once(t.Context(), addr(t, gateway), who, generate)
		if r.Outcome != topology.Allowed || r.Resumed {
			t.Fatalf("got %+v, want Allowed and not resumed", r)
		}
	}
}

func TestAnExpiredCallerIsRefusedOnItsLiveConnection(t *testing.T) {
	gateway := serving(t, generate)
	id := l.topo.ID(named(t, topology.KindDashboard, ""))
	svid, _, err := l.Mint(t.Context(), id, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := probe.Open(t.Context(), addr(t, gateway), probe.Caller{SVID: svid})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if r := conn.Try(t.Context(), generate); r.Outcome != topology.Allowed {
		t.Fatalf("before the end: %+v, want Allowed", r)
	}
	// The connection is closed when idle past half of the identity's life, or refused with the reason; it is never served.
	await(
		t,
		5*time.Second,
		"the end of the identity",
		func() bool { return time.Now().After(svid.Certificates[0].NotAfter) },
	)
	if r := conn.Try(t.Context(), generate); r.Outcome != topology.Refused {
		t.Fatalf("after the end: %+v, want Refused", r)
	}
	if !conn.Closed(2 * time.Second) {
		t.Fatal("the connection of an expired caller stays open")
	}
}

func TestARevokedCallerIsRefusedOnItsLiveConnectionInTime(t *testing.T) {
	gateway, caller := serving(t, generate), named(t, topology.KindDashboard, "")
	svid, _, err := l.Mint(t.Context(), l.topo.ID(caller), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := probe.Open(t.Context(), addr(t, gateway), probe.Caller{SVID: svid})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if r := conn.Try(t.Context(), generate); r.Outcome != topology.Allowed {
		t.Fatalf("before: %+v, want Allowed", r)
	}
	old := fmt.Sprintf("%s: [%s]", generate, caller)
	restore := editTopology(t, old, fmt.Sprintf("%s: []", generate))
	struck := time.Now()
	var r probe.Result
	for r = conn.Try(t.Context(), generate); r.Outcome == topology.Allowed && time.Since(struck) < 2*time.Minute; {
		r = conn.Try(t.Context(), generate)
	}
	took := time.Since(struck)
	if r.Outcome != topology.Refused || r.Status != http.StatusUnauthorized || r.Reason != "not_admitted" {
		t.Fatalf("after: %+v, want Refused, 401, not_admitted", r)
	}
	if within := slack(time.Second, 90*time.Second); took > within {
		t.Errorf("it took %s, want at most %s", took, within)
	}
	t.Logf("it took %s", took)
	if !conn.Closed(2 * time.Second) {
		t.Error("the connection of a revoked caller stays open")
	}
	awaitAudit(t, gateway, "not_admitted", func(e audit.Entry) bool {
		return e.Reason == "not_admitted" && strings.HasSuffix(e.Serial, fmt.Sprintf("%x", svid.Certificates[0].SerialNumber))
	})
	for _, w := range l.topo.Workloads { // to strike one off lets no other in
		other, _, err := l.Mint(t.Context(), l.topo.ID(w.Name), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if r := probe.Once(
			t.Context(),
			addr(t, gateway),
			probe.Caller{SVID: other},
			generate,
		); r.Outcome != topology.Refused {
			t.Errorf("%s, while no one is listed: %+v, want Refused", w.Name, r)
		}
	}
	restore()
	await(t, slack(2*time.Second, 90*time.Second), "the caller to be admitted again", func() bool {
		return probe.Once(t.Context(), addr(t, gateway), probe.Caller{SVID: svid}, generate).Outcome == topology.Allowed
	})
}

// editTopology changes the running lab's policy, and returns what changes it back.
func editTopology(t *testing.T, old, new string) (restore func()) {
	t.Helper()
	text, err := os.ReadFile(l.Topology())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), old) != 1 {
		t.Fatalf("topology has %q %d times, want once", old, strings.Count(string(text), old))
	}
	restore = keepTopology(t)
	writeTopology(t, []byte(strings.Replace(string(text), old, new, 1)))
	return restore
}

// keepTopology returns a function that restores the policy of now; a test that ends early does that as
// well.
func keepTopology(t *testing.T) (restore func()) {
	t.Helper()
	text, err := os.ReadFile(l.Topology())
	if err != nil {
		t.Fatal(err)
	}
	restored := false
	restore = func() {
		if !restored {
			restored = true
			writeTopology(t, text)
		}
	}
	t.Cleanup(restore)
	return restore
}

func writeTopology(t *testing.T, text []byte) {
	t.Helper()
	path := l.Topology()
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestABadTopologyIsRefusedWholeAndTheOldOneStays(t *testing.T) {
	gateway := serving(t, generate)
	svid, _, err := l.Mint(t.Context(), l.topo.ID(named(t, topology.KindDashboard, "")), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	editTopology(t, string(generate)+": [", string(generate)+": [nobody-we-know, ")
	for _, w := range l.topo.Workloads { // each has a look of its own, and in a cluster at a time of its own
		if w.Kind != topology.KindOperator {
			awaitAuditWithin(
				t,
				slack(5*time.Second, 90*time.Second),
				w.Name,
				"bad_topology",
				func(e audit.Entry) bool { return e.At.After(before) && e.Reason == "bad_topology" },
			)
		}
	}
	if r := probe.Once(t.Context(), addr(t, gateway), probe.Caller{SVID: svid}, generate); r.Outcome != topology.Allowed {
		t.Fatalf("under a bad topology: %+v, want what the old one allows", r)
	}
}

func TestAnEditedPolicyIsADifferenceAndAFaultyOneIsToldWithTheWayBack(t *testing.T) {
	gateway, added := serving(t, generate), named(t, topology.KindSimulator, "git")
	svid, _, err := l.Mint(t.Context(), l.topo.ID(added), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	matrix := func(args ...string) (string, error) {
		return command(t.Context(), l.name, append([]string{"matrix", "--callee", gateway}, args...)...).run()
	}
	if out, err := matrix(); err != nil || strings.Contains(out, "was edited") {
		t.Fatalf("as it came: %v\n%s", err, out)
	}
	restore := editTopology(t, string(generate)+": [", string(generate)+": ["+added+", ")
	await(t, slack(5*time.Second, 90*time.Second), "the added caller to be let in", func() bool {
		return probe.Once(t.Context(), addr(t, gateway), probe.Caller{SVID: svid}, generate).Outcome == topology.Allowed
	})
	out, err := matrix("--caller", added)
	if want := fmt.Sprintf(
		"%s -> %s %s: Refused as it came, Allowed now",
		added,
		gateway,
		generate,
	); code(err) != lab.ExitAssertion ||
		!strings.Contains(out, want) {
		t.Errorf("an added caller: %v, want exit %d and %q\n%s", err, lab.ExitAssertion, want, out)
	}
	if out, err := matrix("--caller", added, "--against", "running"); err != nil || strings.Contains(out, "was edited") {
		t.Errorf("against what is running: %v\n%s", err, out)
	}
	restore()
	restore = editTopology(t, string(generate)+": [", string(generate)+": [nobody-we-know, ")
	back := "cp " + lab.Quoted(l.Shipped()) + " " + lab.Quoted(l.Topology())
	text, err := os.ReadFile(l.Topology())
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "nobody-we-know")
	line := fmt.Sprintf("line %d: ", strings.Count(before, "\n")+1)
	for _, args := range [][]string{{"status"}, {"matrix", "--caller", added, "--callee", gateway}} {
		out, err := command(t.Context(), l.name, args...).run()
		if code(err) != lab.ExitPartly || !strings.Contains(out, l.Topology()) || !strings.Contains(out, line) ||
			!strings.Contains(out, back) {
			t.Errorf("%v under a faulty policy: %v, want exit %d, %q and %q\n%s", args, err, lab.ExitPartly, line, back, out)
		}
	}
	if out, err := command(t.Context(), l.name, "open").run(); err != nil {
		t.Errorf("a link under a faulty policy: %v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", back).CombinedOutput(); err != nil {
		t.Fatalf("the way back: %v\n%s", err, out)
	}
	await(t, slack(5*time.Second, 90*time.Second), "the policy to be as it came", func() bool {
		_, err := matrix("--caller", added)
		return err == nil
	})
	if info, err := os.Stat(l.Shipped()); err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("%s: %v, %v", l.Shipped(), info, err)
	}
	restore()
}

func TestRotationUnderTrafficFailsNoRequest(t *testing.T) {
	before := serialsOf(t)
	during(t, func(ctx context.Context) {
		if err := l.Rotate(ctx); err != nil {
			t.Error(err)
		}
		await(
			t,
			slack(10*time.Second, 30*time.Second),
			"new serial numbers everywhere",
			func() bool { return allNew(before, serialsOf(t)) },
		)
	})
}

func TestOneWorkloadsNewIdentityIsNobodyElses(t *testing.T) {
	name := named(t, topology.KindCollector, "jira")
	before := serialsOf(t)
	for range 2 { // by the second, whoever else had got one with the first would show it
		was := serialsOf(t)[name]
		if err := l.RotateOne(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		await(
			t,
			slack(10*time.Second, 30*time.Second),
			"another serial number of "+name,
			func() bool { return serialsOf(t)[name] != was },
		)
	}
	for w, serial := range serialsOf(t) {
		if w != name && serial != before[w] {
			t.Errorf("%s got a new identity as well", w)
		}
	}
	for what, order := range map[string]func(context.Context, string) error{
		"rotate": l.RotateOne, "withdraw": l.Withdraw, "restore": l.Restore,
	} {
		if err := order(t.Context(), "nobody-of-this-name"); err == nil ||
			!strings.Contains(err.Error(), "topology does not list") {
			t.Errorf("%s somebody whom topology does not list: %v", what, err)
		}
	}
}

func TestCATurnsUnderTrafficWithoutAFailedRequestAndTheOldOneIsRefusedThen(t *testing.T) {
	gateway := serving(t, generate)
	id := l.topo.ID(named(t, topology.KindDashboard, ""))
	old, _, err := l.Mint(t.Context(), id, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := probe.Open(t.Context(), addr(t, gateway), probe.Caller{SVID: old})
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if r := kept.Try(t.Context(), generate); r.Outcome != topology.Allowed {
		t.Fatalf("before: %+v", r)
	}
	during(t, func(ctx context.Context) {
		before := serialsOf(t)
		for _, part := range []string{"prepare", "activate", "retire"} {
			if err := l.RotateCA(ctx, part); err != nil {
				t.Fatal(err)
			}
			if err := l.op.Renew(ctx); err != nil {
				t.Fatal(err)
			}
			_, bundles, err := l.Mint(ctx, id, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			bundle, _ := bundles.Get(l.topo.Domain())
			await(
				t,
				slack(20*time.Second, 60*time.Second),
				"everybody to have heard of "+part,
				func() bool { return everybodyTrusts(t, mesh.TrustDigest(bundle)) },
			)
			if part == "activate" { // nobody may still show an SVID of the old CA when it is retired
				await(
					t,
					slack(20*time.Second, 60*time.Second),
					"new serial numbers everywhere",
					func() bool { return allNew(before, serialsOf(t)) && everybodyHolds(t) },
				)
			}
		}
	})
	if r := probe.Once(t.Context(), addr(t, gateway), probe.Caller{SVID: old}, generate); r.Outcome != topology.Refused {
		t.Errorf("the old CA's certificate on a new connection: %+v, want Refused", r)
	}
	awaitAudit(t, gateway, "unknown_issuer", func(e audit.Entry) bool {
		return e.Reason == "unknown_issuer" && e.Serial == fmt.Sprintf("%x", old.Certificates[0].SerialNumber)
	})
	if r := kept.Try(t.Context(), generate); r.Outcome != topology.Refused {
		t.Errorf("the old CA's certificate on a kept connection: %+v, want Refused", r)
	}
}

func serialsOf(t testing.TB) map[string]string {
	t.Helper()
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, w := range st.Workloads {
		out[w.Name] = w.Serial
	}
	return out
}

func allNew(before, after map[string]string) bool {
	for name, serial := range after {
		if serial == "" || serial == before[name] {
			return false
		}
	}
	return true
}

// everybodyHolds says whether each workload has written down that it holds the SVID that was issued last.
func everybodyHolds(t testing.TB) bool {
	for name, serial := range serialsOf(t) {
		entries, err := lab.Entries(t.Context(), l.Lab, name)
		if err != nil {
			t.Fatal(err)
		}
		held := ""
		for _, e := range entries {
			if e.Kind == "identity" || e.Kind == "start" {
				held = e.Serial
			}
		}
		if held != serial {
			return false
		}
	}
	return true
}

// everybodyTrusts says whether each workload has written down that it verifies others by this bundle.
func everybodyTrusts(t testing.TB, digest string) bool {
	for name := range serialsOf(t) {
		entries, err := lab.Entries(t.Context(), l.Lab, name)
		if err != nil {
			t.Fatal(err)
		}
		trusts := ""
		for _, e := range entries {
			if e.Identity != nil {
				trusts = e.Identity.Trusts
			}
		}
		if trusts != digest {
			return false
		}
	}
	return true
}

// during runs f while requests between workloads flow, and fails if one of those does.
func during(t *testing.T, f func(context.Context)) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	began := time.Now()
	failed := make(chan error, 1)
	var sent atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, w := range l.topo.OfKind(topology.KindCollector) {
				var s collectorapi.Spool
				if err := l.op.Call(context.WithoutCancel(ctx), w.Name, http.MethodGet, "/v1/spool", nil, &s); err != nil {
					select {
					case failed <- fmt.Errorf("request %d: %w", sent.Load(), err):
					default:
					}
				}
				sent.Add(1)
			}
		}
	}()
	await(t, 5*time.Second, "the first requests", func() bool { return sent.Load() > 20 })
	f(ctx)
	after := sent.Load()
	await(t, 5*time.Second, "the last requests", func() bool { return sent.Load() > after+20 })
	stop()
	<-done
	select {
	case err := <-failed:
		t.Errorf("a request failed: %v", err)
	default:
	}
	// The workloads' own calls, which never stop, were not refused either.
	for _, w := range l.topo.Workloads {
		if w.Kind == topology.KindOperator {
			continue
		}
		entries, err := lab.Entries(t.Context(), l.Lab, w.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			// One with a count stands for repeats, perhaps from before: the first of them is an entry of its own.
			if e.At.After(began) && e.Count == 0 && e.Outcome == string(topology.Refused) {
				t.Errorf("%s refused %s %s: %s", w.Name, e.Peer, e.Route, e.Reason)
			}
		}
	}
	t.Logf("%d requests", sent.Load())
}

func TestAWithdrawnIdentityEndsServiceUntilItIsRestored(t *testing.T) {
	name := named(t, topology.KindCollector, "jira")
	if err := l.Withdraw(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Restore(context.Background(), name) })
	await(t, slack(5*time.Second, 60*time.Second), name+" to be not ready", func() bool {
		st, err := l.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range st.Workloads {
			if w.Name == name {
				return !w.Ready
			}
		}
		return false
	})
	var s collectorapi.Spool
	if err := l.op.Call(t.Context(), name, http.MethodGet, "/v1/spool", nil, &s); err == nil {
		t.Error("a workload without an identity answers")
	}
	awaitAudit(
		t,
		name,
		"no_identity",
		func(e audit.Entry) bool { return e.Kind == "identity" && e.Reason == "no_identity" },
	)
	if err := l.Restore(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	awaitHealthy(t)
	if err := l.op.Call(t.Context(), name, http.MethodGet, "/v1/spool", nil, &s); err != nil {
		t.Errorf("after its identity is back: %v", err)
	}
}

func TestAnUnknownProcessGetsNoIdentity(t *testing.T) {
	if l.inCluster() {
		needtest.Lacks(
			t,
			needtest.Local,
			"in a cluster it is pods that are known or not: see TestAPodOfAnotherAccountOrNamespaceGetsNoIdentity",
		)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := fetchIdentity(ctx, string(l.StateDir())+"/api.sock")
	if err == nil || !strings.Contains(err.Error(), "PermissionDenied") {
		t.Errorf("this test asked for an identity: %v, want PermissionDenied", err)
	}
}

func TestTheCASignsForItsOwnDomainAlone(t *testing.T) {
	_, _, err := l.Mint(t.Context(), spiffeid.RequireFromString("spiffe://elsewhere.example.net/lms"), time.Hour)
	if err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a refusal", err)
	}
}
