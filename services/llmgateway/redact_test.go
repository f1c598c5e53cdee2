package llmgateway

import (
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/security-training/services/env/needtest"
)

func TestRedactTakesOutWhoAndWhatOpensDoors(t *testing.T) {
	for in, want := range map[string]string{
		"Mira Keller pushed":                           "‹person› pushed",
		"by Anne-Marie van den Berg today":             "by ‹person› today",
		"Łukasz Żółć":                                  "‹person›",
		"mira.keller signed in":                        "‹person› signed in",
		"main.go mira.keller":                          "main.go ‹person›",
		"a.yaml b.yaml tom.brandt":                     "a.yaml b.yaml ‹person›",
		"mira.keller tom.brandt ada.king":              "‹person› ‹person› ‹person›",
		"mail mira.k+x@example.org now":                "mail ‹address› now",
		"ask @mira-k":                                  "ask ‹person›",
		"github:mira-keller and okta:mira@example.org": "‹person› and ‹person›",
		"Signed-off-by: mira k, thanks":                "Signed-off-by: ‹person›, thanks",
		"/home/mira/.aws/credentials":                  "/home/‹person›/.aws/credentials",
		"from 203.0.113.7 to 10.0.0.1.":                "from ‹address› to ‹address›.",
		"from 2001:db8::17 at 12:30:45":                "from ‹address› at 12:30:45",
		"call +49 30 1234-5678":                        "call ‹address›",
		"arn:aws:iam::123456789012:user/mira":          "‹address›",
		"key AKIAIOSFODNN7EXAMPLE here":                "key ‹secret› here",
		"ghp_abcdefghijklmnopqrstuvwxyz0123456789":     "‹secret›",
		"AIzaSyA1234567890abcdefghijklmnopqrstuv":      "‹secret›",
		"password: hunter22":                           "password: ‹secret›",
		"API_KEY=abc123xyz":                            "API_KEY=‹secret›",
		"se\u200bcret=abc1\u200b23xyz":                 "secret=‹secret›",
		"commit 3f2a9c1e3f2a9c1e3f2a9c1e3f2a9c1e":      "commit ‹secret›",
		// … and leaves what a lesson is about.
		"payments: config/prod.env (AWS access key)":           "payments: config/prod.env (AWS access key)",
		"payments: npm lodash (GHSA-35jh-r3h4-6jhm, critical)": "payments: npm lodash (GHSA-35jh-r3h4-6jhm, critical)",
		"AttachUserPolicy: AdministratorAccess":                "AttachUserPolicy: AdministratorAccess",
		"AttachUserPolicy Mira Keller":                         "AttachUserPolicy ‹person›",
		"Phishing Link Clicked":                                "Phishing Link Clicked",
		"main.go and values.yaml, git.force_push":              "main.go and values.yaml, git.force_push",
		"customer-data-pipeline-v2: 41 MB":                     "customer-data-pipeline-v2: 41 MB",
		"s3://payments-data/exports/2026/customers.parquet":    "s3://payments-data/exports/2026/customers.parquet",
		"go github.com/go-jose/go-jose/v4@v4.0.5 (high)":       "go github.com/go-jose/go-jose/v4@v4.0.5 (high)",
		"example.com/payments/api v1.2":                        "example.com/payments/api v1.2",
		"golang.org/x/crypto by mira@example.org":              "golang.org/x/crypto by ‹address›",
	} {
		if got := Redact(in); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestSecretsOfTheCorpusReachNoPrompt reads the corpus of the collectors' scrubber, which this one stands on.
func TestSecretsOfTheCorpusReachNoPrompt(t *testing.T) {
	text, err := os.ReadFile("../source/testdata/secrets.txt")
	if err != nil {
		t.Fatal(err)
	}
	both, _, _ := strings.Cut(string(text), "\n== ")
	secrets := 0
	for line := range strings.Lines(both) {
		line = strings.ReplaceAll(strings.TrimSpace(line), `\n`, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		got := Redact(strings.NewReplacer("«", "", "»", "").Replace(line))
		parts := strings.Split(line, "«")
		for _, part := range parts[1:] {
			secret, _, _ := strings.Cut(part, "»")
			secrets++
			if strings.Contains(got, secret) || strings.Contains(got, secret[len(secret)/2:]) {
				t.Errorf("%q became %q", line, got)
			}
		}
		if len(parts) == 1 && strings.Contains(got, redactedSecret) {
			t.Errorf("%q holds no secret and became %q", line, got)
		}
	}
	if secrets < 60 {
		t.Errorf("%d secrets", secrets)
	}
}

func TestTheTimeToRedactGrowsWithTheTextAlone(t *testing.T) {
	needtest.Unhurried(t, "it measures time, which the race detector distorts")
	for _, unit := range []string{"a@", "://a:b@", "=", "password=", "<", "<a", "[a](", "&amp;", "A b ", "Aa Bb ",
		"aa.bb ", "a.", ":", "1.", "//", "<!--", "(link removed)", "github.com/a/b "} {
		began := time.Now()
		Redact(strings.Repeat(unit, 64<<10/len(unit)))
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("%q for 64 KB took %v", unit, took)
		}
	}
}

func TestNothingSensitiveSurvivesAmongOtherText(t *testing.T) {
	sensitive := []string{"Mira Keller", "mira.keller", "mira@example.org", "@mira-k", "github:mira-keller", "10.0.0.17",
		"2001:db8::17", "AKIAIOSFODNN7EXAMPLE",
		"ghp_abcdefghijklmnopqrstuvwxyz0123456789", "token=hunter22", "arn:aws:iam::123456789012:user/mira",
		"+49 30 1234-5678"}
	looksFor := []string{"Mira", "Keller", "mira", "keller", "example.org", "10.0.0", "2001", "AKIA", "ghp_", "hunter",
		"12345"}
	harmless := []string{"payments", "config/prod.env", "AttachUserPolicy", "3 times", "<b>", "[x](y)", "\u200b"}
	rapid.Check(t, func(t *rapid.T) {
		s := ""
		for range rapid.IntRange(0, 8).Draw(t, "pieces") {
			s += rapid.SampledFrom(append(sensitive, harmless...)).Draw(t, "piece") + rapid.SampledFrom([]string{" ", ", ", "; ",
				" (", ") "}).Draw(t, "between")
		}
		got := Redact(s)
		for _, x := range looksFor {
			if strings.Contains(got, x) {
				t.Fatalf("%q became %q, which holds %q", s, got, x)
			}
		}
	})
}
