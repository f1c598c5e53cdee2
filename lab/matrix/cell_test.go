package matrix

import (
	"testing"

	"example.org/security-training/services/topology"
)

// A cell is as expected only if both connections are, the policy is not edited, and a refusal has a reason.
func TestACellIsAsExpectedOnlyAsAWhole(t *testing.T) {
	const allowed, forbidden, refused = topology.Allowed, topology.Forbidden, topology.Refused
	for _, c := range []struct {
		name string
		cell Cell
		want bool
	}{
		{"allowed", Cell{Expected: allowed, Measured: allowed, Kept: allowed}, true},
		{"forbidden", Cell{Expected: forbidden, Measured: forbidden, Kept: forbidden}, true},
		{"refused, with its reason", Cell{Expected: refused, Measured: refused, Kept: refused, Reason: "expired"}, true},
		{"refused, without a reason", Cell{Expected: refused, Measured: refused, Kept: refused}, false},
		{"allowed on a new connection", Cell{Expected: forbidden, Measured: allowed, Kept: forbidden}, false},
		{"allowed on a kept connection", Cell{Expected: forbidden, Measured: forbidden, Kept: allowed}, false},
		{"edited", Cell{Expected: allowed, Measured: allowed, Kept: allowed, Running: refused}, false},
	} {
		if got := c.cell.asExpected(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
