package control

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/lab"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// provided is an environment that names a provider, with the given variables changed.
func provided(changed ...string) map[string]string {
	e := map[string]string{"OIDC_ISSUER": "https://id.example.org", "OIDC_CLIENT_ID": "training"}
	for _, c := range changed {
		name, v, _ := strings.Cut(c, "=")
		e[name] = v
	}
	return e
}

// signing returns the settings of a lab that is made with environment.
func signing(t *testing.T, environment map[string]string) Settings {
	t.Helper()
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	p, err := ProviderOf(env.Map(environment))
	if err != nil {
		t.Fatal(err)
	}
	s := Settings{Host: "127.0.0.9", Spec: lab.Spec{Name: "lab"}}
	s.Signs(p, topo)
	return s
}

func TestWhoSignsPeopleInIsReadWholeOrRefused(t *testing.T) {
	secret := file(t, " s3cret-of-the-client\n")
	got, err := ProviderOf(env.Map(provided("OIDC_CLIENT_SECRET_FILE=" + secret)))
	if err != nil {
		t.Fatal(err)
	}
	want := Provider{Issuer: "https://id.example.org", Client: "training", Secret: "s3cret-of-the-client", Mark: got.Mark}
	if d := cmp.Diff(want, got); d != "" || got.Mark == "" {
		t.Error(d)
	}
	if given := KeysGiven(env.Map(provided("OIDC_CLIENT_SECRET_FILE=" + secret))); !slices.Contains(given, want.Secret) {
		t.Errorf("a bundle would not know the client's secret: %v", given)
	}
	if p, err := ProviderOf(env.Map(map[string]string{"OIDC_CLIENT_ID": "training"})); err != nil || p != (Provider{}) {
		t.Errorf("without an issuer: %+v, %v", p, err)
	}
	for what, e := range map[string]map[string]string{
		"OIDC_CLIENT_ID":          provided("OIDC_CLIENT_ID="),
		"OIDC_ISSUER":             provided("OIDC_ISSUER=http://id.example.org"),
		"OIDC_REDIRECT_URL":       provided("OIDC_REDIRECT_URL=https://lms.example.org/"),
		"OIDC_CLIENT_SECRET_FILE": provided("OIDC_CLIENT_SECRET_FILE=/nowhere/secret"),
	} {
		if _, err := ProviderOf(env.Map(e)); code(err) != lab.ExitUsage || !strings.Contains(err.Error(), what) {
			t.Errorf("a fault of %s: %v", what, err)
		}
	}
}

func TestBrowsersComeBackToTheLabsPagesUnlessToldOtherwise(t *testing.T) {
	if got := signing(t, provided()).Provider.Redirect; !strings.HasPrefix(got, "http://127.0.0.9:") ||
		!strings.HasSuffix(got, "/sign-in/callback") {
		t.Errorf("they come back to %s", got)
	}
	const told = "https://lms.example.org/sign-in/callback"
	if got := signing(t, provided("OIDC_REDIRECT_URL="+told)).Provider.Redirect; got != told {
		t.Errorf("they come back to %s", got)
	}
	if got := signing(t, nil).Provider; got != (Provider{}) {
		t.Errorf("there is no provider, and the settings have %+v", got)
	}
}

func TestALabWithAnotherProviderIsRefused(t *testing.T) {
	with, other := "OIDC_CLIENT_SECRET_FILE="+file(
		t,
		"s3cret-of-the-client",
	), "OIDC_CLIENT_SECRET_FILE="+file(
		t,
		"another",
	)
	const back = "OIDC_REDIRECT_URL=https://lms.example.org/sign-in/callback"
	for what, c := range map[string]struct {
		made, asked map[string]string
		refused     string
	}{
		"the same":                 {provided(with), provided(with), ""},
		"nothing asked":            {provided(with), nil, ""},
		"a provider where none is": {nil, provided(), "no OIDC_ISSUER"},
		"another provider": {provided(), provided(
			"OIDC_ISSUER=https://other.example.org",
		), "OIDC_ISSUER=https://id.example.org"},
		"another client":             {provided(), provided("OIDC_CLIENT_ID=x"), "OIDC_CLIENT_ID=training"},
		"another way back":           {provided(), provided(back), "OIDC_REDIRECT_URL=http://127.0.0.9:"},
		"another secret":             {provided(with), provided(other), "another OIDC_CLIENT_SECRET_FILE"},
		"a secret for one with none": {provided(), provided(with), "another OIDC_CLIENT_SECRET_FILE"},
	} {
		f := StateDir(t.TempDir())
		if err := f.Write(signing(t, c.made)); err != nil {
			t.Fatal(err)
		}
		err := f.Same(env.Map(c.asked), lab.Spec{Name: "lab"})
		if c.refused == "" && err != nil ||
			c.refused != "" && (code(err) != lab.ExitConflict || !strings.Contains(err.Error(), "made with "+c.refused)) {
			t.Errorf("%s: %v, want %q", what, err, c.refused)
		}
		if text, err := os.ReadFile(f.Path("lab.json")); err != nil || strings.Contains(string(text), "s3cret") {
			t.Errorf("%s: the secret is in the settings: %v\n%s", what, err, text)
		}
	}
}
