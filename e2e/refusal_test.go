package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"example.org/security-training/lab/matrix"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/env/needtest"
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
	// The callee closes a connection that is idle past half of the identity's life, or refuses the request with the
	// reason. It never serves it.
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
	for _, w := range l.topo.Workloads { // removing one caller admits no other
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
