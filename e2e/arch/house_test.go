package arch

import (
	"fmt"
	"go/ast"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// floors are the packages of a product, the lowest floor first. Within the product, a package imports only packages of
// lower floors.
var floors = map[string][][]string{
	"services/lms": {
		{"store", "words", "lmsapi"},
		{"chart", "riskclient"},
		{"riskview", "site", "outbox"},
		{"auth", "auditlog", "phishing"},
		{"training", "console"},
		{"report"},
		{"."},
	},
	"lab": {
		{"progress", "workloadapi", "tally", "eval"},
		{"."},
		{"scenarios"},
		{"operator", "matrix"},
		{"auditor"},
		{"play"},
		{"seed"},
		{"conductor"},
		{"control"},
		{"spire", "bundle", "bench"},
		{"local", "cluster"},
		{"kind"},
		{"labtest"},
		{"cmd/lab", "cmd/tally"},
	},
}

func TestPackagesOfAProductImportDownwards(t *testing.T) {
	files := tree(t)
	for product, list := range floors {
		floor := map[string]int{}
		for n, names := range list {
			for _, name := range names {
				floor[filepath.ToSlash(filepath.Join(product, name))] = n
			}
		}
		there := map[string]bool{}
		for _, f := range files {
			if !under(f.folder(), product) || strings.HasSuffix(f.path, "_test.go") {
				continue
			}
			there[f.folder()] = true
			from, ok := floor[f.folder()]
			if !ok {
				t.Errorf("%s is on no floor of %s", f.folder(), product)
				continue
			}
			for _, path := range f.imports() {
				to, ok := strings.CutPrefix(path, module)
				if ok && under(to, product) && floor[to] >= from {
					t.Errorf("%s imports %s, which is not on a lower floor", f.path, to)
				}
			}
		}
		for folder := range floor {
			if !there[folder] {
				t.Errorf("%s has a floor of %s, and is not there", folder, product)
			}
		}
	}
}

// measure is a limit for all code, with exceptions that may only shrink.
type measure struct {
	what   string
	most   int
	except map[string]int // what is over the limit, and how large it may be
}

// hold compares what was measured with the limit. An exception that is no longer needed is an error, too.
func (m measure) hold(t *testing.T, found map[string]int) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(found)) {
		n := found[name]
		switch allowed := max(m.most, m.except[name]); {
		case n > allowed:
			t.Errorf("%s: %d %s, want at most %d", name, n, m.what, allowed)
		case m.except[name] > max(n, m.most):
			t.Errorf("%s: %d %s: lower its exception, which says %d", name, n, m.what, m.except[name])
		case m.except[name] > 0 && n <= m.most:
			t.Errorf("%s: %d %s: take it off the exceptions", name, n, m.what)
		}
	}
	for name := range m.except {
		if _, ok := found[name]; !ok {
			t.Errorf("%s has an exception for %s, and is not there", name, m.what)
		}
	}
}

func TestFilesTypesAndFunctionsKeepTheirSize(t *testing.T) {
	lines, functions, methods := map[string]int{}, map[string]int{}, map[string]int{}
	for _, f := range tree(t) {
		lines[f.path] = set.Position(f.ast.FileEnd).Line
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := f.folder() + "." + fn.Name.Name
			if of := receiver(fn); of != "" {
				name = f.folder() + "." + of + "." + fn.Name.Name
				if !f.test {
					methods[f.folder()+"."+of]++
				}
			}
			if !f.test {
				functions[name] = max(functions[name], set.Position(fn.End()).Line-set.Position(fn.Pos()).Line+1)
			}
		}
	}
	measure{"lines", 600, tooLongFiles}.hold(t, lines)
	measure{"lines in a function", 90, longFunctions}.hold(t, functions)
	measure{"methods", 30, manyMethods}.hold(t, methods)
}

// receiver is the name of a method's type.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return ""
	}
	of := fn.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	if generic, ok := of.(*ast.IndexExpr); ok {
		of = generic.X
	}
	return fmt.Sprint(of)
}

// TestLinesKeepTheirWidth counts characters; a tab counts as one, as it does for golines.
func TestLinesKeepTheirWidth(t *testing.T) {
	dir, wide := root(t), map[string]int{}
	most := map[string]int{".go": 120, ".html": 140, ".css": 140, ".js": 140}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != dir && (strings.HasPrefix(d.Name(), ".") ||
			slices.Contains([]string{"bin", "node_modules", "test-results", "testdata", "screenshots"}, d.Name())) {
			return filepath.SkipDir
		}
		limit := most[filepath.Ext(path)]
		if d.IsDir() || limit == 0 {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		wide[name] = 0
		for line := range strings.Lines(string(text)) {
			if len([]rune(strings.TrimRight(line, "\n"))) > limit {
				wide[name]++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	measure{"lines that are too wide", 0, tooWideFiles}.hold(t, wide)
}

// mostHiding is how many of 1,000 comment lines may use a word that hides who does what.
const mostHiding = 5

// TestCommentsUsePlainWords counts comment lines with words that hide who does what.
func TestCommentsUsePlainWords(t *testing.T) {
	hiding := []string{"whoever", "whatever", "somebody", "nobody", "anew", "beside"}
	all, found := 0, []string{}
	for _, f := range tree(t) {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				for line := range strings.Lines(c.Text) {
					all++
					words := strings.FieldsFunc(strings.ToLower(line), func(r rune) bool { return r < 'a' || r > 'z' })
					if slices.ContainsFunc(words, func(w string) bool { return slices.Contains(hiding, w) }) {
						found = append(found, fmt.Sprintf("%s:%d", f.path, set.Position(c.Pos()).Line))
					}
				}
			}
		}
	}
	if 1000*len(found) > mostHiding*all {
		t.Errorf("%d of %d comment lines use one of %v, want at most %d of 1,000: %s",
			len(found), all, hiding, mostHiding, strings.Join(found, " "))
	}
}
