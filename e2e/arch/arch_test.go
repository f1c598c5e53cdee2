// Package arch holds the rules of the house that no compiler knows: what may import what, and what stands in one place
// alone. It needs no lab.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

const module = "example.org/security-training/"

// file is one Go file of the tree, parsed.
type file struct {
	path string // from the root, with slashes
	test bool
	ast  *ast.File
}

func (f file) folder() string { return filepath.ToSlash(filepath.Dir(f.path)) }

func (f file) imports() []string {
	var out []string
	for _, i := range f.ast.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err == nil {
			out = append(out, path)
		}
	}
	return out
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}

var set = token.NewFileSet()

// tree parses every Go file, whatever system or tag it is for.
func tree(t *testing.T) []file {
	t.Helper()
	dir := root(t)
	var files []file
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != dir &&
			(strings.HasPrefix(d.Name(), ".") ||
				slices.Contains([]string{"bin", "tools", "testdata", "screenshots"}, d.Name())) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		test := strings.HasSuffix(path, "_test.go") ||
			strings.HasSuffix(filepath.Dir(path), "test") // meshtest and its like are for tests alone
		files = append(files, file{filepath.ToSlash(rel), test, parsed})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("found %d files: the rules would hold of nothing", len(files))
	}
	return files
}

// under says whether a folder is any of parents or below one.
func under(folder string, parents ...string) bool {
	return slices.ContainsFunc(parents, func(p string) bool { return folder == p || strings.HasPrefix(folder, p+"/") })
}

// kernel is what everything else may stand on, innermost first.
var kernel = []string{
	"services/wait", "services/env", "services/httpjson", "services/topology", "services/audit", "services/mesh",
}

// vocabulary is what crosses the wire.
var vocabulary = []string{
	"services/activity", "services/risk", "services/lesson", "services/source", "services/exercise",
}

// api says whether a folder holds what a product's routes are called, take and answer: server and clients share it.
func api(folder string) bool {
	return under(folder, "services") && strings.HasSuffix(folder, "api")
}

// rank orders the layers; an import points to a lower rank or stays in its own.
func rank(folder string) int {
	switch {
	case under(folder, kernel...):
		return 0
	case under(folder, vocabulary...):
		return 1
	case under(folder, "services/cmd"):
		return 3
	case under(folder, "services"):
		return 2
	case under(folder, "manifests"):
		return 4
	case under(folder, "synth"):
		return 5
	case under(folder, "lab"):
		return 6
	case under(folder, "e2e"):
		return 7
	}
	return -1
}

// kernelRank orders the kernel; -1 is what is not in it.
func kernelRank(folder string) int {
	return slices.IndexFunc(kernel, func(k string) bool { return under(folder, k) })
}

func TestKnowledgePointsInward(t *testing.T) {
	for _, f := range tree(t) {
		from := rank(f.folder())
		if from < 0 {
			t.Errorf("%s is in no layer", f.path)
			continue
		}
		for _, path := range f.imports() {
			to, ok := strings.CutPrefix(path, module)
			switch {
			case !ok:
			case under(to, "services/cmd", "synth/cmd", "lab/cmd", "e2e"):
				t.Errorf("%s imports %s, which is for nobody to import", f.path, to)
			case f.test && to == "manifests": // tests may read the one topology
			case rank(to) > from:
				t.Errorf("%s imports %s: knowledge points inward", f.path, to)
			case from == 0 && !f.test && kernelRank(to) > kernelRank(f.folder()):
				t.Errorf("%s imports %s: the kernel has an order, too", f.path, to)
			}
		}
	}
}

