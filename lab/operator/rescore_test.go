package operator

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"example.org/security-training/manifests"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
)

func TestADerivedScoreThatDiffersFromTheStoredOneIsAnError(t *testing.T) {
	net := meshtest.Start(t, manifests.Topology())
	scorer := net.Join(t, net.Topology.OfKind(topology.KindScorer)[0].Name)
	var answer scorerapi.Rescored
	var asked string
	for _, route := range scorer.Self().Routes() {
		scorer.Handle(route, func(w http.ResponseWriter, r *http.Request) error {
			asked = r.URL.RequestURI()
			return httpjson.Write(w, http.StatusOK, answer)
		})
	}
	net.Serve(t, scorer)
	o := &Operator{Node: net.Join(t, net.Topology.OfKind(topology.KindOperator)[0].Name)}
	at := time.Date(2026, 10, 1, 10, 4, 0, 123456000, time.UTC)
	for _, c := range []struct {
		name   string
		stored *scorerapi.StoredScore
		fails  bool
	}{
		{"the same", &scorerapi.StoredScore{Version: 1, Score: 500_000_000_000}, false},
		{"one unit less", &scorerapi.StoredScore{Version: 1, Score: 499_999_999_999}, true},
		{"one unit more", &scorerapi.StoredScore{Version: 1, Score: 500_000_000_001}, true},
		{"by another version of the profile", &scorerapi.StoredScore{Version: 2, Score: 1}, false},
		{"none", nil, false},
	} {
		answer = scorerapi.Rescored{Stored: c.stored}
		answer.Version, answer.Score = 1, 500_000_000_000
		r, err := Rescore(t.Context(), o, "mira.keller", at, 1000, "classic-v1")
		if c.fails != (err != nil) || c.fails && !strings.Contains(err.Error(), "mira.keller at position 1000") {
			t.Errorf("%s: %v", c.name, err)
		}
		if r.Score != risk.Score(500_000_000_000) {
			t.Errorf("%s: answers %d", c.name, r.Score)
		}
	}
	const want = "/v1/people/mira.keller/risk?as_of=1000&at=2026-10-01T10%3A04%3A00.123456Z&profile=classic-v1"
	if asked != want {
		t.Errorf("asked for %s, want %s", asked, want)
	}
}
