package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.org/security-training/manifests"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

func TestMain(m *testing.M) {
	// Most of these tests wait for a clock rather than for the processor.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// The tests' call: the one that the product is built around.
const (
	caller   = "lms"
	callee   = "llm-gateway"
	generate = topology.Route("POST /v1/generate")
)

// last is the sequence number of name's newest entry.
func last(t testing.TB, n *meshtest.Net, name string) uint64 {
	t.Helper()
	entries := n.Entries(t, name)
	if len(entries) == 0 {
		return 0
	}
	return entries[len(entries)-1].Seq
}

// awaitNext waits for name's first entry of a kind and outcome after the one numbered seq. Entries reach the file
// within milliseconds and in order, so one of before seq was read may still arrive after it.
func awaitNext(t testing.TB, n *meshtest.Net, name, kind string, outcome topology.Outcome, seq uint64) audit.Entry {
	t.Helper()
	return n.AwaitAudit(t, name, "the next "+kind+" "+string(outcome), func(e audit.Entry) bool {
		return e.Kind == kind && e.Outcome == string(outcome) && e.Seq > seq
	})
}

func TestForgedCallerIsRefusedAndTheRuleIsNamed(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, callee))
	for _, c := range forgeries {
		t.Run(c.rule, func(t *testing.T) {
			svid := c.forge(&forger{t, n, n.Topology.ID(caller)})
			before := last(t, n, callee)
			got := probe.Once(t.Context(), n.Addr(callee), probe.Caller{SVID: svid}, generate)
			want := topology.Refused
			if c.want == "" {
				want = topology.Allowed
			}
			entry := awaitNext(t, n, callee, "decision", want, before)
			if c.want == "" {
				if got.Outcome != topology.Allowed || entry.Outcome != string(topology.Allowed) {
					t.Errorf("the caller saw %+v, the callee recorded %+v; want Allowed", got, entry)
				}
				return
			}
			if got.Outcome != topology.Refused || got.Status != 0 || got.Err == nil {
				t.Errorf("the caller saw %+v, want no session", got)
			}
			if entry.Outcome != string(topology.Refused) || entry.Reason != string(c.want) {
				t.Errorf("the callee recorded %s %s (%s), want Refused %s", entry.Outcome, entry.Reason, entry.Detail, c.want)
			}
			if early := c.want == mesh.Unparseable || c.want == mesh.ProofOfPossession; !early &&
				entry.Serial != fmt.Sprintf("%x", svid.Certificates[0].SerialNumber) {
				t.Errorf("recorded serial %s, want that of the forgery, %x", entry.Serial, svid.Certificates[0].SerialNumber)
			}
		})
	}
}

func TestForgedCalleeIsRefusedByTheCallerAndTheRuleIsNamed(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	node := n.Join(t, caller)
	for _, c := range forgeries {
		t.Run(c.rule, func(t *testing.T) {
			svid := c.forge(&forger{t, n, n.Topology.ID(callee)})
			stop := impostor(t, n.Addr(callee), func(ctx context.Context, l net.Listener) error {
				return probe.Serve(ctx, l,
					svid)
			})
			defer stop()
			before := last(t, n, caller)
			resp, err := node.Peer(callee).Post(t.Context(), generate.Path(), "application/json", []byte("{}"))
			if c.want == "" {
				if err != nil {
					t.Fatalf("an unusual and good server was refused: %v", err)
				}
				resp.Body.Close()
				// The next rule's server must be met on a connection of its own.
				n.Identity(caller).Set(n.Mint(t, caller, time.Hour, nil), n.Bundles())
				return
			}
			want := c.want
			if want == mesh.Unlisted { // on this side there is one name to expect
				want = mesh.UnexpectedPeer
			}
			var refusal *mesh.Refusal
			if !errors.As(err, &refusal) || refusal.Reason != want {
				t.Errorf("the call ended with %v, want a refusal for %s", err, want)
			}
			if entry := awaitNext(t, n, caller, "dial", topology.Refused, before); entry.Reason != string(want) ||
				entry.Outcome != string(topology.Refused) {
				t.Errorf("the caller recorded %s %s (%s), want Refused %s", entry.Outcome, entry.Reason, entry.Detail, want)
			}
		})
	}
}

