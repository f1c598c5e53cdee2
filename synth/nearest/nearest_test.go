package nearest

import "testing"

func TestTheNearestNameIsFoundAndNoneThatIsFar(t *testing.T) {
	known := []string{"status", "seed", "leaked-secret", "elisabeth.reese", "llm-gateway"}
	for name, want := range map[string]string{
		"statsu": "status", "leaked": "leaked-secret", "elizabeth.reese": "elisabeth.reese",
		"lm-gateway": "llm-gateway",
		"SEED":       "seed", "see": "seed", "purple": "", "": "", "se": "",
	} {
		if got := To(name, known); got != want {
			t.Errorf("for %q it finds %q, want %q", name, got, want)
		}
	}
	if got := Hint("sead", known); got != "; did you mean seed?" {
		t.Errorf("the hint is %q", got)
	}
	if got := Hint("purple", known); got != "" {
		t.Errorf("the hint is %q, want none", got)
	}
}
