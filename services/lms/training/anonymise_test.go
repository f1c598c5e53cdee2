package training

import (
	"strings"
	"testing"

	"example.org/security-training/services/risk"
)

func TestDetailsAreSentWithoutNames(t *testing.T) {
	person := func(name, id string) risk.Standing {
		return risk.Standing{Person: risk.Person{
			ID: id, Name: name, Email: id + "@example.org", Accounts: []string{"github:" + strings.ReplaceAll(id, ".", "-")},
		}}
	}
	people := []risk.Standing{person("Mira Keller", "mira.keller"), person("Tom Brandt", "tom.brandt")}
	for in, want := range map[string]string{
		"payments: config/prod.env":                   "payments: config/prod.env",
		"key of Mira Keller, mira.keller@EXAMPLE.org": "key of [person], [person]",
		"github mira-keller pushed for Tom Brandt":    "github [person] pushed for [person]",
		"Keller's laptop":                             "[person]'s laptop",
		"\xff\xfebad":                                 "bad",
	} {
		if got := Anonymise(in, people); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := Anonymise(strings.Repeat("é", 400), people); len(got) > 500 {
		t.Errorf("%d bytes", len(got))
	}
}