// impostor runs serve at addr until stop.
func impostor(t testing.TB, addr string, serve func(context.Context, net.Listener) error) (stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l) }()
	return func() {
		cancel()
		l.Close()
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("impostor: %v", err)
		}
	}
}

func TestEveryRuleHasAForgery(t *testing.T) {
	tried := map[mesh.Reason]bool{}
	for _, f := range forgeries {
		tried[f.want] = true
	}
	for _, r := range []mesh.Reason{
		mesh.Unparseable, mesh.ProofOfPossession,
		mesh.NoURI, mesh.ManyURIs, mesh.Scheme, mesh.NoPath, mesh.Query, mesh.Fragment, mesh.UserInfo, mesh.Port,
		mesh.EmptyDomain,
		mesh.DomainCharacter, mesh.PercentEncoding, mesh.PathSegment, mesh.TrailingSlash, mesh.SegmentCharacter, mesh.TooLong,
		mesh.LeafIsCA, mesh.LeafSignsCerts, mesh.LeafSignsCRLs, mesh.NoDigitalSignature, mesh.NoKeyUsage,
		mesh.KeyUsageNotCritical,
		mesh.ExtendedKeyUsage, mesh.IntermediateNotCA, mesh.IntermediateUsage, mesh.SignerWithPath, mesh.URINotCritical,
		mesh.Expired,
		mesh.NotYetValid, mesh.UnknownIssuer, mesh.BadSignature, mesh.SelfSigned, mesh.PathLength, mesh.CriticalExtension,
		mesh.NameConstraint, mesh.ForeignDomain, mesh.OtherDomainsCA, mesh.Unlisted,
	} {
		if !tried[r] {
			t.Errorf("no forgery breaks the rule %s", r)
		}
	}
}

func TestCallerWithoutAnIdentityIsRefusedAndTheReasonRecorded(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, callee))
	honest := n.Mint(t, caller, time.Hour, nil)
	for _, c := range []struct {
		name   string
		caller probe.Caller
		want   mesh.Reason
	}{
		{"no certificate", probe.Caller{}, mesh.NoCertificate},
		{"a JWT instead of a certificate", probe.Caller{Bearer: "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmU6Ly94L2xtcyJ9.c2ln"},
			mesh.NoCertificate},
		{"plaintext", probe.Caller{Manner: probe.Plaintext}, mesh.Plaintext},
		{"plaintext with a JWT", probe.Caller{Manner: probe.Plaintext, Bearer: "eyJhbGciOiJub25lIn0.e30."}, mesh.Plaintext},
		{"TLS 1.2 with a good certificate", probe.Caller{SVID: honest, Manner: probe.TLS12}, mesh.TLSVersion},
		{"listed, but on no route", probe.Caller{SVID: n.Mint(t, "git-collector", time.Hour, nil)}, mesh.NotAdmitted},
		{"itself", probe.Caller{SVID: n.Mint(t, callee, time.Hour, nil)}, mesh.NotAdmitted},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := last(t, n, callee)
			got := probe.Once(t.Context(), n.Addr(callee), c.caller, generate)
			if got.Outcome != topology.Refused {
				t.Errorf("the caller saw %+v, want Refused", got)
			}
			entry := awaitNext(t, n, callee, "decision", topology.Refused, before)
			if entry.Outcome != string(topology.Refused) || entry.Reason != string(c.want) {
				t.Errorf("the callee recorded %s %s (%s), want Refused %s", entry.Outcome, entry.Reason, entry.Detail, c.want)
			}
		})
	}
	t.Run("hung up at once", func(t *testing.T) {
		before := last(t, n, callee)
		conn, err := probe.Open(t.Context(), n.Addr(callee), probe.Caller{Manner: probe.HalfOpen})
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if entry := awaitNext(t, n, callee, "decision", topology.Refused, before); entry.Reason != string(mesh.HungUp) {
			t.Errorf("recorded %s (%s), want %s", entry.Reason, entry.Detail, mesh.HungUp)
		}
	})
}

