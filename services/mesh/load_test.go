package mesh_test

import (
	"context"
	"io"
	"net/http"
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
		jobs <- probe.HalfOpen
	}
	for range each {
		jobs <- probe.TLS13
	}
	close(jobs)
	group.Wait()
	if len(held) != 2*each {
		t.Fatalf("%d connections are open, want %d", len(held), 2*each)
	}
	for range 5 {
		began := time.Now()
		got := probe.Once(t.Context(), n.Addr(callee), who, generate)
		if took := time.Since(began); got.Outcome != topology.Allowed || took > 250*time.Millisecond {
			t.Errorf("a good call among %d idle and %d half-open ones: %+v after %s, want Allowed under 250 ms", each, each, got, took)
		}
	}
}

// TestNoRequestFailsWhileIdentitiesAndCATurn runs with SVIDs of two seconds that are renewed twice a second, and
// a CA that is prepared, activated and retired meanwhile.
func TestNoRequestFailsWhileIdentitiesAndCATurn(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second // of which certificates, in whole seconds, may take one
	n := meshtest.Start(t, manifests.Topology())
	serials := sync.Map{}
	gateway := n.Join(t, callee)
	gateway.Handle(string(generate), func(w http.ResponseWriter, r *http.Request) error {
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
	renew := func() {
		for _, name := range []string{caller, callee} {
			svid, err := ca.Issue(n.Topology.ID(name), n.Now(), ttl, nil)
			if err != nil {
				t.Fatal(err)
			}
			n.Identity(name).Set(svid, n.Bundles())
		}
	}
	renew()

	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var sent, failed atomic.Int64
	for range 4 {
		group.Go(func() {
			pace := time.NewTicker(2 * time.Millisecond)
			defer pace.Stop()
			for ctx.Err() == nil {
				<-pace.C
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
	renewal := time.NewTicker(ttl / 4)
	defer renewal.Stop()
	for turn := range 5 {
		<-renewal.C
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
	stop()
	group.Wait()
	seen := 0
	serials.Range(func(any, any) bool { seen++; return true })
	if sent.Load() < 20 || seen < 4 {
		t.Errorf("%d requests by %d certificates: too few to show anything", sent.Load(), seen)
	}
	t.Logf("%d requests by %d certificates, %d failed", sent.Load(), seen, failed.Load())
}

// TestNoRequestFailsWhileConnectionsOfShortIdentitiesEnd leaves the identities as they are, so that connections end at the
// half of what is left of them, by the server's clock and by the client's.
func TestNoRequestFailsWhileConnectionsOfShortIdentitiesEnd(t *testing.T) {
	t.Parallel()
	n := meshtest.Start(t, manifests.Topology())
	n.ServeStubs(t, n.Join(t, callee))
	node := n.Join(t, caller)
	svid := n.Mint(t, caller, 3*time.Second, nil)
	n.Identity(caller).Set(svid, n.Bundles())
	end := svid.Certificates[0].NotAfter // of whole seconds, as certificates have it
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for time.Until(end) > 600*time.Millisecond {
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
