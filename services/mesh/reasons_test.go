package mesh_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"example.org/security-training/services/mesh"
)

// TestReasonsAreAllThatAreDeclared reads the constants of the package: none is missing in the list, and none is there
// twice.
func TestReasonsAreAllThatAreDeclared(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "verify.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []mesh.Reason
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if of, ok := spec.Type.(*ast.Ident); !ok || of.Name != "Reason" || len(spec.Values) != 1 {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if r := mesh.Reason(text); r != mesh.Unrecorded { // which is no refusal
			declared = append(declared, r)
		}
		return true
	})
	listed := slices.Clone(mesh.Reasons)
	slices.Sort(declared)
	slices.Sort(listed)
	if !slices.Equal(declared, listed) || len(declared) < 40 {
		t.Errorf("%d are declared: %v\n%d are listed: %v", len(declared), declared, len(listed), listed)
	}
}
