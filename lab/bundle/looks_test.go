package bundle

import (
	"strings"
	"testing"
)

// A secret that is not known is hidden by its shape. Each shape has a sample of its own, and each sample its shape.
func TestEachShapeOfASecretIsHidden(t *testing.T) {
	samples := []string{
		"-----BEGIN EC PRIVATE KEY-----\nxxSECRETxx\n-----END EC PRIVATE KEY-----",
		"AIzaxxSECRETxx0123456789",
		"eyJxxSECRETxx0.eyJhbGciOiJIUz.c2lnbmF0dXJl",
		"AKIASECRET0123456789",
		"ghp_xxSECRETxx0123456789",
		"GET /enter/xxSECRETxx01",
		"Authorization: Basic xxSECRETxx",
		"client_secret=xxSECRETxx01",
	}
	if len(samples) != len(looks) {
		t.Errorf("%d samples of %d shapes", len(samples), len(looks))
	}
	b := newBlinder(nil, nil)
	for _, s := range samples {
		got := string(b.hide([]byte("before " + s + "\nafter")))
		if strings.Contains(got, "SECRET") || !strings.HasPrefix(got, "before ") || !strings.HasSuffix(got, "after") {
			t.Errorf("%q became %q", s, got)
		}
		for i, re := range looks { // no other shape hides the sample
			if samples[i] != s && re.MatchString(s) {
				t.Errorf("%q is hidden by the shape %v as well", s, re)
			}
		}
	}
}
