package conductor

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/lab/labtest"
	"example.org/security-training/manifests"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/topology"
)

// fileLab is a Controllable that has only the policy's files.
type fileLab struct {
	Controllable
	labtest.Policy
}

func (f fileLab) Topology() string { return f.Policy.Topology() }

func (f fileLab) Shipped() string { return f.Policy.Shipped() }

// editor makes a conductor of a lab that came up with text as its topology.
func editor(t *testing.T, text string) (*conductor, string) {
	t.Helper()
	p := labtest.NewPolicy(t, text)
	return &conductor{target: fileLab{Policy: p}, original: labtest.Parse(t, []byte(text))}, p.Topology()
}

func (c *conductor) must(t *testing.T, kind, caller, callee string, route topology.Route) {
	t.Helper()
	if err := c.edit(exercise.Order{Kind: kind, Caller: caller, Callee: callee, Route: route}); err != nil {
		t.Fatalf("%s %s at %s of %s: %v", kind, caller, route, callee, err)
	}
}

// TestStrikingOffGrantsNothingAndPuttingBackLeavesTheFileAsItWas does both for every caller of every route of the lab's
// own topology.
func TestStrikingOffGrantsNothingAndPuttingBackLeavesTheFileAsItWas(t *testing.T) {
	text := string(manifests.Topology())
	original := labtest.Parse(t, []byte(text))
	n := 0
	for _, callee := range original.Workloads {
		for _, route := range callee.Routes() {
			for _, caller := range original.Workloads {
				if !callee.Serves[route].Admits(caller) {
					continue
				}
				c, path := editor(t, text)
				c.must(t, exercise.OrderRevoke, caller.Name, callee.Name, route)
				next := labtest.Parse(t, []byte(labtest.Read(t, path)))
				for _, from := range original.Workloads {
					for _, to := range original.Workloads {
						for _, r := range to.Routes() {
							was, is := original.Decide(from.Name, to.Name, r), next.Decide(from.Name, to.Name, r)
							struck := from.Name == caller.Name && to.Name == callee.Name
							switch {
							case is == topology.Allowed && was != topology.Allowed:
								t.Errorf(
									"%s of %s without %s: %s is let in to %s of %s",
									route,
									callee.Name,
									caller.Name,
									from.Name,
									r,
									to.Name,
								)
							case struck && r == route && is == topology.Allowed:
								t.Errorf("%s is still let in to %s of %s", caller.Name, route, callee.Name)
							case !struck && was != is:
								t.Errorf(
									"%s of %s without %s: %s on %s of %s was %s, is %s",
									route,
									callee.Name,
									caller.Name,
									from.Name,
									r,
									to.Name,
									was,
									is,
								)
							}
						}
					}
				}
				off, err := c.removedCallers()
				if want := []exercise.Revoked{
					{Caller: caller.Name, Callee: callee.Name, Route: route},
				}; err != nil ||
					!slices.Equal(off, want) {
					t.Errorf("struck off are %v, %v; want %v", off, err, want)
				}
				c.must(t, exercise.OrderRestore, caller.Name, callee.Name, route)
				if diff := cmp.Diff(text, labtest.Read(t, path)); diff != "" {
					t.Errorf("%s of %s without %s and with it again: %s", route, callee.Name, caller.Name, diff)
				}
				n++
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d callers were tried", n)
	}
}

func TestTwoStruckOffComeBackOneByOne(t *testing.T) {
	const route topology.Route = "POST /v1/events"
	text := string(manifests.Topology())
	for _, again := range [][]string{{"git-collector", "lms"}, {"lms", "git-collector"}} {
		c, path := editor(t, text)
		for _, name := range []string{"git-collector", "lms"} {
			c.must(t, exercise.OrderRevoke, name, "risk-scorer", route)
		}
		c.before = nil // as after a restart of the supervisor
		c.must(t, exercise.OrderRestore, again[0], "risk-scorer", route)
		now := labtest.Parse(t, []byte(labtest.Read(t, path)))
		if now.Decide(again[0], "risk-scorer", route) != topology.Allowed ||
			now.Decide(again[1], "risk-scorer", route) == topology.Allowed {
			t.Errorf("one of two is back: %s", labtest.Read(t, path))
		}
		c.must(t, exercise.OrderRestore, again[1], "risk-scorer", route)
		if diff := cmp.Diff(text, labtest.Read(t, path)); diff != "" {
			t.Errorf("both are back: %s", diff)
		}
	}
}

// Edits by hand stay, whether they were made before a caller was removed or after.
func TestWhatWasEditedByHandStaysWhenACallerIsPutBack(t *testing.T) {
	const route topology.Route = "POST /v1/generate"
	text := string(manifests.Topology())
	const line = "    POST /v1/generate: [lms]\n"
	for _, x := range []struct{ name, before, between, caller, want string }{
		{
			"a caller more, before", "    POST /v1/generate: [risk-scorer, lms, sim-git]\n", "", "lms",
			"    POST /v1/generate: [risk-scorer, lms, sim-git]\n",
		},
		{
			"the caller that was added", "    POST /v1/generate: [lms, sim-git]\n", "", "sim-git",
			"    POST /v1/generate: [lms, sim-git]\n",
		},
		{
			"a caller more, between", line, "    POST /v1/generate: [sim-git]\n", "lms",
			"    POST /v1/generate: [lms, sim-git]\n",
		},
		{
			"a caller less, between", "    POST /v1/generate: [lms, sim-git]\n", "    POST /v1/generate: []\n", "lms",
			"    POST /v1/generate: [lms]\n",
		},
		{"put back by hand already", line, line, "lms", line},
		{
			"a kind", "    POST /v1/generate: [collector, lms] # all\n", "", "git-collector",
			"    POST /v1/generate: [collector, lms] # all\n",
		},
		{
			"a kind and one of it", "    POST /v1/generate: [collector, lms]\n",
			"    POST /v1/generate: [jira-collector, lms]\n", "git-collector",
			"    POST /v1/generate: [git-collector, jira-collector, lms]\n",
		},
		{
			"a list of lines", "    POST /v1/generate:\n      - sim-git # for a day\n      - lms\n", "", "lms",
			"    POST /v1/generate:\n      - sim-git # for a day\n      - lms\n",
		},
		{
			"a list of one line", "    POST /v1/generate: # the key\n    - lms\n", "", "lms",
			"    POST /v1/generate: [lms] # the key\n",
		},
		{
			"a list over lines", "    POST /v1/generate: [sim-git, # ]\n      lms]\n", "", "lms",
			"    POST /v1/generate: [sim-git, lms]\n",
		},
		{"a quoted route", "    \"POST /v1/generate\": [ 'lms' ]\n", "", "lms", "    \"POST /v1/generate\": [lms]\n"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c, path := editor(t, text)
			labtest.Write(t, path, strings.Replace(text, line, x.before, 1))
			c.must(t, exercise.OrderRevoke, x.caller, "llm-gateway", route)
			now := labtest.Parse(t, []byte(labtest.Read(t, path)))
			if got := now.Decide(x.caller, "llm-gateway", route); got == topology.Allowed {
				t.Errorf("%s is still let in", x.caller)
			}
			if off, err := c.removedCallers(); err != nil || len(off) != 1 {
				t.Errorf("struck off are %v, %v", off, err)
			}
			if x.between != "" {
				labtest.Write(t, path, strings.Replace(text, line, x.between, 1))
			}
			c.must(t, exercise.OrderRestore, x.caller, "llm-gateway", route)
			if diff := cmp.Diff(strings.Replace(text, line, x.want, 1), labtest.Read(t, path)); diff != "" {
				t.Error(diff)
			}
		})
	}
	c, _ := editor(t, text)
	for _, x := range []exercise.Order{
		{Kind: exercise.OrderRestore, Caller: "sim-git", Callee: "llm-gateway", Route: route},
		{Kind: exercise.OrderRevoke, Caller: "sim-git", Callee: "llm-gateway", Route: route},
		{Kind: exercise.OrderRevoke, Caller: "lms", Callee: "llm-gateway", Route: "GET /nowhere"},
		{Kind: exercise.OrderRevoke, Caller: "no-one", Callee: "llm-gateway", Route: route},
	} {
		if err := c.edit(x); err == nil {
			t.Errorf("%s %s at %s is done", x.Kind, x.Caller, x.Route)
		}
	}
}
