package source

import (
	"bytes"
	"strings"
)

const (
	longestName  = 64
	longestToken = 2048
)

// shape describes a kind of token that is recognised in any text.
type shape struct {
	begins string
	fold   bool                  // in upper or lower case
	keeps  bool                  // begins is not part of the secret
	end    func(rest []byte) int // how many bytes of rest belong to the token; 0 if it is no token
}

func (t shape) is(b []byte) bool {
	return string(b) == t.begins || t.fold && strings.EqualFold(string(b), t.begins)
}

// The shapes are those that vendors document, and those of the public rules of gitleaks and detect-secrets.
var shapes = []shape{
	{begins: "AKIA", end: exactly(16, upper)}, // AWS: a key's id, of a user and of a session
	{begins: "ASIA", end: exactly(16, upper)},
	{begins: "ABIA", end: exactly(16, upper)},
	{begins: "ACCA", end: exactly(16, upper)},
	{begins: "ghp_", end: atLeast(20, isAlnum)}, // GitHub
	{begins: "gho_", end: atLeast(20, isAlnum)},
	{begins: "ghu_", end: atLeast(20, isAlnum)},
	{begins: "ghs_", end: atLeast(20, isAlnum)},
	{begins: "ghr_", end: atLeast(20, isAlnum)},
	{begins: "github_pat_", end: atLeast(20, word)},
	{begins: "glpat-", end: atLeast(20, urlSafe)}, // GitLab
	{begins: "glptt-", end: atLeast(20, urlSafe)},
	{begins: "gldt-", end: atLeast(20, urlSafe)},
	{begins: "glrt-", end: atLeast(20, urlSafe)},
	{begins: "GR1348941", end: atLeast(20, urlSafe)},
	{begins: "xoxa-", end: atLeast(10, urlSafe)}, // Slack
	{begins: "xoxb-", end: atLeast(10, urlSafe)},
	{begins: "xoxe-", end: atLeast(10, urlSafe)},
	{begins: "xoxp-", end: atLeast(10, urlSafe)},
	{begins: "xoxr-", end: atLeast(10, urlSafe)},
	{begins: "xoxs-", end: atLeast(10, urlSafe)},
	{begins: "xapp-", end: atLeast(10, urlSafe)},
	{begins: "hooks.slack.com/services/", keeps: true, end: atLeast(20, pathLike)},
	{begins: "AIza", end: atLeast(35, urlSafe)}, // Google
	{begins: "GOCSPX-", end: atLeast(20, urlSafe)},
	{begins: "ya29.", end: atLeast(20, urlSafe)},
	{begins: "sk-proj-", end: atLeast(16, urlSafe)}, // OpenAI and Anthropic
	{begins: "sk-ant-", end: atLeast(16, urlSafe)},
	{begins: "sk-", end: atLeast(40, isAlnum)},
	{begins: "sk_live_", end: atLeast(16, isAlnum)}, // Stripe
	{begins: "sk_test_", end: atLeast(16, isAlnum)},
	{begins: "rk_live_", end: atLeast(16, isAlnum)},
	{begins: "whsec_", end: atLeast(20, base64)},
	{begins: "SG.", end: jwtLike(16, 32, 0)}, // SendGrid
	{begins: "npm_", end: atLeast(36, isAlnum)},
	{begins: "pypi-AgEI", end: atLeast(20, urlSafe)},
	{begins: "dop_v1_", end: atLeast(40, isAlnum)},   // DigitalOcean
	{begins: "hvs.", end: atLeast(20, urlSafe)},      // Vault
	{begins: "hvb.", end: atLeast(20, urlSafe)},      //
	{begins: "shpat_", end: atLeast(32, isAlnum)},    // Shopify
	{begins: "dckr_pat_", end: atLeast(20, urlSafe)}, // Docker
	{begins: "ATATT3", end: atLeast(20, base64)},     // Atlassian
	{begins: "eyJ", end: jwtLike(8, 8, 4)},           // a JWT
	{begins: "bearer ", fold: true, keeps: true, end: randomOf(12, credential)},
	{begins: "SSWS ", keeps: true, end: atLeast(12, urlSafe)}, // Okta
	{begins: "AGE-SECRET-KEY-1", end: atLeast(40, isAlnum)},
}

// shapesOf are the shapes by their first byte.
var shapesOf = func() (of [256][]shape) {
	for _, t := range shapes {
		of[t.begins[0]] = append(of[t.begins[0]], t)
		if upper := t.begins[0] &^ 0x20; t.fold && upper != t.begins[0] {
			of[upper] = append(of[upper], t)
		}
	}
	return of
}()

func run(b []byte, of func(byte) bool) int {
	n := 0
	for n < len(b) && of(b[n]) {
		n++
	}
	return n
}

func exactly(n int, of func(byte) bool) func([]byte) int {
	return func(rest []byte) int {
		if got := run(rest[:min(len(rest), n+1)], isAlnum); got != n || run(rest, of) < n {
			return 0
		}
		return n
	}
}

func atLeast(n int, of func(byte) bool) func([]byte) int {
	return func(rest []byte) int {
		if got := run(rest, of); got >= n {
			return got
		}
		return 0
	}
}

// randomOf is atLeast for tokens that could also be a word: they must have a digit.
func randomOf(n int, of func(byte) bool) func([]byte) int {
	return func(rest []byte) int {
		got := run(rest, of)
		if got < n || !random(rest[:got]) {
			return 0
		}
		return got
	}
}

