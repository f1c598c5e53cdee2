package operator

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.org/security-training/manifests"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/topology"
)

func TestACallIsMadeAgainWhenAWorkloadSaysNotNowAndSoonAndOnlyThen(t *testing.T) {
	net := meshtest.Start(t, manifests.Topology())
	scorer := net.Join(t, net.Topology.OfKind(topology.KindScorer)[0].Name)
	var calls atomic.Int64
	var refusal atomic.Pointer[httpjson.Error] // the answer to the first call
	for _, route := range scorer.Self().Routes() {
		scorer.Handle(route, func(w http.ResponseWriter, _ *http.Request) error {
			if n := calls.Add(1); n == 1 {
				return refusal.Load()
			}
			w.WriteHeader(http.StatusNoContent)
			return nil
		})
	}
	net.Serve(t, scorer)
	o := &Operator{Node: net.Join(t, net.Topology.OfKind(topology.KindOperator)[0].Name)}
	for _, c := range []struct {
		refusal *httpjson.Error
		calls   int64
	}{
		{httpjson.Errorf(http.StatusServiceUnavailable, "database_away", "try again").After(time.Second), 2},
		{httpjson.Errorf(http.StatusServiceUnavailable, "database_away", "try again").After(patience + time.Second), 1},
		{httpjson.Errorf(http.StatusServiceUnavailable, "closed", "for good"), 1},
		{httpjson.Errorf(http.StatusTooManyRequests, "quota", "try again").After(time.Second), 1},
		{httpjson.Errorf(http.StatusNotFound, "not_found", "nothing here"), 1},
	} {
		calls.Store(0)
		refusal.Store(c.refusal)
		err := o.Call(t.Context(), scorer.Self().Name, http.MethodPost, "/v1/reset", nil, nil)
		var answered *httpjson.Error
		if again := c.calls > 1; again != (err == nil) ||
			!again && (!errors.As(err, &answered) || answered.Code != c.refusal.Code) {
			t.Errorf("%d %s after %v: %v", c.refusal.Status, c.refusal.Code, c.refusal.RetryAfter, err)
		}
		if calls.Load() != c.calls {
			t.Errorf(
				"%d %s after %v: asked %d times, want %d",
				c.refusal.Status,
				c.refusal.Code,
				c.refusal.RetryAfter,
				calls.Load(),
				c.calls,
			)
		}
	}
}

func TestAnOperatorKeepsItsIdentityWhileTheIssuerIsAwayAndIsRenewedSoonAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := meshtest.Start(t, manifests.Topology())
		name := net.Topology.OfKind(topology.KindOperator)[0].Name
		o := &Operator{held: &mesh.Held{}}
		var away atomic.Bool
		o.renew = func(context.Context) error {
			if away.Load() {
				return errors.New("the issuer is away")
			}
			o.held.Set(
				net.Mint(t, name, operatorLife, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(operatorLife) }),
				net.Bundles(),
			)
			return nil
		}
		if err := o.renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		first, err := o.held.Current()
		if err != nil {
			t.Fatal(err)
		}
		go o.keepRenewing(t.Context())
		away.Store(true)
		<-time.After(operatorLife - time.Minute)
		if held, err := o.held.Current(); err != nil || held.Generation != first.Generation {
			t.Errorf("a minute before its end: %v", err)
		}
		<-time.After(2 * time.Minute)
		if _, err := o.held.Current(); err == nil {
			t.Error("an identity that has ended is still held")
		}
		away.Store(false)
		<-time.After(renewAgain + time.Second)
		if held, err := o.held.Current(); err != nil || held.Generation == first.Generation {
			t.Errorf("%v after the issuer is back: %v", renewAgain+time.Second, err)
		}
	})
}
