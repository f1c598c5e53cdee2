package meshtest

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"example.org/security-training/services/mesh"
	"example.org/security-training/services/topology"
)

var pathValue = regexp.MustCompile(`\{[^}]*\}`)

// RefusesWhatIsNoText calls every route of name, as an allowed caller, with paths, queries and bodies that a text
// column cannot hold. Each must be answered as the caller's fault: 400, never 500.
func (n *Net) RefusesWhatIsNoText(t *testing.T, name string, bodies map[string][]string) {
	t.Helper()
	w, ok := n.Topology.Workload(name)
	if !ok {
		t.Fatalf("no workload %q", name)
	}
	callers := map[string]*mesh.Node{}
	try := func(method, path, contentType, body, caller string) int {
		t.Helper()
		node := callers[caller]
		if node == nil {
			node = n.Join(t, caller)
			callers[caller] = node
		}
		resp, err := node.Peer(name).Do(t.Context(), method, path, contentType, []byte(body))
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for _, route := range w.Routes() {
		caller := ""
		for _, from := range n.Topology.Workloads {
			if n.Topology.Decide(from.Name, name, route) == topology.Allowed {
				caller = from.Name
			}
		}
		if caller == "" {
			t.Errorf("%s: no workload may call it", route)
			continue
		}
		well := pathValue.ReplaceAllString(route.Path(), "1")
		for _, bad := range []string{"a%00b", "%ff", "a%ed%a0%80", "%c0%af"} {
			paths := []string{well + "?person=" + bad, well + "?" + bad + "=1"}
			if strings.Contains(route.Path(), "{") {
				paths = append(paths, pathValue.ReplaceAllString(route.Path(), bad))
			}
			for _, path := range paths {
				if code := try(route.Method(), path, "", "", caller); code != http.StatusBadRequest {
					t.Errorf("%s %s: %d, want 400", route.Method(), path, code)
				}
			}
		}
		if code := try(route.Method(), well+"?person=%zz", "", "", caller); code != http.StatusBadRequest {
			t.Errorf("%s with a query that cannot be read: %d, want 400", route, code)
		}
		if route.Method() == http.MethodGet {
			continue
		}
		for _, contentType := range []string{"application/json", "application/x-ndjson"} {
			none := []string{`{"name":"a\u0000b"}`, "{\"name\":\"\xff\"}", `["\\\u0000"]`}
			for _, body := range append(none, bodies[string(route)]...) {
				code := try(route.Method(), well, contentType, body, caller)
				if code < 400 && len(bodies[string(route)]) == 0 || code >= 500 {
					t.Errorf("%s with the body %q as %s: %d, want that it is refused", route, body, contentType, code)
				}
			}
		}
	}
}
