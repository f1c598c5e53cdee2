package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.org/security-training/manifests"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/topology"
)

// At a pace at which something is always under way, what was acknowledged before is waited for, and nothing else.
func TestEverythingSoFarIsScoredWhileMoreArrives(t *testing.T) {
	net := meshtest.Start(t, manifests.Topology())
	var looks atomic.Uint64
	const behind, first = 7, 100
	for _, row := range net.Topology.OfKind(topology.KindCollector) {
		collector := net.Join(t, row.Name)
		for _, route := range row.Routes() {
			collector.Handle(string(route), func(w http.ResponseWriter, _ *http.Request) error {
				seq := first + looks.Add(1)
				return httpjson.Write(w, http.StatusOK, Spool{Seq: seq, Watermark: seq - behind})
			})
		}
		net.Serve(t, collector)
	}
	o := &Operator{Node: net.Join(t, net.Topology.OfKind(topology.KindOperator)[0].Name)}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := o.AwaitScored(ctx); err != nil {
		t.Fatal(err)
	}
	if n := looks.Load(); n <= behind {
		t.Errorf("it did not wait: %d looks at collectors that are %d behind", n, behind)
	}
}

// The proof of a lab goes on until it succeeds, and says what failed last when its time is over.
func TestAProofIsTriedUntilItSucceedsOrItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		tries := 0
		if err := again(ctx, func() error {
			if tries++; tries < 5 {
				return errors.New("answered 503")
			}
			return nil
		}); err != nil || tries != 5 {
			t.Errorf("after %d tries: %v", tries, err)
		}
		tries = 0
		if err := again(
			ctx,
			func() error { tries++; return errors.New("answered 503") },
		); err == nil || err.Error() != "answered 503" ||
			tries < 100 {
			t.Errorf("after %d tries: %v", tries, err)
		}
	})
}

// A learning system whose scorer is still busy is asked again, and what is refused for good is not.
func TestWhatIsAwayIsAskedAgainAndWhatIsRefusedIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		away := func(until int) func() error {
			tries = 0
			return func() error {
				if tries++; tries < until {
					return fmt.Errorf("ask: %w", httpjson.Errorf(http.StatusServiceUnavailable, "scorer_away", "not yet"))
				}
				return nil
			}
		}
		if err := whileAway(t.Context(), away(100)); err != nil || tries != 100 {
			t.Errorf("after %d tries: %v", tries, err)
		}
		if err := whileAway(t.Context(), away(1e9)); err == nil || tries < 500 {
			t.Errorf("after %d tries: %v", tries, err)
		}
		tries = 0
		if err := whileAway(t.Context(), func() error {
			tries++
			return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_records", "no")
		}); err == nil || tries != 1 {
			t.Errorf("refused for good, after %d tries: %v", tries, err)
		}
	})
}
