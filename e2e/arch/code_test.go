package arch

import (
	"go/ast"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestSQLIsNotPutTogetherFromPieces looks for a plus sign after a literal that reads like a statement.
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
					t.Errorf("%s: init() runs without being called", f.path)
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

// TestTestsAreSentences checks that a test's name is a promise: at least three words with "Test", and no underscores.
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

// TestEverySkipHasItsWord finds tests that skip without needtest. Such a skip has no keyword, so LAB_REQUIRE cannot
// forbid it, and it is not counted.
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

// TestMainsAreBoring checks that a main package only calls another package.
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