// TestForbiddenImports holds single imports that a layer must not have, in its tests neither unless it says otherwise.
func TestForbiddenImports(t *testing.T) {
	products := []string{
		"services/collector",
		"services/riskscorer",
		"services/llmgateway",
		"services/lms",
		"services/dbkeeper",
	}
	for _, f := range tree(t) {
		for _, path := range f.imports() {
			refuse := func(why string) { t.Errorf("%s imports %s: %s", f.path, path, why) }
			if under(f.folder(), "services") {
				if strings.HasPrefix(path, "github.com/brianvoe/gofakeit") {
					refuse("production code does not invent data")
				}
				if !f.test && path == "testing" {
					refuse("production code does not know that it is tested")
				}
			}
			if path == "crypto/tls" && !under(f.folder(), "services/mesh") {
				refuse("every byte between workloads passes through mesh")
			}
			if under(path, "database/sql") || strings.Contains(path, "jackc/pgx") {
				if under(
					f.folder(),
					"services/llmgateway",
					"services/collector",
					"services/mesh",
					"services/source",
					"services/risk",
					"services/lesson",
					"services/activity",
					"synth",
				) {
					refuse("this one has no database")
				}
			}
			if path == module+"services/mesh/authority" && under(f.folder(), "services") &&
				!under(f.folder(), "services/mesh") &&
				!f.test {
				refuse("no service signs certificates")
			}
			if strings.HasPrefix(path, module) && strings.HasSuffix(path, "test") && !f.test {
				refuse("it is for tests")
			}
			if path == "os/exec" && under(f.folder(), "services") && !under(f.folder(), "services/dbkeeper") && !f.test {
				refuse("services run no programs")
			}
			if to, ok := strings.CutPrefix(path, module); ok {
				for _, p := range products {
					if under(f.folder(), "services") && !f.test && under(to, p) && !under(f.folder(), p) &&
						!under(f.folder(), "services/cmd") &&
						!api(to) {
						refuse("products share vocabulary, not code")
					}
				}
				if under(f.folder(), "lab") && under(to, products...) && !f.test && !api(to) {
					refuse("lab runs binaries, it does not link them")
				}
				if api(f.folder()) && !under(to, "services/topology", "services/audit") && !under(to, vocabulary...) {
					refuse("an api package says what crosses the wire, in the vocabulary's words, and knows nothing else")
				}
			}
			if strings.HasPrefix(path, "sigs.k8s.io/kind") && !under(f.folder(), "lab/kind") && !f.test {
				refuse("only lab/kind links kind")
			}
			if strings.HasPrefix(path, "helm.sh/") && !under(f.folder(), "lab/kind", "lab/cluster") && !f.test {
				refuse("only the runtimes on Kubernetes link Helm")
			}
			if strings.HasPrefix(path, "k8s.io/") &&
				!under(f.folder(), "lab/kind", "lab/cluster", "services/registrar/podexec") &&
				!f.test {
				refuse("only the runtimes on Kubernetes and the registrar's way into a pod know its API")
			}
		}
	}
}

// reach is every package of the module that main links, by its own imports and theirs.
func reach(files []file, main string) map[string]bool {
	imports := map[string][]string{}
	for _, f := range files {
		if !f.test {
			imports[f.folder()] = append(imports[f.folder()], f.imports()...)
		}
	}
	seen := map[string]bool{}
	var visit func(string)
	visit = func(path string) {
		if seen[path] {
			return
		}
		seen[path] = true
		if to, ok := strings.CutPrefix(path, module); ok {
			for _, next := range imports[to] {
				visit(next)
			}
		}
	}
	visit(module + main)
	return seen
}

func TestEachBinaryLinksOnlyWhatItNeeds(t *testing.T) {
	files := tree(t)
	for _, c := range []struct {
		main  string
		never []string
	}{
		{
			"services/cmd/llmgateway",
			[]string{"k8s.io/client-go", "jackc/pgx", "services/postgres", "bbolt", "gofakeit", "services/riskscorer"},
		},
		{
			"services/cmd/collector",
			[]string{"k8s.io/client-go", "jackc/pgx", "services/postgres", "genai", "services/riskscorer", "gofakeit"},
		},
		{"services/cmd/riskscorer", []string{"k8s.io/client-go", "services/collector", "bbolt", "genai", "gofakeit"}},
		{
			"services/cmd/lms",
			[]string{"k8s.io/client-go", "google.golang.org/genai", "bbolt", "gofakeit", "services/riskscorer"},
		},
		{
			"services/cmd/dbkeeper",
			[]string{"k8s.io/client-go", "genai", "bbolt", "gofakeit", "services/lms", "services/riskscorer"},
		},
		{"services/cmd/bridge", []string{"k8s.io/client-go", "jackc/pgx", "services/mesh"}},
		{"services/cmd/registrar", []string{"jackc/pgx", "services/postgres", "gofakeit", "helm.sh"}},
		{"synth/cmd/world", []string{"k8s.io/client-go", "jackc/pgx", "genai", "services/lms", "services/collector"}},
		{"synth/cmd/stubgemini", []string{"k8s.io/client-go", "jackc/pgx", "services/llmgateway"}},
	} {
		linked := reach(files, c.main)
		if len(linked) < 5 {
			t.Errorf("%s links %d packages: is it there?", c.main, len(linked))
		}
		for path := range linked {
			for _, never := range c.never {
				if strings.Contains(path, never) && !api(strings.TrimPrefix(path, module)) {
					t.Errorf("%s links %s", c.main, path)
				}
			}
		}
	}
}

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

