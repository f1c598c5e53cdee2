package tally

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSkipsAreCountedByTheReasonThatTheyGive(t *testing.T) {
	const run = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: [docker] no engine answers\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:9: [docker] no engine answers\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"output","Package":"q","Test":"TestA","Output":"    a_test.go:7: no reason\n"}
{"Action":"skip","Package":"q","Test":"TestA"}
{"Action":"output","Package":"q","Test":"TestC","Output":"    c_test.go:7: [npm] said, and passed\n"}
{"Action":"pass","Package":"q","Test":"TestC"}
{"Action":"skip","Package":"without/tests"}
`
	got, err := Skips(strings.NewReader(run))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]int{"docker": 2, Other: 1}, got); d != "" {
		t.Error(d)
	}
	var out strings.Builder
	if err := Write(&out, got); err != nil || out.String() != "skipped: docker 2 other 1\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if _, err := Skips(strings.NewReader("{")); err == nil {
		t.Error("half a file is taken for a whole one")
	}
}
