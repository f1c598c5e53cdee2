// Package arch checks the project's rules that no compiler knows: which package may import which, and which facts may
// be written in one place only. It needs no lab.
package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
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

// tree parses every Go file, for every operating system and build tag.
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

// under says whether a folder is one of parents or below one.
func under(folder string, parents ...string) bool {
	return slices.ContainsFunc(parents, func(p string) bool { return folder == p || strings.HasPrefix(folder, p+"/") })
}

// kernel lists the packages that every other may import, the innermost first.
var kernel = []string{
	"services/wait", "services/env", "services/httpjson", "services/topology", "services/audit", "services/mesh",
}

// vocabulary lists the packages with the types that workloads send to each other.
var vocabulary = []string{
	"services/activity", "services/risk", "services/lesson", "services/source", "services/exercise",
}

// api says whether a folder is an api package: the routes of a product with their requests and answers, which the
// server and its clients share.
func api(folder string) bool {
	return under(folder, "services") && strings.HasSuffix(folder, "api")
}

// rank orders the layers. A package imports packages of a lower rank or of its own.
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

// kernelRank is the position of a folder in kernel, -1 if it is not there.
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
				t.Errorf("%s imports %s, which no package may import", f.path, to)
			case f.test && to == "manifests": // tests may read the one topology
			case rank(to) > from:
				t.Errorf("%s imports %s: knowledge points inward", f.path, to)
			case from == 0 && !f.test && kernelRank(to) > kernelRank(f.folder()):
				t.Errorf("%s imports %s: the kernel has an order, too", f.path, to)
			}
		}
	}
}

// TestForbiddenImports checks for single imports that a layer must not have. A rule also holds in tests, unless it
// excepts them.
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

// reach is the set of packages that main links: what it imports, directly or through packages of this module.
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
