package topology_test

import (
	"fmt"
	"strings"
	"testing"

	"example.org/security-training/services/topology"
)

// What is allowed up to a bound is allowed at it, and not behind it.
func TestNamesAndPortsAreAllowedUpToTheirBounds(t *testing.T) {
	for _, c := range []struct {
		name         string
		port, health int
		fault        string
	}{
		{strings.Repeat("a", 40), 1024, 65535, ""},
		{strings.Repeat("a", 41), 1024, 65535, "40 at most"},
		{"a", 1023, 2000, "port 1023 is outside"},
		{"a", 2000, 65536, "port 65536 is outside"},
	} {
		_, err := topology.FromYAML([]byte(fmt.Sprintf(`trustDomain: example.org
workloads:
- {name: boss, kind: operator}
- {name: %s, kind: x, binary: x, port: %d, health: %d, serves: {"GET /x": [boss]}}
`, c.name, c.port, c.health)))
		if c.fault == "" && err != nil || c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("name of %d letters, ports %d and %d: %v, want %q", len(c.name), c.port, c.health, err, c.fault)
		}
	}
}
