package audit_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"example.org/security-training/services/audit"
)

func TestClipKeepsWholeCharactersAndCountsBytesAsJSONHasThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := strings.Join(
			rapid.SliceOf(rapid.SampledFrom([]string{"a", "é", "<", "\x00", "\xff", "\"", "\u2028", "𝛑", "\n",
				strings.Repeat("x", 50)})).
				Draw(t, "text"),
			"",
		)
		most := rapid.IntRange(10, 200).Draw(t, "most")
		got := audit.Clip(s, most)
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if len(b)-2 > most || !utf8.ValidString(got) {
			t.Fatalf("%q to %d: %q, which takes %d", s, most, got, len(b)-2)
		}
		whole := strings.ToValidUTF8(s, "\uFFFD")
		if b, err = json.Marshal(whole); err != nil {
			t.Fatal(err)
		}
		if kept, cut := strings.CutSuffix(got, "…"); !strings.HasPrefix(whole, kept) || cut != (len(b)-2 > most) {
			t.Fatalf("%q to %d: %q", s, most, got)
		}
	})
}