// TestSQLIsNotPutTogetherFromPieces looks for a plus sign beside a literal that reads like a statement.
func TestSQLIsNotPutTogetherFromPieces(t *testing.T) {
	statement := regexp.MustCompile(
		`(?i)^\s*(select|insert into|update|delete from|create|alter|drop|grant|revoke|copy)\s` +
			`[^.;]*\b(from|into|values|set|table|role|schema|on|to|where|database)\b`,
	)
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sum, ok := n.(*ast.BinaryExpr)
			if !ok || sum.Op != token.ADD {
				return true
			}
			if _, constant := sum.Y.(*ast.BasicLit); constant {
				return true
			}
			if lit, ok := sum.X.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil && statement.MatchString(text) && !quotes(sum.Y) {
					t.Errorf("%s:%d: a statement is put together: %s", f.path, set.Position(sum.Pos()).Line, text)
				}
			}
			return true
		})
	}
}

// quotes says whether e is a call that quotes an identifier, as pgx.Identifier{…}.Sanitize() does.
func quotes(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		return f.Sel.Name == "Sanitize"
	case *ast.Ident:
		return f.Name == "quote"
	}
	return false
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	said := map[string]bool{}
	for _, f := range tree(t) {
		if strings.HasSuffix(f.path, "_test.go") && !under(f.folder(), "e2e") {
			continue
		}
		want := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			want = "Command "
		}
		said[f.folder()] = said[f.folder()] || f.ast.Doc != nil && strings.HasPrefix(f.ast.Doc.Text(), want)
	}
	for folder, ok := range said {
		if !ok {
			t.Errorf("%s has no comment that says what the package is", folder)
		}
	}
}

func TestNamesSayWhatAThingIs(t *testing.T) {
	never := []string{
		"common",
		"util",
		"utils",
		"helper",
		"helpers",
		"shared",
		"base",
		"core",
		"manager",
		"processor",
		"engine",
		"impl",
		"factory",
		"data",
		"info",
		"handler",
		"handlers",
		"misc",
		"types",
	}
	typeName := regexp.MustCompile(`(Manager|Processor|Engine|Impl|Factory|Helper|Util|Utils|Service|Handler)$`)
	for _, f := range tree(t) {
		if slices.Contains(never, filepath.Base(f.folder())) ||
			slices.Contains(never, strings.TrimSuffix(filepath.Base(f.path), ".go")) {
			t.Errorf("%s: a name that says nothing", f.path)
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s: init() runs before anybody asked", f.path)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if ts, ok := s.(*ast.TypeSpec); ok && typeName.MatchString(ts.Name.Name) {
						t.Errorf("%s: type %s: a name that says nothing", f.path, ts.Name.Name)
					}
				}
			}
		}
	}
}

// TestTestsAreSentences holds that a test's name promises something: three words at least, no underscores.
func TestTestsAreSentences(t *testing.T) {
	word := regexp.MustCompile(`[A-Z0-9]+[a-z0-9]*`)
	for _, f := range tree(t) {
		if !f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || fn.Name.Name == "TestMain" {
				continue
			}
			if name, ok := strings.CutPrefix(fn.Name.Name, "Test"); ok &&
				(strings.Contains(name, "_") || len(word.FindAllString(name, -1)) < 2) {
				t.Errorf("%s: %s is not a sentence", f.path, fn.Name.Name)
			}
		}
	}
}

