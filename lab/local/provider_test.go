package local

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.org/security-training/lab/control"
	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

func TestTheLearningSystemAloneIsToldOfAProviderOfIdentities(t *testing.T) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		provider control.Provider
		want     []string
	}{
		"none": {control.Provider{}, nil},
		"public": {
			control.Provider{Issuer: "https://id.example.org", Client: "training", Redirect: "http://a/sign-in/callback"},
			[]string{
				"OIDC_ISSUER=https://id.example.org", "OIDC_CLIENT_ID=training", "OIDC_REDIRECT_URL=http://a/sign-in/callback",
			},
		},
		"confidential": {control.Provider{
			Issuer: "https://id.example.org", Client: "training", Redirect: "http://a/sign-in/callback", Mark: "0a",
		},
			[]string{
				"OIDC_ISSUER=https://id.example.org", "OIDC_CLIENT_ID=training",
				"OIDC_REDIRECT_URL=http://a/sign-in/callback", "OIDC_CLIENT_SECRET_FILE=/lab/keys/lms/oidc.secret",
			}},
	} {
		s := &Supervisor{
			topo:     topo,
			folder:   folder{"/lab"},
			settings: settings{Settings: control.Settings{Host: "127.0.0.1", Provider: c.provider}},
		}
		for _, w := range topo.Workloads {
			told := slices.DeleteFunc(s.environment(w), func(v string) bool { return !strings.HasPrefix(v, "OIDC_") })
			want := c.want
			if w.Kind != topology.KindDashboard {
				want = nil
			}
			if d := cmp.Diff(want, told, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("%s, %s: %s", what, w.Name, d)
			}
		}
	}
}
