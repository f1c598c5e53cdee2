package phishing

import (
	"strings"
	"testing"

	"example.org/security-training/services/risk"
)

func TestTemplatesAreRatedByThePhishScale(t *testing.T) {
	list, err := readTemplates(templateText)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"build-failed":    "Very difficult",
		"shared-document": "Moderately difficult",
		"prize":           "Least difficult",
		"mfa-reset":       "Very difficult",
	}
	for id, difficulty := range want {
		if x, ok := list.byID(id); !ok || x.Difficulty() != difficulty {
			t.Errorf("%s: %s with %d cues and a premise of %d, want %s",
				id, x.Difficulty(), x.CueCount(), x.Premise.Rating(), difficulty)
		}
	}
	for _, c := range []struct {
		cues, premise int
		want          string
	}{
		{8, 18, "Very difficult"},
		{8, 10, "Moderately difficult"},
		{9, 17, "Moderately difficult"},
		{14, 18, "Very difficult"},
		{9, 10, "Moderately to least difficult"},
		{15, 11, "Moderately difficult"},
		{15, 10, "Least difficult"},
	} {
		if got := phishScale(c.cues, c.premise); got != c.want {
			t.Errorf("%d cues, premise %d: %s, want %s", c.cues, c.premise, got, c.want)
		}
	}
	const faulty = "- {id: a, from: b, address: c, subject: d, paragraphs: [e], premise: {mimics: 9}}\n- {id: a}\n"
	if _, err := readTemplates([]byte(faulty)); err == nil || strings.Count(err.Error(), "template") < 3 {
		t.Errorf("faults: %v", err)
	}
	if _, known := risk.ModuleByID(phishingModule); !known {
		t.Errorf("the catalogue has no module %s", phishingModule)
	}
}
