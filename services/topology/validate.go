package topology

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var (
	namePattern   = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	schemaPattern = regexp.MustCompile(`^[a-z][a-z_]*$`)
	unknownKey    = regexp.MustCompile(`unknown field "([^"]+)"`)
	placeholder   = regexp.MustCompile(`\{[^}]*\}`)
	methods       = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
)

// faults collects what is wrong with a file.
type faults struct {
	text []byte
	list []error
}

// add adds a fault, with the first line of the text that contains needle if there is one.
func (f *faults) add(needle, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if n := lineOf(f.text, needle); n > 0 {
		msg = fmt.Sprintf("line %d: %s", n, msg)
	}
	f.list = append(f.list, errors.New(msg))
}

// validate joins every fault of t.
func (t *Topology) validate(text []byte) error {
	f := &faults{text: text}
	if _, err := spiffeid.TrustDomainFromString(t.TrustDomain); err != nil || strings.Contains(t.TrustDomain, "/") {
		f.add("trustDomain:", "trustDomain %q is not a trust domain's name", t.TrustDomain)
	}
	if len(t.Workloads) == 0 {
		f.list = append(f.list, errors.New("workloads: none"))
	}
	known := t.namesAndKinds(f)
	ports := map[int]string{}
	for _, w := range t.Workloads {
		w.validateRow(f)
		w.validatePorts(f, ports)
		w.validateRoutes(f, known)
	}
	return errors.Join(f.list...)
}

// namesAndKinds is the set of all names and kinds. A name must be unique, and not a kind.
func (t *Topology) namesAndKinds(f *faults) map[string]bool {
	names, known := map[string]bool{}, map[string]bool{}
	for _, w := range t.Workloads {
		if names[w.Name] {
			f.add("name: "+w.Name, "workload %s stands twice", w.Name)
		}
		names[w.Name], known[w.Name] = true, true
	}
	for _, w := range t.Workloads {
		if names[w.Kind] {
			f.add("name: "+w.Name, "kind %q of %s is also a workload's name", w.Kind, w.Name)
		}
		if w.Kind != "" {
			known[w.Kind] = true
		}
	}
	return known
}

func (w Workload) validateRow(f *faults) {
	at := "name: " + w.Name
	if !namePattern.MatchString(w.Name) || len(w.Name) > 40 {
		f.add(at, "name %q: want lower-case letters, digits and single dashes, 40 at most", w.Name)
	}
	if w.Kind == "" {
		f.add(at, "workload %s has no kind", w.Name)
	}
	if w.Kind == KindOperator && (w.Binary != "" || w.Port != 0 || len(w.Serves) > 0) {
		f.add(at, "workload %s is an operator: it runs nothing and serves nothing", w.Name)
	}
	if w.Kind != KindOperator && (w.Binary == "" || w.Port == 0 || w.Health == 0) {
		f.add(at, "workload %s lacks its binary, port or health port", w.Name)
	}
	if w.Kind != KindOperator && w.Kind != KindDatabase && len(w.Serves) == 0 {
		f.add(at, "workload %s serves nothing", w.Name)
	}
	for _, s := range w.Database {
		if !schemaPattern.MatchString(s) {
			f.add(at, "workload %s: schema %q: want lower-case letters", w.Name, s)
		}
	}
}

// validatePorts checks the ports of w against those already taken, and adds them.
func (w Workload) validatePorts(f *faults, taken map[int]string) {
	at := "name: " + w.Name
	for _, p := range []int{w.Port, w.Health, w.Web, w.WebTLS} {
		if p == 0 {
			continue
		}
		if p < 1024 || p > 65535 {
			f.add(at, "workload %s: port %d is outside 1024 to 65535", w.Name, p)
		}
		if other, ok := taken[p]; ok {
			f.add(at, "workload %s: port %d is already of %s", w.Name, p, other)
		}
		taken[p] = w.Name
	}
}

func (w Workload) validateRoutes(f *faults, known map[string]bool) {
	mux := http.NewServeMux()
	for _, route := range w.Routes() {
		if !route.wellFormed() {
			f.add(string(route), "workload %s: route %q: want a method and a path without wildcards", w.Name, route)
		} else if err := register(mux, string(route)); err != nil {
			f.add(string(route), "workload %s: route %q: %v", w.Name, route, err)
		}
		callers := w.Serves[route]
		if callers == nil {
			f.add(string(route), "workload %s: route %q lists no caller: want [] where it is to admit no one", w.Name, route)
		}
		for i, c := range callers {
			switch {
			case strings.Contains(c, "*"):
				f.add(string(route), "workload %s: route %q: a wildcard caller is not a policy", w.Name, route)
			case !known[c]:
				f.add(string(route), "workload %s: route %q: caller %q is neither a workload nor a kind", w.Name, route, c)
			case c == w.Name:
				f.add(string(route), "workload %s: route %q lists the workload itself", w.Name, route)
			case slices.Contains(callers[:i], c):
				f.add(string(route), "workload %s: route %q lists caller %q twice", w.Name, route, c)
			}
		}
	}
}

// wellFormed says whether r is a method and a path without wildcards.
func (r Route) wellFormed() bool {
	method, path, ok := strings.Cut(string(r), " ")
	return ok && slices.Contains(methods, method) && strings.HasPrefix(path, "/") &&
		!strings.ContainsAny(path, "* ") && !strings.Contains(path, "...")
}

// register returns the panic of ServeMux as an error.
func register(mux *http.ServeMux, pattern string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	return nil
}

// lineOf is the number of the first line of text that contains needle, 0 if there is none.
func lineOf(text []byte, needle string) int {
	i := bytes.Index(text, []byte(needle))
	if i < 0 {
		return 0
	}
	return bytes.Count(text[:i], []byte("\n")) + 1
}
