package conductor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/topology"
)

// endpoint is a route of a workload.
type endpoint struct {
	callee string
	route  topology.Route
}

// edit removes a caller from a route's list, or puts it back. It keeps the comments of the file.
func (c *conductor) edit(o exercise.Order) error {
	c.editing.Lock()
	defer c.editing.Unlock()
	path := c.target.Topology()
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("edit topology: %w", err)
	}
	topo, err := topology.FromYAML(text)
	if err != nil {
		return fmt.Errorf("edit topology: %w", err)
	}
	callee, ok := topo.Workload(o.Callee)
	caller, known := topo.Workload(o.Caller)
	now, serves := callee.Serves[o.Route]
	if !ok || !known || !serves {
		return fmt.Errorf("edit topology: %s does not serve %s to %s", o.Callee, o.Route, o.Caller)
	}
	at := endpoint{o.Callee, o.Route}
	var callers topology.Callers
	if o.Kind == exercise.OrderRestore {
		base := c.before[at]
		if !base.Admits(caller) { // removed by a conductor before this one
			was, _ := c.original.Workload(o.Callee)
			base = was.Serves[o.Route]
		}
		callers, err = with(topo, base, now, caller)
	} else {
		callers, err = without(topo, now, caller)
	}
	if err != nil {
		return fmt.Errorf("edit topology: %w", err)
	}
	edited, err := rewrite(text, o.Callee, o.Route, callers)
	if err != nil {
		return fmt.Errorf("edit topology: %w", err)
	}
	next, err := topology.FromYAML(edited)
	if err == nil {
		err = topo.SameShape(next)
	}
	if err != nil {
		return fmt.Errorf("edit topology: %w", err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, edited, 0o644); err != nil {
		return fmt.Errorf("edit topology: %w", err)
	}
	if err := os.Rename(tmp, filepath.Clean(path)); err != nil {
		return fmt.Errorf("edit topology: %w", err)
	}
	if o.Kind == exercise.OrderRevoke {
		c.remember(topo, at, now)
	}
	return nil
}

// remember keeps a list as it was before the first caller was removed from it. If callers that were added since are
// removed too, they join the remembered list.
func (c *conductor) remember(topo *topology.Topology, at endpoint, now topology.Callers) {
	if c.before == nil {
		c.before = map[endpoint]topology.Callers{}
	}
	kept := c.before[at]
	if !slices.ContainsFunc(topo.Workloads, func(w topology.Workload) bool { return kept.Admits(w) && !now.Admits(w) }) {
		c.before[at] = now
		return
	}
	c.before[at] = added(topo, slices.Clone(kept), now)
}

// added returns list with what only more admits at its end.
func added(topo *topology.Topology, list, more topology.Callers) topology.Callers {
	for _, name := range more {
		if w, ok := topo.Workload(name); !slices.Contains(list, name) && !(ok && list.Admits(w)) {
			list = append(list, name)
		}
	}
	return list
}

// without returns the list without w. A kind that admits w is replaced by the other workloads of that kind. A list of w
// alone becomes the empty list, which admits no one.
func without(topo *topology.Topology, callers topology.Callers, w topology.Workload) (topology.Callers, error) {
	if !callers.Admits(w) {
		return nil, fmt.Errorf("%s is not on the list %v", w.Name, callers)
	}
	out := topology.Callers{}
	for _, name := range callers {
		switch name {
		case w.Name:
		case w.Kind:
			for _, other := range topo.OfKind(w.Kind) {
				if other.Name != w.Name && !slices.Contains(callers, other.Name) {
					out = append(out, other.Name)
				}
			}
		default:
			out = append(out, name)
		}
	}
	return out, nil
}

// with returns the list with w in it again, in the place that it had in base. It admits w and those that it admitted
// before, and no one else: it keeps edits by hand, additions as well as removals.
func with(topo *topology.Topology, base, now topology.Callers, w topology.Workload) (topology.Callers, error) {
	if now.Admits(w) {
		return now, nil
	}
	if !base.Admits(w) {
		return nil, fmt.Errorf("%s was never on the list %v", w.Name, base)
	}
	on := func(o topology.Workload) bool { return o.Name == w.Name || now.Admits(o) }
	out := topology.Callers{}
	for _, name := range base {
		if one, ok := topo.Workload(name); ok {
			if name == w.Name || slices.Contains(now, name) || now.Admits(one) && !slices.Contains(now, one.Kind) {
				out = append(out, name)
			}
			continue
		}
		all := topo.OfKind(name)
		if !slices.ContainsFunc(all, func(o topology.Workload) bool { return !on(o) }) {
			out = append(out, name)
			continue
		}
		for _, o := range all {
			if on(o) && !slices.Contains(base, o.Name) {
				out = append(out, o.Name)
			}
		}
	}
	return added(topo, out, now), nil
}

