package topology_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"

	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

const small = `trustDomain: example.org
workloads:
- {name: boss, kind: operator}
- name: front
  kind: dashboard
  binary: front
  port: 7001
  health: 7002
  database: [pages]
  serves:
    POST /x: [boss]
- name: back
  kind: scorer
  binary: back
  port: 7003
  health: 7004
  serves:
    POST /y: [dashboard]
    GET /z/{id}: [boss, front]
    GET /w: [leaf]
- name: leaf-one
  kind: leaf
  binary: leaf
  port: 7005
  health: 7006
  serves:
    GET /l: [boss]
- name: store
  kind: database
  binary: store
  port: 7007
  health: 7008
`

func TestDecideIsAllowedForbiddenOrRefused(t *testing.T) {
	topo, err := topology.FromYAML([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		caller, callee string
		route          topology.Route
		want           topology.Outcome
	}{
		{"boss", "front", "POST /x", topology.Allowed},         // by name
		{"front", "back", "POST /y", topology.Allowed},         // by kind
		{"leaf-one", "back", "GET /w", topology.Allowed},       // by kind, whose name is another
		{"boss", "back", "GET /z/{id}", topology.Allowed},      // one of two
		{"boss", "back", "POST /y", topology.Forbidden},        // admitted by another route
		{"leaf-one", "back", "POST /y", topology.Forbidden},    // likewise
		{"boss", "back", "GET /nowhere", topology.Forbidden},   // no such route
		{"boss", "back", "POST /z/{id}", topology.Forbidden},   // another method
		{"back", "front", "POST /x", topology.Refused},         // on no route at all
		{"front", "front", "POST /x", topology.Refused},        // not even oneself
		{"front", "boss", "POST /x", topology.Refused},         // who serves nothing
		{"nobody", "back", "POST /y", topology.Refused},        // not listed
		{"dashboard", "back", "POST /y", topology.Refused},     // a kind is not a name
		{"leaf", "back", "GET /w", topology.Refused},           // nor is it here
		{"front", "nobody", "POST /y", topology.Refused},       // no such callee
		{"", "back", "POST /y", topology.Refused},              // no name
		{"FRONT", "back", "POST /y", topology.Refused},         // names are as they stand
		{"front", "store", "POST /y", topology.Forbidden},      // the database admits owners, and has no routes
		{"leaf-one", "store", "POST /y", topology.Refused},     // and no one else
		{"boss", "leaf-one", "GET /l", topology.Allowed},       // a name with a dash
		{"leaf-one", "leaf-one", "GET /l", topology.Refused},   // not even oneself
		{"back", "leaf-one", "GET /l", topology.Refused},       // no way back
		{"boss", "back", "GET /z/{other}", topology.Forbidden}, // a pattern is as it stands
		{"front", "back", " GET /z/{id}", topology.Forbidden},  // spaces count
		{"front", "back", "GET /z/{id}", topology.Allowed},     // by name
	} {
		if got := topo.Decide(c.caller, c.callee, c.route); got != c.want {
			t.Errorf("%q -> %q %q is %s, want %s", c.caller, c.callee, c.route, got, c.want)
		}
	}
}

func TestAnEmptyListIsAPolicyAndAdmitsNoOne(t *testing.T) {
	topo, err := topology.FromYAML(
		[]byte(strings.NewReplacer("GET /l: [boss]", "GET /l: []", "GET /w: [leaf]", "GET /w: []").Replace(small)),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range topo.Workloads {
		if topo.Admits(w.Name, "leaf-one") {
			t.Errorf("%s is admitted where every list is empty", w.Name)
		}
		if got := topo.Decide(w.Name, "leaf-one", "GET /l"); got != topology.Refused {
			t.Errorf("%s on a route that admits no one is %s, want Refused", w.Name, got)
		}
		if got := topo.Decide(w.Name, "back", "GET /w"); got == topology.Allowed {
			t.Errorf("%s on an empty list among others is %s", w.Name, got)
		}
	}
}

func TestWholeIDsAreComparedAndNothingLess(t *testing.T) {
	topo, err := topology.FromYAML([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{
		"spiffe://example.org/front":     true,
		"spiffe://example.org/x/front":   false,
		"spiffe://example.org/front/x":   false,
		"spiffe://example.org/Front":     false,
		"spiffe://example.com/front":     false,
		"spiffe://a.example.org/front":   false,
		"spiffe://example.org":           false,
		"spiffe://example.org/dashboard": false,
	} {
		if _, ok := topo.ByID(spiffeid.RequireFromString(id)); ok != want {
			t.Errorf("%s is a workload: %v, want %v", id, ok, want)
		}
	}
	for _, w := range topo.Workloads {
		if got, ok := topo.ByID(topo.ID(w.Name)); !ok || got.Name != w.Name {
			t.Errorf("%s does not find its own way back: %v", w.Name, got)
		}
	}
}

func TestAllFaultsAreToldAtOnceWithTheirLines(t *testing.T) {
	const text = `trustDomain: NOT A DOMAIN
workloads:
- {name: boss, kind: operator, port: 7009}
- name: Front
  kind: dashboard
  binary: front
  port: 7001
  health: 7001
  serves:
    POST /x: [boss]
- name: back
  kind: scorer
  binary: back
  port: 80
  health: 7004
  database: ["pages; drop table"]
  serves:
    POST /y: ["*"]
    GET /z:
    GET /q: [nobody]
    GET /r: [back]
    GET /s: [boss, boss]
    FETCH /t: [boss]
    GET t: [boss]
    GET /{a}/{a}: [boss]
    GET /files/{rest...}: [boss]
- {name: back, kind: boss, binary: b, port: 7005, health: 7006, serves: {"GET /a": [boss]}}
- {name: idle, kind: gateway, binary: b, port: 7007, health: 7008}
- {name: bare, serves: {"GET /b": [boss]}}
`
	_, err := topology.FromYAML([]byte(text))
	if err == nil {
		t.Fatal("a topology with a dozen faults is taken")
	}
	for _, want := range []string{
		"line 1: trustDomain",
		"line 3: workload boss is an operator",
		`line 4: name "Front"`,
		"line 4: workload Front: port 7001 is already of Front",
		"line 11: workload back: port 80 is outside",
		"line 11: workload back: schema",
		"line 18: workload back: route \"POST /y\": a wildcard",
		"line 19: workload back: route \"GET /z\" lists no caller",
		"line 20: workload back: route \"GET /q\": caller \"nobody\"",
		"line 21: workload back: route \"GET /r\" lists the workload itself",
		"line 22: workload back: route \"GET /s\" lists caller \"boss\" twice",
		"line 23: workload back: route \"FETCH /t\"",
		"line 24: workload back: route \"GET t\"",
		"line 25: workload back: route \"GET /{a}/{a}\"",
		"line 26: workload back: route \"GET /files/{rest...}\"",
		"workload back stands twice",
		`kind "boss" of back is also a workload's name`,
		"line 28: workload idle serves nothing",
		"line 29: workload bare has no kind",
		"line 29: workload bare lacks its binary",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not told: %s", want)
		}
	}
	if t.Failed() {
		t.Logf("told:\n%v", err)
	}
}

func TestUnknownKeysAndBadYAMLAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"an unknown key":          small + "allowAll: true\n",
		"an unknown row key":      strings.Replace(small, "kind: scorer", "kind: scorer\n  public: true", 1),
		"a key that stands twice": strings.Replace(small, "kind: scorer", "kind: scorer\n  kind: gateway", 1),
		"not YAML":                "workloads: [",
		"nothing":                 "",
		"no workloads":            "trustDomain: example.org\n",
		"two routes that collide": strings.Replace(small, "GET /w: [leaf]", "GET /w: [leaf]\n    GET /z/{other}: [boss]", 1),
	} {
		if _, err := topology.FromYAML([]byte(text)); err == nil {
			t.Errorf("%s is taken", name)
		} else if !strings.HasPrefix(err.Error(), "read topology: ") {
			t.Errorf("%s: %v does not say the act", name, err)
		}
	}
	if _, err := topology.FromFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestOnlyCallersMayChangeWhileProcessesRun(t *testing.T) {
	old, err := topology.FromYAML([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, from, to, says string }{
		{"a caller", "POST /y: [dashboard]", "POST /y: [boss]", ""},
		{"the only caller", "POST /y: [dashboard]", "POST /y: []", ""},
		{"the order of callers", "[boss, front]", "[front, boss]", ""},
		{"the trust domain", "trustDomain: example.org", "trustDomain: example.com", "trustDomain"},
		{"a name", "name: leaf-one", "name: leaf-two", "leaf-one is gone"},
		{"a kind", "kind: leaf\n", "kind: leaf\n  source: git\n", "source"},
		{"a port", "port: 7003", "port: 7103", "port"},
		{"a health port", "health: 7004", "health: 7104", "port"},
		{"a web port", "port: 7001", "web: 7101\n  port: 7001", "port"},
		{"a binary", "binary: back", "binary: front", "binary"},
		{"a service", "binary: back", "binary: back\n  service: x", "service"},
		{"a new route", "GET /w: [leaf]", "GET /w: [leaf]\n    GET /v: [leaf]", "routes"},
		{"a route less", "    GET /w: [leaf]\n", "", "routes"},
		{"a new workload", "- name: store", "- {name: extra, kind: operator}\n- name: store", "extra is new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(small, c.from, c.to, 1)
			if text == small {
				t.Fatal("the edit changes nothing")
			}
			next, err := topology.FromYAML([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			err = old.SameShape(next)
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want a word of %q", err, c.says)
			}
		})
	}
}

func TestExamplesOfRoutesReachTheirRoute(t *testing.T) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range topo.Workloads {
		for _, r := range w.Routes() {
			if strings.ContainsAny(r.Example(), "{} ") || r.Method() == "" || !strings.HasPrefix(r.Path(), "/") {
				t.Errorf("%s: %q has the example %q", w.Name, r, r.Example())
			}
			if got := topo.Serving(r); len(got) == 0 {
				t.Errorf("no workload serves %s", r)
			}
		}
		if w.Host() == "" {
			t.Errorf("%s has no host", w.Name)
		}
	}
}

// TestNoTextMakesTheParserPanic also holds that what is taken can be decided on.
func TestNoTextMakesTheParserPanic(t *testing.T) {
	lines := strings.SplitAfter(small, "\n")
	rapid.Check(t, func(t *rapid.T) {
		keep := rapid.SliceOfN(rapid.SampledFrom(lines), 1, 40).Draw(t, "lines")
		text := strings.Join(keep, "")
		if rapid.Bool().Draw(t, "whole") {
			at := rapid.IntRange(0, len(small)-1).Draw(t, "at")
			text = small[:at] + rapid.SampledFrom([]string{"*", "{", "}", ":", "\n", " ", "[", "é", "0"}).Draw(t, "noise") +
				small[at:]
		}
		topo, err := topology.FromYAML([]byte(text))
		if err != nil {
			return
		}
		for _, a := range topo.Workloads {
			for _, b := range topo.Workloads {
				for _, r := range b.Routes() {
					if topo.Decide(a.Name, b.Name, r) == topology.Allowed && !b.Serves[r].Admits(a) {
						t.Fatalf("%s -> %s %s is Allowed and not listed", a.Name, b.Name, r)
					}
				}
			}
		}
	})
}
