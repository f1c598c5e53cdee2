package auth

import (
	"os"
	"strings"
	"testing"
)

func TestAProviderIsConfiguredWhollyOrNotAtAll(t *testing.T) {
	file := t.TempDir() + "/secret"
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all := func(secret string) map[string]string {
		return map[string]string{
			"OIDC_ISSUER": "https://id.example.org", "OIDC_CLIENT_ID": "lms",
			"OIDC_REDIRECT_URL": "https://x/sign-in/callback", "OIDC_CLIENT_SECRET_FILE": secret,
		}
	}
	for _, c := range []struct {
		name  string
		set   map[string]string
		wrong string
	}{
		{"nothing", nil, ""},
		{"an issuer alone", map[string]string{"OIDC_ISSUER": "https://id.example.org"}, "OIDC_CLIENT_ID"},
		{"a secret that is not there", all(file + "x"), "OIDC_CLIENT_SECRET_FILE"},
		{"everything", all(file), ""},
	} {
		p, err := ProviderFromEnv(func(name string) (string, bool) { v, ok := c.set[name]; return v, ok }, nil)
		if (err != nil) != (c.wrong != "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want an error about %q", c.name, err, c.wrong)
		}
		if err == nil && (p != nil) != (len(c.set) > 0) {
			t.Errorf("%s: %+v", c.name, p)
		}
		if p != nil && (p.Secret != "s3cret" || p.Host() != "id.example.org") {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
}
