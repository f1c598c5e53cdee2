// Package topology knows who exists, where they listen, and who may call what.
//
// Everything comes from one file, topology.yaml in the chart; its head describes each key.
package topology

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"sigs.k8s.io/yaml"
)

// Topology is a validated topology file.
type Topology struct {
	TrustDomain string     `json:"trustDomain"`
	Workloads   []Workload `json:"workloads"`

	byName map[string]*Workload
}

// Workload is one row of the file.
type Workload struct {
	Name     string            `json:"name"`
	Kind     string            `json:"kind"`
	Binary   string            `json:"binary,omitempty"`
	Service  string            `json:"service,omitempty"`
	Source   string            `json:"source,omitempty"`
	Port     int               `json:"port,omitempty"`
	Health   int               `json:"health,omitempty"`
	Web      int               `json:"web,omitempty"`
	WebTLS   int               `json:"webTLS,omitempty"`
	Database []string          `json:"database,omitempty"`
	Serves   map[Route]Callers `json:"serves,omitempty"`
}

// Route is a pattern of net/http's ServeMux with a method: "GET /v1/people/{person}/risk".
type Route string

// Callers are names and kinds of workloads. The empty list admits no one.
type Callers []string

// Outcome is the decision on a call.
type Outcome string

// The three outcomes. Forbidden: the connection is admitted and stays open, the request is answered 403. Refused: no
// session is established.
const (
	Allowed   Outcome = "Allowed"
	Forbidden Outcome = "Forbidden"
	Refused   Outcome = "Refused"
)

// The kinds that the code distinguishes.
const (
	KindOperator  = "operator"
	KindCollector = "collector"
	KindSimulator = "simulator"
	KindScorer    = "scorer"
	KindDashboard = "dashboard"
	KindGateway   = "gateway"
	KindModel     = "model"
	KindDatabase  = "database"
)

// FromFile reads and validates the file at path.
func FromFile(path string) (*Topology, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read topology: %w", err)
	}
	return FromYAML(b)
}

// FromYAML parses and validates text; the error names every fault at once.
func FromYAML(text []byte) (*Topology, error) {
	var t Topology
	if err := yaml.UnmarshalStrict(text, &t); err != nil {
		if m := unknownKey.FindStringSubmatch(err.Error()); m != nil {
			if n := lineOf(text, m[1]+":"); n > 0 {
				return nil, fmt.Errorf("read topology: line %d: %w", n, err)
			}
		}
		return nil, fmt.Errorf("read topology: %w", err)
	}
	if err := t.validate(text); err != nil {
		return nil, fmt.Errorf("read topology: %w", err)
	}
	t.byName = make(map[string]*Workload, len(t.Workloads))
	for i := range t.Workloads {
		t.byName[t.Workloads[i].Name] = &t.Workloads[i]
	}
	return &t, nil
}

// Workload finds a row by name.
func (t *Topology) Workload(name string) (Workload, bool) {
	w, ok := t.byName[name]
	if !ok {
		return Workload{}, false
	}
	return *w, true
}

// OfKind lists the rows of a kind, in file order.
func (t *Topology) OfKind(kind string) []Workload {
	var out []Workload
	for _, w := range t.Workloads {
		if w.Kind == kind {
			out = append(out, w)
		}
	}
	return out
}

// Serving lists the rows that serve route, in file order.
func (t *Topology) Serving(route Route) []Workload {
	var out []Workload
	for _, w := range t.Workloads {
		if _, ok := w.Serves[route]; ok {
			out = append(out, w)
		}
	}
	return out
}

// Domain is the trust domain.
func (t *Topology) Domain() spiffeid.TrustDomain {
	return spiffeid.RequireTrustDomainFromString(t.TrustDomain) // validated on load
}

// ID is the SPIFFE ID of the workload called name: its whole path is the name.
func (t *Topology) ID(name string) spiffeid.ID {
	return spiffeid.RequireFromPath(t.Domain(), "/"+name)
}

// ByID finds the row whose whole SPIFFE ID is id.
func (t *Topology) ByID(id spiffeid.ID) (Workload, bool) {
	if id.TrustDomain().Name() != t.TrustDomain {
		return Workload{}, false
	}
	return t.Workload(strings.TrimPrefix(id.Path(), "/"))
}

// Admits says whether the list names w or its kind.
func (c Callers) Admits(w Workload) bool {
	return slices.Contains(c, w.Name) || slices.Contains(c, w.Kind)
}

// Decide says whether caller may call a route of callee. Names that are not listed are Refused.
func (t *Topology) Decide(caller, callee string, route Route) Outcome {
	from, ok := t.byName[caller]
	if !ok || !t.Admits(caller, callee) {
		return Refused
	}
	if t.byName[callee].Serves[route].Admits(*from) {
		return Allowed
	}
	return Forbidden
}

// Admits says whether callee accepts a connection from caller: at least one of its routes lists it.
func (t *Topology) Admits(caller, callee string) bool {
	from, ok := t.byName[caller]
	if !ok {
		return false
	}
	to, ok := t.byName[callee]
	if !ok {
		return false
	}
	for _, callers := range to.Serves {
		if callers.Admits(*from) {
			return true
		}
	}
	return to.Kind == KindDatabase && len(from.Database) > 0
}

// Routes lists the routes of w, sorted.
func (w Workload) Routes() []Route {
	out := make([]Route, 0, len(w.Serves))
	for r := range w.Serves {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

// Host is the name of w in a cluster.
func (w Workload) Host() string {
	if w.Service != "" {
		return w.Service
	}
	return w.Name + "-svc"
}

// Method is the HTTP method.
func (r Route) Method() string { m, _, _ := strings.Cut(string(r), " "); return m }

// Path is the pattern after the method.
func (r Route) Path() string { _, p, _ := strings.Cut(string(r), " "); return p }

// For is the path with its placeholders replaced by values, in order, each escaped.
func (r Route) For(values ...string) string {
	n := 0
	return placeholder.ReplaceAllStringFunc(r.Path(), func(string) string {
		n++
		return url.PathEscape(values[n-1])
	})
}

// Example is the path with every placeholder replaced by "probe".
func (r Route) Example() string { return placeholder.ReplaceAllString(r.Path(), "probe") }

// SameShape says why other cannot replace t while processes run. Names, kinds, ports and routes must stay; callers may
// change.
func (t *Topology) SameShape(other *Topology) error {
	var faults []error
	if t.TrustDomain != other.TrustDomain {
		faults = append(faults, fmt.Errorf("trustDomain changes from %s to %s", t.TrustDomain, other.TrustDomain))
	}
	for _, w := range t.Workloads {
		o, ok := other.Workload(w.Name)
		switch {
		case !ok:
			faults = append(faults, fmt.Errorf("workload %s is gone", w.Name))
		case o.Kind != w.Kind || o.Source != w.Source || o.Binary != w.Binary || o.Service != w.Service:
			faults = append(faults, fmt.Errorf("workload %s changes its kind, source, binary or service", w.Name))
		case o.Port != w.Port || o.Health != w.Health || o.Web != w.Web || o.WebTLS != w.WebTLS:
			faults = append(faults, fmt.Errorf("workload %s changes a port", w.Name))
		case !slices.Equal(o.Routes(), w.Routes()):
			faults = append(faults, fmt.Errorf("workload %s changes its routes from %v to %v", w.Name, w.Routes(), o.Routes()))
		}
	}
	for _, w := range other.Workloads {
		if _, ok := t.Workload(w.Name); !ok {
			faults = append(faults, fmt.Errorf("workload %s is new", w.Name))
		}
	}
	return errors.Join(faults...)
}