// jwtLike is for two or three parts of base64 with dots between them, each with a minimum length. A part that reaches
// the maximum length of a token is removed up to there.
func jwtLike(parts ...int) func([]byte) int {
	return func(rest []byte) int {
		at := 0
		for i, least := range parts {
			if least == 0 {
				break
			}
			if i > 0 {
				if at == len(rest) || rest[at] != '.' {
					return 0
				}
				at++
			}
			n := run(rest[at:], urlSafe)
			if n < least {
				return 0
			}
			at += n
			if at == longestToken {
				return at
			}
		}
		return at
	}
}

func isDigit(c byte) bool    { return c >= '0' && c <= '9' }
func isLetter(c byte) bool   { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isAlnum(c byte) bool    { return isDigit(c) || isLetter(c) }
func isEscape(c byte) bool   { return c == '\\' }
func isSpace(c byte) bool    { return c == ' ' || c == '\t' }
func upper(c byte) bool      { return isDigit(c) || c >= 'A' && c <= 'Z' }
func word(c byte) bool       { return isAlnum(c) || c == '_' }
func urlSafe(c byte) bool    { return word(c) || c == '-' }
func pathLike(c byte) bool   { return urlSafe(c) || c == '/' }
func base64(c byte) bool     { return urlSafe(c) || c == '+' || c == '/' || c == '=' }
func credential(c byte) bool { return base64(c) || c == '.' || c == '~' }
func inName(c byte) bool     { return urlSafe(c) || c == '.' }

// random says whether b is not a word: it has a digit.
func random(b []byte) bool { return bytes.ContainsAny(b, "0123456789") }

// A kind says what a name stands for.
type kind int

const (
	harmless kind = iota
	secret
	header // of HTTP: a scheme followed by the secret
)

// secretNames are the endings of names of secrets, in lower case, without separators, and without digits at the end:
// passwordBase64 ends with "passwordbase".
var secretNames = []string{
	"password", "passwords", "passwd", "passphrase", "passcode", "passwordhash", "passwordbase",
	"secret", "secrets", "secretstring", "secretvalue", "secrettext", "secretbase", "token", "tokens", "tokenbase",
	"apikey", "accesskey", "secretkey", "secretkeybase", "privatekey", "encryptionkey", "signingkey",
	"accountkey", "masterkey", "authkey",
	"storagekey", "servicekey", "licensekey", "webhookkey", "credential", "credentials",
}

// shortNames are names of secrets only as a whole word.
var shortNames = []string{"pass", "pwd", "pw", "psk", "sig", "jwt", "apikey", "pat"}

// notSecret are endings of names that only resemble those of secrets.
var notSecret = []string{
	"nexttoken", "pagetoken", "continuationtoken", "publickeytoken",
	"maxtokens", "inputtokens", "outputtokens", "prompttokens", "completiontokens",
}

// ending is the ending of a name and its kind.
type ending struct {
	name string
	kind kind
}

// endings are all endings by their last byte, in order of precedence.
var endings = func() (by [256][]ending) {
	add := func(k kind, names ...string) {
		for _, x := range names {
			last := x[len(x)-1]
			by[last] = append(by[last], ending{x, k})
		}
	}
	add(harmless, notSecret...)
	add(header, "authorization")
	add(secret, secretNames...)
	return by
}()

// kindOf is the kind of a name in any spelling: DB_PASSWORD, dbPassword, db.password, "API key".
func kindOf(name []byte) kind {
	var flat [longestName]byte
	n, last := 0, 0 // last: where the last word begins
	for i := max(0, len(name)-longestName); i < len(name); i++ {
		c := name[i]
		if !isAlnum(c) {
			last = n
			continue
		}
		if c >= 'A' && c <= 'Z' {
			if i > 0 && name[i-1] >= 'a' && name[i-1] <= 'z' {
				last = n
			}
			c |= 0x20
		}
		flat[n] = c
		n++
	}
	for n > 0 && isDigit(flat[n-1]) {
		n--
	}
	if last >= n { // DB_PASSWORD_2
		last = 0
	}
	text := flat[:n]
	if n == 0 {
		return harmless
	}
	for _, x := range endings[text[n-1]] {
		if len(x.name) <= n && string(text[n-len(x.name):]) == x.name {
			return x.kind
		}
	}
	for _, x := range shortNames {
		if string(text[last:]) == x {
			return secret
		}
	}
	return harmless
}

// isName and isValue recognise the two parts of name: DB_PASSWORD, value: ….
func isName(name []byte) bool  { return lastWord(name, "name") || lastWord(name, "key") }
func isValue(name []byte) bool { return lastWord(name, "value") }

func lastWord(name []byte, word string) bool {
	rest, ok := bytes.CutSuffix(name, []byte(word))
	return ok && (len(rest) == 0 || !isAlnum(rest[len(rest)-1]))
}

// placeholder says whether a value stands for a secret without containing it: ${DB_PASSWORD}, {{ .token }}, <password>,
// ****.
func placeholder(value []byte) bool {
	if len(value) == 0 || len(value) > 128 {
		return len(value) == 0
	}
	switch v := string(value); {
	case strings.HasPrefix(v, "${"), strings.HasPrefix(v, "$("), strings.HasPrefix(v, "{{"),
		strings.HasPrefix(v, "<") && strings.HasSuffix(v, ">"):
		return true
	case strings.Trim(v, "*") == "", strings.Trim(v, ".") == "":
		return true
	case v == "null", v == "nil", v == "None", v == "none", v == "true", v == "false", v == "undefined",
		v == "HIDDEN_DUE_TO_SECURITY_REASONS":
		return true
	case v[0] == '$':
		return strings.Trim(v[1:], "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
	}
	return false
}
