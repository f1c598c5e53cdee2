package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

// literals calls f for every string of a file that is not an import or a struct's tag.
func literals(g file, f func(pos token.Pos, text string)) {
	skip := map[*ast.BasicLit]bool{}
	ast.Inspect(g.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			skip[n.Path] = true
		case *ast.Field:
			if n.Tag != nil {
				skip[n.Tag] = true
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING && !skip[n] {
				if text, err := strconv.Unquote(n.Value); err == nil {
					f(n.Pos(), text)
				}
			}
		}
		return true
	})
}

func TestFactsOfTheTopologyStandNowhereElse(t *testing.T) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	var ports []string
	for _, w := range topo.Workloads {
		for _, p := range []int{w.Port, w.Health, w.Web, w.WebTLS} {
			if p != 0 {
				ports = append(ports, strconv.Itoa(p))
			}
		}
	}
	port := regexp.MustCompile(`(^|[:=])(` + strings.Join(ports, "|") + `)\b`)
	hostPort := regexp.MustCompile(`[a-z0-9\]]:[1-9][0-9]{3,4}\b`)
	host := regexp.MustCompile(`\b[a-z-]+-svc\b`)
	image := regexp.MustCompile(`\b(ghcr\.io|docker\.io|quay\.io|gcr\.io|registry\.k8s\.io)/|:latest\b`)
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		literals(f, func(pos token.Pos, text string) {
			at := set.Position(pos)
			say := func(what string) {
				t.Errorf("%s:%d: %q: %s stands in topology.yaml, and there alone", f.path, at.Line, text, what)
			}
			switch {
			case strings.Contains(text, topo.TrustDomain):
				say("the trust domain")
			case strings.HasPrefix(text, "spiffe://") && text != "spiffe://" && !under(f.folder(), "services/mesh"):
				say("a SPIFFE ID")
			case port.MatchString(text):
				say("a port")
			case hostPort.MatchString(text):
				say("an address")
			case host.MatchString(text):
				say("a host")
			case image.MatchString(text):
				say("an image")
			}
		})
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.INT && slices.Contains(ports, lit.Value) {
				t.Errorf("%s:%d: %s is a port of topology.yaml", f.path, set.Position(lit.Pos()).Line, lit.Value)
			}
			return true
		})
	}
}

// TestRoutesInCodeAreThoseOfTheTopology finds every literal "METHOD /path" outside tests. It must be a route that the
// topology lists, or a page for people. A route's literal occurs once, since server and clients share the constant.
func TestRoutesInCodeAreThoseOfTheTopology(t *testing.T) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	listed, used := map[string]bool{}, map[string]string{}
	for _, w := range topo.Workloads {
		for _, r := range w.Routes() {
			listed[string(r)] = true
		}
	}
	pattern := regexp.MustCompile(`^(GET|POST|PUT|PATCH|DELETE) /\S*$`)
	for _, f := range tree(t) {
		if f.test || under(f.folder(), "services/mesh") {
			continue
		}
		literals(f, func(pos token.Pos, text string) {
			if !pattern.MatchString(text) {
				return
			}
			here := fmt.Sprintf("%s:%d", f.path, set.Position(pos).Line)
			if first := used[text]; first != "" && listed[text] {
				t.Errorf("%s: %q stands in %s already", here, text, first)
			}
			used[text] = here
			if !listed[text] &&
				!under(f.folder(), "services/lms", "lab/control") { // pages for people; the supervisor's own socket
				t.Errorf("%s: %q is a route that topology.yaml does not list", here, text)
			}
		})
	}
	for r := range listed {
		if used[r] == "" {
			t.Errorf("topology.yaml lists %q, and no code names it", r)
		}
	}
}

// sourceWord is a source's name in a text.
var sourceWord = regexp.MustCompile(`\b(?:git|jira|iam|siem|training)\b`)

// TestSourcesStandInOneTable finds lists of sources. Code that depends on the source ranges over activity.Table, or has
// one table of its own with a row for each source, which is an exception here. The list may only shrink.
func TestSourcesStandInOneTable(t *testing.T) {
	tables := map[string]bool{
		"services/activity/table.go": true, // the table
		"services/source/source.go":  true, // how records are read
		"synth/world/deliver.go":     true, // how they are written
		"synth/routine/routine.go":   true, // how people slip
	}
	names := []string{"Git", "Jira", "IAM", "SIEM", "Training"}
	found := map[string]bool{}
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			seen := map[string]bool{}
			switch n := n.(type) {
			case *ast.CompositeLit, *ast.SwitchStmt:
			case *ast.BasicLit: // a pattern, a list of words
				for _, word := range sourceWord.FindAllString(n.Value, -1) {
					seen[word] = true
				}
			default:
				return true
			}
			ast.Inspect(n, func(n ast.Node) bool {
				switch x := n.(type) {
				case *ast.BlockStmt: // of a switch: only what its cases name
					for _, c := range x.List {
						if c, ok := c.(*ast.CaseClause); ok {
							for _, e := range c.List {
								if s, ok := e.(*ast.SelectorExpr); ok && slices.Contains(names, s.Sel.Name) && fmt.Sprint(s.X) == "activity" {
									seen[s.Sel.Name] = true
								}
							}
						}
					}
					return false
				case *ast.SelectorExpr:
					if slices.Contains(names, x.Sel.Name) && fmt.Sprint(x.X) == "activity" {
						seen[x.Sel.Name] = true
					}
				case *ast.Ident:
					if slices.Contains([]string{"git", "jira", "iam", "siem", "training"}, x.Name) {
						seen[x.Name] = true
					}
				}
				return true
			})
			if len(seen) < 3 {
				return true
			}
			found[f.path] = true
			if !tables[f.path] {
				t.Errorf("%s:%d lists sources: range over activity.Table", f.path, set.Position(n.Pos()).Line)
			}
			return false
		})
	}
	for path := range tables {
		if !found[path] {
			t.Errorf("%s lists no sources any more: take it off the exceptions", path)
		}
	}
}

// TestEachBinaryOfTheTopologyIsThere compares the topology's rows with the folders, in both directions.
func TestEachBinaryOfTheTopologyIsThere(t *testing.T) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{}
	for _, w := range topo.Workloads {
		if w.Binary != "" {
			wanted[w.Binary] = true
		}
	}
	there := map[string]bool{}
	for _, f := range tree(t) {
		if f.ast.Name.Name == "main" && under(f.folder(), "services/cmd", "synth/cmd") {
			there[filepath.Base(f.folder())] = true
		}
	}
	for b := range wanted {
		if !there[b] {
			t.Errorf("topology.yaml names the binary %s, which has no main", b)
		}
	}
	for b := range there {
		if !wanted[b] && b != "synth" && b != "registrar" &&
			b != "bridge" { // a tool for the shell, a Job of the cluster, and the way into its SPIRE server
			t.Errorf("%s is built, and no row of topology.yaml runs it", b)
		}
	}
}
