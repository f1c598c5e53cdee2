package mesh

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A connection of HTTP/2 on which one request begins before the last is answered is never idle. The answer to
// the first request after half of the identity's life sends the caller to another one, and no request is lost by it.
func TestAConnectionThatIsNeverIdleIsLeftAfterHalfAnIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := domainCA(t)
		a, b := lone(t, "a", ca), lone(t, "b", ca)
		handling(a, func(w http.ResponseWriter, r *http.Request) error {
			<-time.After(3 * time.Second)
			return noContent(w, r)
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
		began := time.Now()
		var mu sync.Mutex
		var opened, ended []time.Duration
		transport := &http.Transport{
			ForceAttemptHTTP2: true,
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				mu.Lock()
				opened = append(opened, time.Since(began))
				mu.Unlock()
				conn := tls.Client(&noted{Conn: l.dial(), end: func() {
					mu.Lock()
					defer mu.Unlock()
					ended = append(ended, time.Since(began))
				}}, config)
				return conn, conn.HandshakeContext(ctx)
			},
		}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport}
		var group sync.WaitGroup
		for n := range 17 { // one a second, each answered after three
			group.Go(func() {
				<-time.After(time.Duration(n) * time.Second)
				resp, err := client.Get("https://a/x")
				if err != nil {
					t.Errorf("the request of second %d: %v", n, err)
					return
				}
				defer resp.Body.Close()
				_, err = io.Copy(io.Discard, resp.Body)
				if err != nil || resp.StatusCode != http.StatusNoContent || resp.ProtoMajor != 2 {
					t.Errorf("the request of second %d: %s by %s, %v", n, resp.Status, resp.Proto, err)
				}
			})
		}
		group.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(opened) != 2 || opened[1] < 10*time.Second || opened[1] > 15*time.Second {
			t.Fatalf("connections were opened after %v, want a second one with an answer soon after 10 s", opened)
		}
		if len(ended) == 0 || ended[0] > 18*time.Second {
			t.Errorf("connections were left after %v, want the first one after its last answer", ended)
		}
	})
}
