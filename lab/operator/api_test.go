package operator

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"example.org/security-training/manifests"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/topology"
)

// While events keep arriving, AwaitScored waits for those that were acknowledged before it was called, and for no
// others.
func TestEverythingSoFarIsScoredWhileMoreArrives(t *testing.T) {
	net := meshtest.Start(t, manifests.Topology())
	var looks atomic.Uint64
	const behind, first = 7, 100
	for _, row := range net.Topology.OfKind(topology.KindCollector) {
		collector := net.Join(t, row.Name)
		for _, route := range row.Routes() {
			collector.Handle(route, func(w http.ResponseWriter, _ *http.Request) error {
				seq := first + looks.Add(1)
				return httpjson.Write(
					w,
					http.StatusOK,
					collectorapi.Spool{Counts: collectorapi.Counts{Seq: seq}, Watermark: seq - behind},
				)
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
