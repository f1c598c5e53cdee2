// Package topology knows who exists, where they listen, and who may call what.
//
// Everything comes from one file, topology.yaml in the chart; its head describes each key.
package topology

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
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

// Workload is one row.
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

// Callers are names and kinds. The empty list admits no one.
type Callers []string

// Outcome is what a call comes to.
type Outcome string

// The three outcomes. Forbidden: the connection is admitted and stays, the request is answered 403. Refused: there is no session.
const (
	Allowed   Outcome = "Allowed"
	Forbidden Outcome = "Forbidden"
	Refused   Outcome = "Refused"
)

// The kinds that code needs to tell apart.
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

// Decide says what a call from caller to a route of callee comes to. Names that are not listed are Refused.
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

// Host is the name that a cluster knows w by.
func (w Workload) Host() string {
	if w.Service != "" {
		return w.Service
	}
	return w.Name + "-svc"
}

// Method and path of a route.
func (r Route) Method() string { m, _, _ := strings.Cut(string(r), " "); return m }

// Path is the pattern after the method.
func (r Route) Path() string { _, p, _ := strings.Cut(string(r), " "); return p }

// For is the path with its placeholders filled by values, in their order, each escaped.
func (r Route) For(values ...string) string {
	n := 0
	return placeholder.ReplaceAllStringFunc(r.Path(), func(string) string {
		n++
		return url.PathEscape(values[n-1])
	})
}

// Example is the path with every placeholder filled by "probe".
func (r Route) Example() string { return placeholder.ReplaceAllString(r.Path(), "probe") }

// SameShape says why other cannot replace t while processes run: names, kinds, ports and routes must stay; callers may change.
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

var (
	namePattern   = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	schemaPattern = regexp.MustCompile(`^[a-z][a-z_]*$`)
	unknownKey    = regexp.MustCompile(`unknown field "([^"]+)"`)
	placeholder   = regexp.MustCompile(`\{[^}]*\}`)
	methods       = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
)

// validate joins every fault of t, with the line of text where it stands if that can be told.
func (t *Topology) validate(text []byte) error {
	var faults []error
	add := func(needle, format string, args ...any) {
		msg := fmt.Sprintf(format, args...)
		if n := lineOf(text, needle); n > 0 {
			msg = fmt.Sprintf("line %d: %s", n, msg)
		}
		faults = append(faults, errors.New(msg))
	}
	if _, err := spiffeid.TrustDomainFromString(t.TrustDomain); err != nil || strings.Contains(t.TrustDomain, "/") {
		add("trustDomain:", "trustDomain %q is not a trust domain's name", t.TrustDomain)
	}
	if len(t.Workloads) == 0 {
		faults = append(faults, errors.New("workloads: none"))
	}
	known := map[string]string{} // name or kind → what it is
	for _, w := range t.Workloads {
		if _, twice := known[w.Name]; twice {
			add("name: "+w.Name, "workload %s stands twice", w.Name)
		}
		known[w.Name] = "name"
	}
	for _, w := range t.Workloads {
		if known[w.Kind] == "name" {
			add("name: "+w.Name, "kind %q of %s is also a workload's name", w.Kind, w.Name)
		}
	}
	for _, w := range t.Workloads {
		if w.Kind != "" {
			known[w.Kind] = "kind"
		}
	}
	ports := map[int]string{}
	for _, w := range t.Workloads {
		at := "name: " + w.Name
		if !namePattern.MatchString(w.Name) || len(w.Name) > 40 {
			add(at, "name %q: want lower-case letters, digits and single dashes, 40 at most", w.Name)
		}
		if w.Kind == "" {
			add(at, "workload %s has no kind", w.Name)
		}
		if w.Kind == KindOperator && (w.Binary != "" || w.Port != 0 || len(w.Serves) > 0) {
			add(at, "workload %s is an operator: it runs nothing and serves nothing", w.Name)
		}
		if w.Kind != KindOperator && (w.Binary == "" || w.Port == 0 || w.Health == 0) {
			add(at, "workload %s lacks its binary, port or health port", w.Name)
		}
		if w.Kind != KindOperator && w.Kind != KindDatabase && len(w.Serves) == 0 {
			add(at, "workload %s serves nothing", w.Name)
		}
		for _, p := range []int{w.Port, w.Health, w.Web, w.WebTLS} {
			if p == 0 {
				continue
			}
			if p < 1024 || p > 65535 {
				add(at, "workload %s: port %d is outside 1024 to 65535", w.Name, p)
			}
			if other, taken := ports[p]; taken {
				add(at, "workload %s: port %d is already of %s", w.Name, p, other)
			}
			ports[p] = w.Name
		}
		for _, s := range w.Database {
			if !schemaPattern.MatchString(s) {
				add(at, "workload %s: schema %q: want lower-case letters", w.Name, s)
			}
		}
		mux := http.NewServeMux()
		for _, route := range w.Routes() {
			method, path, ok := strings.Cut(string(route), " ")
			if !ok || !slices.Contains(methods, method) || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "* ") || strings.Contains(path, "...") {
				add(string(route), "workload %s: route %q: want a method and a path without wildcards", w.Name, route)
			} else if err := register(mux, string(route)); err != nil {
				add(string(route), "workload %s: route %q: %v", w.Name, route, err)
			}
			callers := w.Serves[route]
			if callers == nil {
				add(string(route), "workload %s: route %q lists no caller: want [] where it is to admit no one", w.Name, route)
			}
			for i, c := range callers {
				switch {
				case strings.Contains(c, "*"):
					add(string(route), "workload %s: route %q: a wildcard caller is not a policy", w.Name, route)
				case known[c] == "":
					add(string(route), "workload %s: route %q: caller %q is neither a workload nor a kind", w.Name, route, c)
				case c == w.Name:
					add(string(route), "workload %s: route %q lists the workload itself", w.Name, route)
				case slices.Contains(callers[:i], c):
					add(string(route), "workload %s: route %q lists caller %q twice", w.Name, route, c)
				}
			}
		}
	}
	return errors.Join(faults...)
}

// register reports what ServeMux would panic with.
func register(mux *http.ServeMux, pattern string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	return nil
}

// lineOf is the number of the first line of text that holds needle, 0 if there is none.
func lineOf(text []byte, needle string) int {
	i := bytes.Index(text, []byte(needle))
	if i < 0 {
		return 0
	}
	return bytes.Count(text[:i], []byte("\n")) + 1
}
