package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Identity is one generation of a workload's own certificate and of the bundles that it verifies others by.
type Identity struct {
	SVID       *x509svid.SVID
	Bundles    *x509bundle.Set
	Generation uint64 // grows with every update
}

// NotAfter is when the own SVID ends.
func (i *Identity) NotAfter() time.Time { return i.SVID.Certificates[0].NotAfter }

func (i *Identity) certificate() *tls.Certificate {
	c := &tls.Certificate{PrivateKey: i.SVID.PrivateKey, Leaf: i.SVID.Certificates[0]}
	for _, x := range i.SVID.Certificates {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c
}

// Identities hands out the current identity. It is the Workload API in every process, and an in-memory CA in meshtest.
type Identities interface {
	// Current is the identity now, or an error while there is none.
	Current() (*Identity, error)
	// Changed is closed at the next change.
	Changed() <-chan struct{}
}

// Held is a set of Identities that somebody else fills. The zero value holds none.
type Held struct {
	mu      sync.Mutex
	current *Identity
	why     error
	next    uint64
	changed chan struct{}
}

// Set makes svid and bundles the current identity.
func (h *Held) Set(svid *x509svid.SVID, bundles *x509bundle.Set) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	h.current, h.why = &Identity{SVID: svid, Bundles: bundles, Generation: h.next}, nil
	h.signal()
}

// Clear drops the identity, because of why.
func (h *Held) Clear(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.current, h.why = nil, why
	h.signal()
}

func (h *Held) signal() {
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// Current implements Identities.
func (h *Held) Current() (*Identity, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current == nil {
		if h.why != nil {
			return nil, fmt.Errorf("no identity: %w", h.why)
		}
		return nil, errors.New("no identity yet")
	}
	return h.current, nil
}

// Changed implements Identities.
func (h *Held) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.changed
}

// watch fills h from the Workload API at socket until ctx ends.
//
// go-spiffe's X509Source keeps an SVID that was withdrawn and backs off to 30 s; here a PermissionDenied clears the identity
// at once, and the next try is never more than two seconds away.
func watch(ctx context.Context, socket string, h *Held) error {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(socket), workloadapi.WithBackoffStrategy(pause{}))
	if err != nil {
		return fmt.Errorf("open workload API %s: %w", socket, err)
	}
	go func() {
		defer client.Close()
		for ctx.Err() == nil {
			// WatchX509Context returns only for ctx's end or an InvalidArgument, and then asks not to be called again: the
			// Workload API may be restarted with other manners, so it is called again all the same.
			if err := client.WatchX509Context(ctx, watcher{h}); ctx.Err() == nil {
				h.Clear(err)
				select {
				case <-ctx.Done():
				case <-time.After(longestPause):
				}
			}
		}
	}()
	return nil
}

type watcher struct{ held *Held }

func (w watcher) OnX509ContextUpdate(c *workloadapi.X509Context) {
	w.held.Set(c.DefaultSVID(), c.Bundles)
}

func (w watcher) OnX509ContextWatchError(err error) {
	if status.Code(err) == codes.PermissionDenied {
		w.held.Clear(errors.New("the Workload API has withdrawn it, or does not know this process"))
	}
}

const (
	shortestPause = 250 * time.Millisecond
	longestPause  = 2 * time.Second
)

// pause is the pace of the tries: 250 ms, doubled up to 2 s.
type pause struct{}

func (pause) NewBackoff() workloadapi.Backoff { return &growing{next: shortestPause} }

type growing struct{ next time.Duration }

func (g *growing) Next() time.Duration {
	d := g.next
	g.next = min(2*g.next, longestPause)
	return d
}

func (g *growing) Reset() { g.next = shortestPause }

// half is half of what is left until the earliest of ends: no connection lives longer.
func half(now time.Time, ends ...time.Time) time.Duration {
	shortest := time.Duration(1<<63 - 1)
	for _, e := range ends {
		shortest = min(shortest, e.Sub(now))
	}
	return max(0, shortest/2)
}
