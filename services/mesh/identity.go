package mesh

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.org/security-training/services/audit"
)

// Identity is one generation of a workload's certificate and of the bundles that it verifies others with.
type Identity struct {
	SVID       *x509svid.SVID
	Bundles    *x509bundle.Set
	Generation uint64 // grows with every update
}

// NotAfter is when the SVID expires.
func (i *Identity) NotAfter() time.Time { return i.SVID.Certificates[0].NotAfter }

func (i *Identity) certificate() *tls.Certificate {
	c := &tls.Certificate{PrivateKey: i.SVID.PrivateKey, Leaf: i.SVID.Certificates[0]}
	for _, x := range i.SVID.Certificates {
		c.Certificate = append(c.Certificate, x.Raw)
	}
	return c
}

// Identities provides the current identity: from the Workload API in a process, from an in-memory CA in meshtest.
type Identities interface {
	// Current is the current identity, or an error while there is none.
	Current() (*Identity, error)
	// Changed is closed at the next change.
	Changed() <-chan struct{}
}

// Held implements Identities with what its owner sets. The zero value has no identity.
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

// Clear removes the identity; why is the error of Current from then on.
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
// go-spiffe's X509Source keeps an SVID that was withdrawn, and waits up to 30 s between attempts. Here a
// PermissionDenied clears the identity at once, and the next attempt follows within two seconds.
func watch(ctx context.Context, socket string, h *Held) error {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(socket), workloadapi.WithBackoffStrategy(backoff{}))
	if err != nil {
		return fmt.Errorf("open workload API %s: %w", socket, err)
	}
	go func() {
		defer client.Close()
		for ctx.Err() == nil {
			// WatchX509Context returns only when ctx ends or after an InvalidArgument, which it treats as final. It is called
			// again nevertheless: a restarted Workload API may accept the request.
			if err := client.WatchX509Context(ctx, watcher{h}); ctx.Err() == nil {
				h.Clear(err)
				select {
				case <-ctx.Done():
				case <-time.After(maxBackoff):
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
	minBackoff = 250 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// backoff waits 250 ms before the next attempt, doubled each time up to 2 s.
type backoff struct{}

func (backoff) NewBackoff() workloadapi.Backoff { return &exponential{next: minBackoff} }

type exponential struct{ next time.Duration }

func (g *exponential) Next() time.Duration {
	d := g.next
	g.next = min(2*g.next, maxBackoff)
	return d
}

func (g *exponential) Reset() { g.next = minBackoff }

// auditIdentity is the validity of an identity and its authorities, for the audit.
func auditIdentity(id *Identity) *audit.Identity {
	h := &audit.Identity{Until: id.NotAfter().UTC()}
	if b, ok := id.Bundles.Get(id.SVID.ID.TrustDomain()); ok {
		h.Trusts = TrustDigest(b)
	}
	return h
}

// TrustDigest identifies a bundle: the first 16 hex digits of SHA-256 over its authorities in a fixed order.
func TrustDigest(b *x509bundle.Bundle) string {
	var all []string
	for _, c := range b.X509Authorities() {
		all = append(all, string(c.Raw))
	}
	slices.Sort(all)
	sum := sha256.Sum256([]byte(strings.Join(all, "")))
	return hex.EncodeToString(sum[:8])
}

func serialOf(id *Identity) string { return fmt.Sprintf("%x", id.SVID.Certificates[0].SerialNumber) }

func awaitIdentity(ctx context.Context, ids Identities) (*Identity, error) {
	for {
		changed := ids.Changed()
		id, err := ids.Current()
		if err == nil {
			return id, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for an identity: %w (%w)", err, context.Cause(ctx))
		case <-changed:
		}
	}
}

// halfOf is half of the time until the earliest of ends, the longest lifetime of a connection.
func halfOf(now time.Time, ends ...time.Time) time.Duration {
	shortest := time.Duration(1<<63 - 1)
	for _, e := range ends {
		shortest = min(shortest, e.Sub(now))
	}
	return max(0, shortest/2)
}
