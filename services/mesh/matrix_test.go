package mesh_test

import (
	"testing"
	"time"

	"example.org/security-training/manifests"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

func TestEveryCallerOnEveryRouteGetsWhatTopologySays(t *testing.T) {
	net := meshtest.Start(t, manifests.Topology())
	for _, w := range net.Topology.Workloads {
		if len(w.Serves) > 0 {
			node := net.Join(t, w.Name)
			if w.Web != 0 {
				node.HandlePeople(meshtest.NoPeople)
			}
			net.ServeStubs(t, node)
		}
	}
	cells := 0
	for _, caller := range net.Topology.Workloads {
		who := probe.Caller{SVID: net.Mint(t, caller.Name, time.Hour, nil)}
		for _, callee := range net.Topology.Workloads {
			if len(callee.Serves) == 0 {
				continue
			}
			kept, err := probe.Open(t.Context(), net.Addr(callee.Name), who)
			if err != nil {
				t.Fatal(err)
			}
			for _, route := range callee.Routes() {
				want := net.Topology.Decide(caller.Name, callee.Name, route)
				got := probe.Once(t.Context(), net.Addr(callee.Name), who, route)
				if got.Outcome != want {
					t.Errorf("%s -> %s %s on a new connection: %+v, want %s", caller.Name, callee.Name, route, got, want)
				}
				if want != topology.Refused {
					if got := kept.Try(t.Context(), route); got.Outcome != want {
						t.Errorf("%s -> %s %s on a kept connection: %+v, want %s", caller.Name, callee.Name, route, got, want)
					}
				}
				cells++
			}
			kept.Close()
		}
	}
	t.Logf("%d cells", cells)
}
