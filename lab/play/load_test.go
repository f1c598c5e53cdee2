package play

import (
	"testing"

	"example.org/security-training/synth/scenario"
)

func TestAPlayIsOfItsOwnScenarioAlone(t *testing.T) {
	short, long := &scenario.Scenario{Name: "leaked-secret"}, &scenario.Scenario{Name: "leaked-secret-two"}
	const millis = 1_790_000_000_000
	for _, c := range []struct {
		scenario *scenario.Scenario
		id       string
		want     bool
	}{
		{short, RunOf(short, millis), true}, {long, RunOf(long, millis), true},
		{short, RunOf(long, millis), false}, {long, RunOf(short, millis), false},
		{
			short, "leaked-secret", false,
		}, {short, "leaked-secret-", false}, {short, "leaked-secret-+1", false}, {short, "drill-1", false},
	} {
		if got := IsRunOf(c.scenario, c.id); got != c.want {
			t.Errorf("%s is a play of %s: %v, want %v", c.id, c.scenario.Name, got, c.want)
		}
	}
}
