package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

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
	for range 2 { // the second round shows a workload that got a new identity in the first round by mistake
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
			t.Errorf("%s a workload that topology does not list: %v", what, err)
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
				"every workload to have the bundle after "+part,
				func() bool { return everybodyTrusts(t, mesh.TrustDigest(bundle)) },
			)
			if part == "activate" { // before retirement, no workload may still hold an SVID of the old CA
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

// everybodyHolds says whether each workload's audit says that it holds the SVID that was issued last.
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

// everybodyTrusts says whether each workload's audit says that it verifies peers by the bundle with this digest.
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

// during runs f while workloads exchange requests, and fails the test if one of those requests fails.
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
	// The workloads' own calls, which go on all the time, were not refused either.
	for _, w := range l.topo.Workloads {
		if w.Kind == topology.KindOperator {
			continue
		}
		entries, err := lab.Entries(t.Context(), l.Lab, w.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			// An entry with a count stands for repeats, which may be older. The first of them has an entry of its own.
			if e.At.After(began) && e.Count == 0 && e.Outcome == string(topology.Refused) {
				t.Errorf("%s refused %s %s: %s", w.Name, e.Peer, e.Route, e.Reason)
			}
		}
	}
	t.Logf("%d requests", sent.Load())
}
