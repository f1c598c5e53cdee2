package cluster

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestOfAChainInAPodWholeLinesAreCopied: an incomplete line is removed in the pod when its writer starts again, and the
// copy goes on from what it has.
func TestOfAChainInAPodWholeLinesAreCopied(t *testing.T) {
	broken := errors.New("the pod is gone")
	for in, want := range map[string]string{
		"":                         "",
		"a\nb\n":                   "a\nb\n",
		"a\nb\nhalf of c":          "a\nb\n",
		"half":                     "",
		strings.Repeat("x\n", 9e4): strings.Repeat("x\n", 9e4),
	} {
		for _, r := range []io.Reader{
			strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in)),
			io.MultiReader(strings.NewReader(in), iotest.ErrReader(broken)),
		} {
			var out bytes.Buffer
			if err := copyLines(&out, r); out.String() != want || err != nil && !errors.Is(err, broken) {
				t.Errorf("%.20q was copied as %.20q, %v", in, out.String(), err)
			}
		}
	}
	var out bytes.Buffer
	if err := copyLines(
		&out,
		strings.NewReader("a\n"+strings.Repeat("x", 2*mostOfLine)),
	); err == nil ||
		out.String() != "a\n" {
		t.Errorf("a line without an end: %d bytes were copied, %v", out.Len(), err)
	}
}
