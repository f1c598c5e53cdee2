package source

import (
	"slices"
	"strings"
	"testing"
)

// documented are the shapes of tokens that vendors document, typed from their documentation and not read from the
// table: for each a token of the shortest form that is one, without its beginning.
var documented = map[string]string{
	"AKIA": strings.Repeat("A", 16), "ASIA": strings.Repeat("A", 16), "ABIA": strings.Repeat("A", 16),
	"ACCA": strings.Repeat("A", 16),
	"ghp_": strings.Repeat("a", 20), "gho_": strings.Repeat("a", 20), "ghu_": strings.Repeat("a", 20),
	"ghs_": strings.Repeat("a", 20), "ghr_": strings.Repeat("a", 20), "github_pat_": strings.Repeat("a_", 10),
	"glpat-": strings.Repeat("a", 20), "glptt-": strings.Repeat("a", 20), "gldt-": strings.Repeat("a", 20),
	"glrt-": strings.Repeat("a", 20), "GR1348941": strings.Repeat("a", 20),
	"xoxa-": strings.Repeat("1", 10), "xoxb-": strings.Repeat("1", 10), "xoxe-": strings.Repeat("1", 10),
	"xoxp-": strings.Repeat("1", 10), "xoxr-": strings.Repeat("1", 10), "xoxs-": strings.Repeat("1", 10),
	"xapp-":                     strings.Repeat("1", 10),
	"hooks.slack.com/services/": "T0000/B0000/" + strings.Repeat("X", 8),
	"AIza":                      strings.Repeat("a", 35), "GOCSPX-": strings.Repeat("a", 20),
	"ya29.":    strings.Repeat("a", 20),
	"sk-proj-": strings.Repeat("a", 16), "sk-ant-": strings.Repeat("a", 16), "sk-": strings.Repeat("a", 40),
	"sk_live_": strings.Repeat("a", 16), "sk_test_": strings.Repeat("a", 16), "rk_live_": strings.Repeat("a", 16),
	"whsec_": strings.Repeat("a", 20),
	"SG.":    strings.Repeat("a", 16) + "." + strings.Repeat("b", 32),
	"npm_":   strings.Repeat("a", 36), "pypi-AgEI": strings.Repeat("a", 20), "dop_v1_": strings.Repeat("a", 40),
	"hvs.": strings.Repeat("a", 20), "hvb.": strings.Repeat("a", 20), "shpat_": strings.Repeat("a", 32),
	"dckr_pat_": strings.Repeat("a", 20), "ATATT3": strings.Repeat("a", 20),
	"eyJ":     strings.Repeat("a", 8) + "." + strings.Repeat("b", 8) + "." + strings.Repeat("c", 4),
	"bearer ": strings.Repeat("a1", 6), "SSWS ": strings.Repeat("a", 12),
	"AGE-SECRET-KEY-1": strings.Repeat("A", 40),
}

// The table and the list of what is documented are compared in both directions; each token goes, of any length.
func TestEveryDocumentedTokenIsTakenOut(t *testing.T) {
	for begins, rest := range documented {
		token := begins + rest
		for _, text := range []string{token, "see " + token + ", please", `{"m":"` + token + `"}`} {
			if got := ScrubText(text); strings.Contains(got, rest) || !strings.Contains(got, Scrubbed) {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
	for _, s := range shapes {
		if documented[s.begins] == "" {
			t.Errorf("%q is in the table, and no token of it is tried", s.begins)
		}
	}
	if len(documented) != len(shapes) {
		t.Errorf("%d shapes are documented, %d are in the table", len(documented), len(shapes))
	}
}

// known are the names that say that a secret follows, each as a reader would write it.
var known = []string{
	"password", "db_passwords", "passwd", "passphrase", "passcode", "passwordHash", "password_base64", "secret",
	"secrets", "SecretString", "secret_value", "secret_text", "secretBase64", "token", "tokens", "token_base64", "apikey",
	"api_key", "accessKey", "secret_key", "SECRET_KEY_BASE", "privateKey", "encryption_key", "signing_key", "accountKey",
	"masterKey", "authKey", "storage_key", "serviceKey", "license_key", "webhook_key", "credential", "credentials",
	"pass", "db_pwd", "pw", "psk", "sig", "jwt", "pat",
}

func TestEveryNameOfASecretHidesItsValue(t *testing.T) {
	var flat []string
	for _, name := range known {
		plain := strings.ToLower(strings.ReplaceAll(name, "_", ""))
		flat = append(flat, strings.TrimRight(plain, "0123456789"))
		for _, text := range []string{name + `=xq7Rkd93kQ`, `{"` + name + `":"xq7Rkd93kQ"}`, name + `: "xq7Rkd93kQ"`} {
			if got := ScrubText(text); strings.Contains(got, "xq7Rkd93kQ") {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
	for _, name := range slices.Concat(secretNames, shortNames) {
		if !slices.ContainsFunc(flat, func(f string) bool { return strings.HasSuffix(f, name) }) {
			t.Errorf("%q is in the table, and no name of it is tried", name)
		}
	}
	for _, text := range []string{
		"bypass=xq7Rkd93kQ", "nextToken=xq7Rkd93kQ", "page_token: xq7Rkd93kQ", "maxTokens=xq7Rkd93kQ",
		"design=xq7Rkd93kQ", "compat=xq7Rkd93kQ",
	} {
		if got := ScrubText(text); got != text {
			t.Errorf("%q names no secret, and became %q", text, got)
		}
	}
}
