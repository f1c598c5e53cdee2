package mesh_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/security-training/manifests"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

func TestIdleAndHalfOpenConnectionsDelayNobody(t *testing.T) {
	const each = 500
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, callee))
	who := probe.Caller{SVID: n.Mint(t, caller, time.Hour, nil)}
	var mu sync.Mutex
	var held []*probe.Conn
	t.Cleanup(func() {
		for _, c := range held {
			c.Close()
		}
	})
	var group sync.WaitGroup
	jobs := make(chan probe.Manner)
	for range 16 {
		group.Go(func() {
			for manner := range jobs {
				c, err := probe.Open(t.Context(), n.Addr(callee), probe.Caller{SVID: who.SVID, Manner: manner})
				if err != nil {
					t.Error(err)
					continue
				}
				mu.Lock()
				held = append(held, c)
				mu.Unlock()
			}
		})
	}
	for range each {
		jobs <- probe.TLS13
	}
	for range each { // last: they are given up after a few seconds
		jobs <- probe.HalfOpen
	}
	close(jobs)
	group.Wait()
	if len(held) != 2*each {
		t.Fatalf("%d connections are open, want %d", len(held), 2*each)
	}
	var took []time.Duration // the middle one counts: the machine has other work, too
	for range 9 {
		began := time.Now()
		if got := probe.Once(t.Context(), n.Addr(callee), who, generate); got.Outcome != topology.Allowed {
			t.Errorf("a good call among %d idle and %d half-open ones: %+v, want Allowed", each, each, got)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	if middle := took[len(took)/2]; middle > 250*time.Millisecond {
		t.Errorf("good calls among %d idle and %d half-open ones took %s, want half of them under 250 ms", each, each, took)
	}
}

// TestNoRequestFailsWhileIdentitiesAndCATurn runs with SVIDs of ten seconds that are renewed twice a second, and a CA
// that is prepared, activated and retired meanwhile. It runs alone: that requests are slow on a machine with other work
// shows nothing.
func TestNoRequestFailsWhileIdentitiesAndCATurn(t *testing.T) {
	const ttl, pace = 10 * time.Second, 500 * time.Millisecond
	n := meshtest.Start(t, manifests.Topology())
	serials := sync.Map{}
	gateway := n.Join(t, callee)
	gateway.Handle(generate, func(w http.ResponseWriter, r *http.Request) error {
		serials.Store(mesh.CallerSerial(r.Context()), true)
		_, err := io.Copy(w, r.Body)
		return err
	})
	n.Serve(t, gateway)
	node := n.Join(t, caller)

	next, err := authority.New(n.Topology.Domain(), n.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca := n.CA
	newest := "" // the caller's serial number
	renew := func() {
		for _, name := range []string{caller, callee} {
			svid, err := ca.Issue(n.Topology.ID(name), n.Now(), ttl, nil)
			if err != nil {
				t.Fatal(err)
			}
			n.Identity(name).Set(svid, n.Bundles())
			if name == caller {
				newest = svid.Certificates[0].SerialNumber.Text(16)
			}
		}
	}
	awaitUse := func() {
		meshtest.Await(t, "a request by the newest certificate", func() bool { _, seen := serials.Load(newest); return seen })
	}
	renew()

	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var sent, failed atomic.Int64
	for range 4 {
		group.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				<-tick.C
				sent.Add(1)
				resp, err := node.Peer(callee).Post(t.Context(), generate.Path(), "application/json", []byte("{}"))
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				if err != nil || resp.StatusCode != http.StatusOK {
					failed.Add(1)
					t.Errorf("a request failed: %v %+v", err, resp)
				}
			}
		})
	}
	renewal := time.NewTicker(pace)
	defer renewal.Stop()
	for turn := range 5 {
		<-renewal.C
		awaitUse()
		switch turn {
		case 0:
			n.Trust(n.CA.Cert, next.Cert)
		case 1:
			ca = next
		case 4:
			n.Trust(next.Cert)
		}
		renew()
	}
	awaitUse()
	stop()
	group.Wait()
	seen := 0
	serials.Range(func(any, any) bool { seen++; return true })
	if seen < 6 {
		t.Errorf("%d requests by %d certificates: too few to show anything", sent.Load(), seen)
	}
	t.Logf("%d requests by %d certificates, %d failed", sent.Load(), seen, failed.Load())
}

// TestNoRequestFailsWhileConnectionsOfShortIdentitiesEnd leaves the identities as they are, so that connections end at
// the half of what is left of them, by the server's clock and by the client's: after 2 s the latter, after 4 s the
// former.
func TestNoRequestFailsWhileConnectionsOfShortIdentitiesEnd(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, callee))
	node := n.Join(t, caller)
	svid := n.Mint(t, caller, 8*time.Second, nil)
	n.Identity(caller).Set(svid, n.Bundles())
	end := svid.Certificates[0].NotAfter // of whole seconds, as certificates have it
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for time.Until(end) > 3*time.Second {
		<-pace.C
		resp, err := node.Peer(callee).Post(t.Context(), generate.Path(), "application/json", []byte("{}"))
		if err != nil {
			t.Fatalf("%s before the end: %v", time.Until(end), err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Fatalf("%s before the end: %s", time.Until(end), resp.Status)
		}
	}
}
