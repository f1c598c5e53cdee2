package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"example.org/security-training/services/mesh/bare"
	"example.org/security-training/services/topology"
)

// concurrently does n things with atOnce callers at the same time. It returns how many were done, and how many a
// second. It stops at the first error.
func concurrently(ctx context.Context, n int, do func(context.Context) error) (int, float64, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var left, done atomic.Int64
	left.Store(int64(n))
	var group sync.WaitGroup
	begin := time.Now()
	for range atOnce {
		group.Go(func() {
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				if err := do(ctx); err != nil {
					stop(err)
					return
				}
				done.Add(1)
			}
		})
	}
	group.Wait()
	took := time.Since(begin)
	return int(done.Load()), float64(done.Load()) / took.Seconds(), context.Cause(ctx)
}

// handshake compares new connections by the mesh, which are verified by SPIFFE's rules and admitted by policy, with
// crypto/tls alone and the same certificates. On both sides a connection counts when the callee's first bytes have
// arrived; then it is closed.
func handshake(ctx context.Context, s *stage) (*contest, error) {
	p, err := newPair(
		ctx,
		func(http.ResponseWriter, *http.Request) error { return errors.New("no request is expected") },
	)
	if err != nil {
		return nil, err
	}
	server, err := bare.Listen(host, p.svids[callee], p.trusts)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	ours, theirs := p.byMesh(), bare.Call(server.Addr(), p.topo.ID(callee), p.svids[caller], p.trusts)
	admitted := int64(0)
	return &contest{
		ours: side{
			s.size.handshakes,
			func(ctx context.Context) (int, float64, error) {
				return concurrently(ctx, s.size.handshakes, ours.Knock)
			},
		},
		peer: &side{s.size.handshakes, func(ctx context.Context) (int, float64, error) {
			return concurrently(ctx, s.size.handshakes, theirs.Knock)
		}},
		check: func(ctx context.Context) (string, error) {
			before := admitted
			if admitted = server.Admitted(); admitted-before != int64(s.size.handshakes) {
				return fmt.Sprintf("the peer's server admitted %d of %d", admitted-before, s.size.handshakes), nil
			}
			outcomes, err := p.decided(ctx, 0)
			if n := outcomes[string(topology.Refused)]; n > 0 {
				return fmt.Sprintf("the mesh refused %d", n), err
			}
			return "", err
		},
		end: func() error { return errors.Join(server.Close(), p.close()) },
	}, nil
}