// TestEverySkipHasItsWord finds skips that go past needtest. A skip that names no word cannot be demanded by
// LAB_REQUIRE, and is not counted.
func TestEverySkipHasItsWord(t *testing.T) {
	for _, f := range tree(t) {
		if under(f.folder(), "services/env/needtest") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
				t.Errorf("%s: %s: skip by needtest.Lacks", f.path, s.Sel.Name)
			}
			return true
		})
	}
}

// TestMainsAreBoring holds that a main only runs what a package gives.
func TestMainsAreBoring(t *testing.T) {
	exits := regexp.MustCompile(`^os\.Exit$`)
	for _, f := range tree(t) {
		main := f.ast.Name.Name == "main"
		if main && !under(f.folder(), "lab/cmd") {
			if lines := set.Position(f.ast.End()).Line; lines > 30 {
				t.Errorf("%s has %d lines: what it does belongs into a package", f.path, lines)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && exits.MatchString(x.Name+"."+sel.Sel.Name) && !main && !f.test {
					t.Errorf("%s:%d: only main exits", f.path, set.Position(call.Pos()).Line)
				}
			}
			return true
		})
	}
}

// TestRoutesInCodeAreThoseOfTheTopology finds every literal "METHOD /path" outside tests: it must be a route that some
// row serves, or a page for people, and stand once, since server and clients share the constant.
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

// TestSourcesStandInOneTable finds lists of sources: what depends on the source ranges over activity.Table, or has a
// row for each in one table of its own, which is an exception here. The list may only shrink.
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
			switch n.(type) {
			case *ast.CompositeLit, *ast.SwitchStmt:
			default:
				return true
			}
			seen := map[string]bool{}
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

// TestEachBinaryOfTheTopologyIsThere compares rows and folders both ways.
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

// TestFilesKeepTheHousesWords reads what is no Go as well.
func TestFilesKeepTheHousesWords(t *testing.T) {
	dir := root(t)
	sync := regexp.MustCompile(`(?i)keep (this |these |it )?in ` + `sync`)
	todo := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	place := regexp.MustCompile(`(^|[\s"'(=])/(root|work)/`)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != dir && slices.Contains([]string{".git", "bin", "screenshots"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !slices.Contains(
			[]string{".go", ".yaml", ".yml", ".md", ".sql", ".html", ".css", ".mod", ""},
			filepath.Ext(path),
		) {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for n, line := range strings.Split(string(b), "\n") {
			for what, re := range map[string]*regexp.Regexp{
				"what must agree is written once": sync, "a note to oneself": todo, "a path of one machine": place,
			} {
				if re.MatchString(line) {
					rel, _ := filepath.Rel(dir, path)
					t.Errorf("%s:%d: %s: %s", rel, n+1, what, strings.TrimSpace(line))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMakefileIsAListOfCommands(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root(t), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	target := regexp.MustCompile(`^([a-z0-9-]+):`)
	phony := ""
	for _, line := range strings.Split(string(b), "\n") {
		if after, ok := strings.CutPrefix(line, ".PHONY:"); ok {
			phony = " " + after + " "
		}
	}
	name, lines := "", 0
	for n, line := range strings.Split(string(b), "\n") {
		switch m := target.FindStringSubmatch(line); {
		case m != nil:
			name, lines = m[1], 0
			if !strings.Contains(line, "## ") {
				t.Errorf("Makefile:%d: %s does not say what it is for", n+1, name)
			}
			if !strings.Contains(phony, " "+name+" ") {
				t.Errorf("Makefile:%d: %s is not .PHONY", n+1, name)
			}
		case strings.HasPrefix(line, "\t"):
			if lines++; lines > 5 {
				t.Errorf("Makefile:%d: %s has over 5 lines: a program is written in Go", n+1, name)
			}
		}
	}
	for _, want := range []string{"help", "lab-up", "lab-down", "test", "e2e", "play", "golden", "lint", "check"} {
		if !strings.Contains(phony, " "+want+" ") {
			t.Errorf("the Makefile lacks %s", want)
		}
	}
}