// rewrite replaces the list of one route of one workload in the file's text, and changes nothing else. It reads the
// list in both of YAML's styles and keeps the style; the empty list has only one.
func rewrite(text []byte, workload string, route topology.Route, callers topology.Callers) ([]byte, error) {
	key, list, err := listOf(text, workload, route)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(text), "\n")
	flow := "[" + strings.Join(callers, ", ") + "]"
	if list.Style&yaml.FlowStyle != 0 {
		begin := offset(lines, list.Line, list.Column)
		end := closing(text, begin)
		if end < 0 {
			return nil, fmt.Errorf("line %d: the list of %s of %s does not end", list.Line, route, workload)
		}
		return slices.Concat(text[:begin], []byte(flow), text[end:]), nil
	}
	first, last := list.Content[0].Line-1, list.Content[len(list.Content)-1].Line-1
	if len(callers) == 0 {
		head := lines[key.Line-1]
		i := strings.LastIndex(head, string(route)) + len(route)
		i += strings.Index(head[i:], ":") + 1
		lines[key.Line-1] = head[:i] + " " + flow + head[i:]
		return []byte(strings.Join(slices.Delete(lines, first, last+1), "\n")), nil
	}
	indent := strings.Repeat(" ", list.Column-1)
	var items []string
	for _, name := range callers {
		line := indent + "- " + name
		for _, item := range list.Content {
			if item.Value == name {
				line = lines[item.Line-1] // with its comment
			}
		}
		items = append(items, line)
	}
	return []byte(strings.Join(slices.Replace(lines, first, last+1, items...), "\n")), nil
}

// listOf finds the key and the list of a route in the file's text.
func listOf(text []byte, workload string, route topology.Route) (key, list *yaml.Node, err error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, nil, err
	}
	if len(doc.Content) == 1 {
		_, rows := member(doc.Content[0], "workloads")
		if rows != nil && rows.Kind == yaml.SequenceNode {
			for _, row := range rows.Content {
				if _, name := member(row, "name"); name == nil || name.Value != workload {
					continue
				}
				if _, serves := member(row, "serves"); serves != nil {
					key, list = member(serves, string(route))
				}
			}
		}
	}
	if list == nil || list.Kind != yaml.SequenceNode {
		return nil, nil, fmt.Errorf("no line of %s lists %s", workload, route)
	}
	return key, list, nil
}

func member(m *yaml.Node, name string) (key, value *yaml.Node) {
	if m.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			return m.Content[i], m.Content[i+1]
		}
	}
	return nil, nil
}

// offset returns the index in the text of a line and a column. Both count from one; a column counts characters.
func offset(lines []string, line, column int) int {
	at := 0
	for _, l := range lines[:line-1] {
		at += len(l) + 1
	}
	return at + len(string([]rune(lines[line-1])[:column-1]))
}

// closing returns the end of the flow list that begins at begin, or -1 if there is none. It does not understand
// comments or quoted names.
func closing(text []byte, begin int) int {
	for i := begin; i < len(text); i++ {
		switch c := text[i]; c {
		case ']':
			return i + 1
		case '#', '"', '\'':
			until := c
			if c == '#' {
				until = '\n'
			}
			n := bytes.IndexByte(text[i+1:], until)
			if n < 0 {
				return -1
			}
			i += n + 1
		}
	}
	return -1
}

// removedCallers returns the callers that the file does not list any more: those of the topology with which the lab
// came up, and those that were removed on the console.
func (c *conductor) removedCallers() ([]exercise.Revoked, error) {
	now, err := topology.FromFile(c.target.Topology())
	if err != nil {
		return nil, err
	}
	c.editing.Lock()
	defer c.editing.Unlock()
	out := []exercise.Revoked{}
	for _, callee := range c.original.Workloads {
		is, _ := now.Workload(callee.Name)
		for _, route := range callee.Routes() {
			before := c.before[endpoint{callee.Name, route}]
			for _, caller := range c.original.Workloads {
				if (callee.Serves[route].Admits(caller) || before.Admits(caller)) && !is.Serves[route].Admits(caller) {
					out = append(out, exercise.Revoked{Caller: caller.Name, Callee: callee.Name, Route: route})
				}
			}
		}
	}
	return out, nil
}
