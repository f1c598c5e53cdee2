package scenario

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/nearest"
	"example.org/security-training/synth/world"
)

// Place holds the names that a scenario's calls may use.
type Place struct {
	Topology *topology.Topology
	Reasons  []string // that a refusal may have
}

// names lists the faults of the names in a scenario, each as "line n: …".
func (s *Scenario) names(lines map[string]int, there Place) []string {
	var list []string
	at := func(line int, format string, args ...any) {
		list = append(list, fmt.Sprintf("line %d: ", max(1, line))+fmt.Sprintf(format, args...))
	}
	var modules []string
	for _, m := range risk.Modules {
		modules = append(modules, m.ID)
	}
	for _, m := range s.Teaches {
		if !slices.Contains(modules, m) {
			at(lines["teaches"], "teaches %q: there is no such module%s", m, nearest.Hint(m, modules))
		}
	}
	for _, a := range s.Attack {
		switch to := techniques().moved[a]; {
		case !attackPattern.MatchString(a): // reported already
		case to != "":
			at(lines["attack"], "attack %q: it was revoked, and %s (%s) took its place", a, to, Technique(to))
		case Technique(a) == "":
			at(lines["attack"], "attack %q: ATT&CK has no such technique", a)
		}
	}
	for who, m := range s.Cast {
		if m.Role != "" && !slices.Contains(risk.Roles, m.Role) {
			hint := nearest.Hint(string(m.Role), texts(risk.Roles))
			at(lines["cast/"+who], "cast %s: there is no role %q%s", who, m.Role, hint)
		}
	}
	for _, m := range s.Timeline {
		if k := m.Record.Secret; k != "" && !slices.Contains(world.SecretKinds, k) {
			at(m.Line, "record: there is no kind of secret %q%s", k, nearest.Hint(k, world.SecretKinds))
		}
	}
	for _, e := range s.Expect {
		if e.Call == "" {
			continue
		}
		for _, fault := range e.strange(there) {
			at(e.Line, "%s", fault)
		}
	}
	return list
}

// strange lists the unknown names of a call. A caller with a disguise need not be a workload.
func (e Expectation) strange(there Place) []string {
	var list []string
	fault := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	var workloads []string
	for _, w := range there.Topology.Workloads {
		workloads = append(workloads, w.Name)
	}
	caller, callee := e.Parties()
	_, listed := there.Topology.Workload(caller)
	disguised := slices.Contains(Disguises, caller)
	switch {
	case caller == "": // reported already
	case disguised && e.As != "":
		fault("call %q: as %s shows what %q has, and that is no workload", e.Call, e.As, caller)
	case !listed && !disguised:
		hint := nearest.Hint(caller, slices.Concat(workloads, Disguises))
		fault("call %q: topology lists no workload %q%s", e.Call, caller, hint)
	}
	switch to, ok := there.Topology.Workload(callee); {
	case callee == "":
	case !ok:
		fault("call %q: topology lists no workload %q%s", e.Call, callee, nearest.Hint(callee, workloads))
	case to.Serves[e.Route] == nil && strings.HasPrefix(e.Route.Path(), "/"):
		fault("route %q: %s does not serve it%s", e.Route, callee, nearest.Hint(string(e.Route), texts(to.Routes())))
	}
	if e.Reason != "" && !slices.Contains(there.Reasons, e.Reason) {
		fault("reason %q: no refusal has it%s", e.Reason, nearest.Hint(e.Reason, there.Reasons))
	}
	if e.Reason != "" && e.Outcome == topology.Allowed {
		fault("reason %q: what is Allowed has none", e.Reason)
	}
	return list
}

// risky are the verbs that carry risk.
func risky() []string {
	return texts(slices.Collect(maps.Keys(risk.MustProfile(Published).Severities)))
}

// eventsOf are the events of a source, as named in a record.
func eventsOf(s activity.Source) []string {
	var list []string
	for _, row := range activity.Table {
		if row.Source != s {
			continue
		}
		for _, v := range row.Verbs {
			list = append(list, strings.TrimPrefix(string(v.Verb), string(s)+"."))
		}
	}
	return list
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}
