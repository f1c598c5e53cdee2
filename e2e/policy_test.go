package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

// editTopology changes the running lab's policy, and returns a function that undoes the change.
func editTopology(t *testing.T, old, new string) (restore func()) {
	t.Helper()
	text, err := os.ReadFile(l.Topology())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), old) != 1 {
		t.Fatalf("topology has %q %d times, want once", old, strings.Count(string(text), old))
	}
	restore = keepTopology(t)
	writeTopology(t, []byte(strings.Replace(string(text), old, new, 1)))
	return restore
}

// keepTopology returns a function that restores the present policy. It is also called when the test ends early.
func keepTopology(t *testing.T) (restore func()) {
	t.Helper()
	text, err := os.ReadFile(l.Topology())
	if err != nil {
		t.Fatal(err)
	}
	restored := false
	restore = func() {
		if !restored {
			restored = true
			writeTopology(t, text)
		}
	}
	t.Cleanup(restore)
	return restore
}

func writeTopology(t *testing.T, text []byte) {
	t.Helper()
	path := l.Topology()
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestABadTopologyIsRefusedWholeAndTheOldOneStays(t *testing.T) {
	gateway := serving(t, generate)
	svid, _, err := l.Mint(t.Context(), l.topo.ID(named(t, topology.KindDashboard, "")), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	editTopology(t, string(generate)+": [", string(generate)+": [nobody-we-know, ")
	for _, w := range l.topo.Workloads { // each reads the file itself, in a cluster at different times
		if w.Kind != topology.KindOperator {
			awaitAuditWithin(
				t,
				slack(5*time.Second, 90*time.Second),
				w.Name,
				"bad_topology",
				func(e audit.Entry) bool { return e.At.After(before) && e.Reason == "bad_topology" },
			)
		}
	}
	if r := probe.Once(t.Context(), addr(t, gateway), probe.Caller{SVID: svid}, generate); r.Outcome != topology.Allowed {
		t.Fatalf("under a bad topology: %+v, want what the old one allows", r)
	}
}

func TestAnEditedPolicyIsADifferenceAndAFaultyOneIsToldWithTheWayBack(t *testing.T) {
	gateway, added := serving(t, generate), named(t, topology.KindSimulator, "git")
	svid, _, err := l.Mint(t.Context(), l.topo.ID(added), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	matrix := func(args ...string) (string, error) {
		return command(t.Context(), l.name, append([]string{"matrix", "--callee", gateway}, args...)...).run()
	}
	if out, err := matrix(); err != nil || strings.Contains(out, "was edited") {
		t.Fatalf("as it came: %v\n%s", err, out)
	}
	restore := editTopology(t, string(generate)+": [", string(generate)+": ["+added+", ")
	await(t, slack(5*time.Second, 90*time.Second), "the added caller to be let in", func() bool {
		return probe.Once(t.Context(), addr(t, gateway), probe.Caller{SVID: svid}, generate).Outcome == topology.Allowed
	})
	out, err := matrix("--caller", added)
	if want := fmt.Sprintf(
		"%s -> %s %s: Refused as it came, Allowed now",
		added,
		gateway,
		generate,
	); code(err) != lab.ExitAssertion ||
		!strings.Contains(out, want) {
		t.Errorf("an added caller: %v, want exit %d and %q\n%s", err, lab.ExitAssertion, want, out)
	}
	if out, err := matrix("--caller", added, "--against", "running"); err != nil || strings.Contains(out, "was edited") {
		t.Errorf("against what is running: %v\n%s", err, out)
	}
	restore()
	restore = editTopology(t, string(generate)+": [", string(generate)+": [nobody-we-know, ")
	back := "cp " + lab.Quoted(l.Shipped()) + " " + lab.Quoted(l.Topology())
	text, err := os.ReadFile(l.Topology())
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "nobody-we-know")
	line := fmt.Sprintf("line %d: ", strings.Count(before, "\n")+1)
	for _, args := range [][]string{{"status"}, {"matrix", "--caller", added, "--callee", gateway}} {
		out, err := command(t.Context(), l.name, args...).run()
		if code(err) != lab.ExitPartly || !strings.Contains(out, l.Topology()) || !strings.Contains(out, line) ||
			!strings.Contains(out, back) {
			t.Errorf("%v under a faulty policy: %v, want exit %d, %q and %q\n%s", args, err, lab.ExitPartly, line, back, out)
		}
	}
	if out, err := command(t.Context(), l.name, "open").run(); err != nil {
		t.Errorf("a link under a faulty policy: %v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", back).CombinedOutput(); err != nil {
		t.Fatalf("the way back: %v\n%s", err, out)
	}
	await(t, slack(5*time.Second, 90*time.Second), "the policy to be as it came", func() bool {
		_, err := matrix("--caller", added)
		return err == nil
	})
	if info, err := os.Stat(l.Shipped()); err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("%s: %v, %v", l.Shipped(), info, err)
	}
	restore()
}
