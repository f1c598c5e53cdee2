package source

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.org/security-training/services/activity"
)

// What a reader writes before an account's name is listed in the source's row: there the gateway finds which words
// begin an account that it has to take out of a text.
func TestTheSystemsOfAccountsAreListed(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	call, text := regexp.MustCompile(`[^c] accounts\(([^()]*)\)`), regexp.MustCompile(`"([a-z]+)"`)
	used := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllStringSubmatch(string(b), -1) {
			for _, system := range text.FindAllStringSubmatch(m[1], -1) {
				used[system[1]] = true
				if !slices.Contains(activity.AccountSystems(), system[1]) {
					t.Errorf("%s: accounts of %q, which no row of activity.Table lists", name, system[1])
				}
			}
		}
	}
	for _, system := range []string{"github", "jira", "okta", "aws", "email"} {
		if !used[system] {
			t.Errorf("no reader names accounts of %q: this test does not see the calls", system)
		}
	}
}
