package needtest

import (
	"fmt"
	"strings"
	"testing"

	"example.org/security-training/services/env"
)

// fakeTest writes down how it was ended.
type fakeTest struct{ failed, skipped string }

func (*fakeTest) Helper()                     {}
func (f *fakeTest) Fatalf(s string, a ...any) { f.failed = fmt.Sprintf(s, a...) }
func (f *fakeTest) Skipf(s string, a ...any)  { f.skipped = fmt.Sprintf(s, a...) }

func TestWhatIsLackingSkipsUnlessItIsRequired(t *testing.T) {
	for _, c := range []struct {
		require         string
		reason          Reason
		failed, skipped string
	}{
		{"", Docker, "", "[docker] it is not there"},
		{"kind,spire", Docker, "", "[docker] it is not there"},
		{"kind, docker ,spire", Docker, "LAB_REQUIRE does not let this be skipped", ""},
		{"docker", Docker, "[docker] it is not there", ""},
		{"dokcer", Docker, `"dokcer" is none of [chromium delve devfull docker`, ""},
		{"", "weather", `"weather", which LAB_REQUIRE does not know`, ""},
	} {
		var f fakeTest
		lacks(&f, env.Map(map[string]string{"LAB_REQUIRE": c.require}), c.reason, "it is not there")
		if !strings.Contains(f.failed, c.failed) || f.skipped != c.skipped || (f.failed == "") != (c.failed == "") {
			t.Errorf("LAB_REQUIRE=%s, %s is lacking: failed %q, skipped %q", c.require, c.reason, f.failed, f.skipped)
		}
	}
}