func TestAuditNamesTheRefusedAndNeverTheirBytesAtLength(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, callee))
	before := last(t, n, callee)
	for _, uri := range []string{"https://" + strings.Repeat("x", 50_000), "spiffe://example.org/" + strings.Repeat("&",
		50_000), "spiffe://" + strings.Repeat("<", 1500)} {
		svid := uris(uri)(&forger{t, n, n.Topology.ID(caller)})
		probe.Once(t.Context(), n.Addr(callee), probe.Caller{SVID: svid}, generate)
		e := awaitNext(t, n, callee, "decision", topology.Refused, before)
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if e.Peer == "" || len(text) > 1000 {
			t.Errorf("recorded peer %q in %d bytes", e.Peer, len(text))
		}
		before = e.Seq
	}
}

func TestOldCAIsNoLongerTrustedAfterItsRemoval(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, callee))
	old := probe.Caller{SVID: n.Mint(t, caller, time.Hour, nil)}
	next, err := authority.New(n.Topology.Domain(), n.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	n.Trust(n.CA.Cert, next.Cert)
	if got := probe.Once(t.Context(), n.Addr(callee), old, generate); got.Outcome != topology.Allowed {
		t.Fatalf("with both CAs trusted: %+v, want Allowed", got)
	}
	svid, err := next.Issue(n.Topology.ID(caller), n.Now(), time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := probe.Once(t.Context(), n.Addr(callee), probe.Caller{SVID: svid},
		generate); got.Outcome != topology.Allowed {
		t.Fatalf("under the new CA: %+v, want Allowed", got)
	}
	n.Trust(next.Cert)
	before := last(t, n, callee)
	if got := probe.Once(t.Context(), n.Addr(callee), old, generate); got.Outcome != topology.Refused {
		t.Errorf("under the removed CA: %+v, want Refused", got)
	}
	if e := awaitNext(t, n, callee, "decision", topology.Refused, before); e.Reason != string(mesh.UnknownIssuer) {
		t.Errorf("recorded %s, want %s", e.Reason, mesh.UnknownIssuer)
	}
}

func TestCalleesClockMayBeOffByEightSecondsAndNotByAMinute(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		off  time.Duration
		want mesh.Reason
	}{
		{"8 s behind", -8 * time.Second, ""},
		{"8 s ahead", 8 * time.Second, ""},
		{"60 s behind", -time.Minute, mesh.NotYetValid},
		{"60 s ahead", time.Minute, mesh.Expired},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := meshtest.Start(t, manifests.Topology())
			// The caller's SVID lives 30 s, so that a minute is more than all of it; the callee's own is of its own clock.
			svid := n.Mint(t, caller, 30*time.Second, nil)
			wall := n.Now
			n.Now = func() time.Time { return wall().Add(c.off) }
			n.ServeStubs(t, n.Join(t, callee))
			before := last(t, n, callee)
			got := probe.Once(t.Context(), n.Addr(callee), probe.Caller{SVID: svid}, generate)
			want := topology.Refused
			if c.want == "" {
				want = topology.Allowed
			}
			if e := awaitNext(t, n, callee, "decision", want, before); got.Outcome != want || e.Reason != string(c.want) {
				t.Errorf("%+v, recorded %s (%s), want %s %s", got, e.Reason, e.Detail, want, c.want)
			}
		})
	}
}

func TestCallerMayNotHideBehindASharedConnectionOfAnother(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, "risk-scorer"))
	conn, err := probe.Open(t.Context(), n.Addr("risk-scorer"), probe.Caller{SVID: n.Mint(t, "git-collector", time.Hour,
		nil)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, c := range []struct {
		route topology.Route
		want  topology.Outcome
	}{{"POST /v1/events", topology.Allowed}, {"GET /v1/people", topology.Forbidden}, {"GET /v1/clock", topology.Allowed},
		{"PUT /v1/people", topology.Forbidden}} {
		if got := conn.Try(t.Context(), c.route); got.Outcome != c.want {
			t.Errorf("%s: %+v, want %s on the same connection", c.route, got, c.want)
		}
	}
}
