package report

import (
	"net/http/httptest"
	"slices"
	"testing"

	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/risk"
)

func TestThePageOfAProfileIsComparedWithEachOther(t *testing.T) {
	for _, own := range risk.Profiles() {
		m, err := new(Reports).compare(&site.Request{R: httptest.NewRequest("GET", "/organisation", nil)}, nil, own.Name)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Choices) != len(risk.Profiles())-1 ||
			slices.ContainsFunc(m.Choices, func(c site.Choice) bool { return c.Value == own.Name }) {
			t.Errorf("%s is compared with %v", own.Name, m.Choices)
		}
	}
}
