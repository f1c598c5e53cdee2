package source

import (
	"bytes"
	"regexp"
)

// Scrubbed stands where a secret was.
const Scrubbed = "[scrubbed]"

// tokens lists what secrets look like. The mark is a plain substring that must be there first: looking for it costs next
// to nothing, so that bodies without a secret, nearly all, never meet a regular expression.
var tokens = []struct {
	mark    string
	pattern *regexp.Regexp
	with    string
}{
	{`"secret"`, regexp.MustCompile(`("secret"\s*:\s*)"(?:[^"\\]|\\.)*"`), `${1}"` + Scrubbed + `"`}, // alert.secret
	{"AKIA", regexp.MustCompile(`\bAKIA[0-9A-Z]{16}\b`), Scrubbed},
	{"ASIA", regexp.MustCompile(`\bASIA[0-9A-Z]{16}\b`), Scrubbed},
	{"ghp_", regexp.MustCompile(`ghp_[0-9A-Za-z]{20,255}`), Scrubbed},
	{"gho_", regexp.MustCompile(`gho_[0-9A-Za-z]{20,255}`), Scrubbed},
	{"ghu_", regexp.MustCompile(`ghu_[0-9A-Za-z]{20,255}`), Scrubbed},
	{"ghs_", regexp.MustCompile(`ghs_[0-9A-Za-z]{20,255}`), Scrubbed},
	{"ghr_", regexp.MustCompile(`ghr_[0-9A-Za-z]{20,255}`), Scrubbed},
	{"github_pat_", regexp.MustCompile(`\bgithub_pat_[0-9A-Za-z_]{20,255}\b`), Scrubbed},
	{"glpat-", regexp.MustCompile(`\bglpat-[0-9A-Za-z_-]{20,}`), Scrubbed},
	{"xox", regexp.MustCompile(`\bxox[abeprs]-[0-9A-Za-z-]{10,}`), Scrubbed},
	{"AIza", regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{35}`), Scrubbed},
	{"sk-proj-", regexp.MustCompile(`sk-proj-[0-9A-Za-z_-]{16,}`), Scrubbed},
	{"sk-ant-", regexp.MustCompile(`sk-ant-[0-9A-Za-z_-]{16,}`), Scrubbed},
	{"sk_live_", regexp.MustCompile(`\bsk_live_[0-9A-Za-z]{16,}`), Scrubbed},
	{"eyJ", regexp.MustCompile(`\beyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{4,}`), Scrubbed}, // a JWT
	{"earer ", regexp.MustCompile(`(?i)\bbearer +[0-9A-Za-z._~+/=-]{12,}`), "Bearer " + Scrubbed},
	{"SSWS ", regexp.MustCompile(`\bSSWS +[0-9A-Za-z_-]{12,}`), "SSWS " + Scrubbed},
	{"password", regexp.MustCompile(`(?i)\b(password\s*=\s*)[^\s"\\&]{4,}`), `${1}` + Scrubbed},
}

// Scrub takes secrets out of a vendor's raw body before anything else looks at it: the alert's own secret, and
// whatever has the shape of a token in a commit message, a ticket or anywhere else. The result is JSON if the body was.
func Scrub(body []byte) []byte {
	for _, t := range tokens {
		if bytes.Contains(body, []byte(t.mark)) {
			body = t.pattern.ReplaceAll(body, []byte(t.with))
		}
	}
	if bytes.Contains(body, []byte("PRIVATE KEY-----")) {
		body = scrubKeys(body)
	}
	return scrubUserinfo(body)
}

// ScrubText is Scrub for one decoded string: an escaped token in JSON is plain only once it is decoded.
func ScrubText(s string) string { return string(Scrub([]byte(s))) }

var keyBegin = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----`)
var keyEnd = regexp.MustCompile(`-----END [A-Z ]*PRIVATE KEY-----`)

// scrubKeys takes out PEM private keys. One without an end goes up to the next quote, so that the JSON stays whole, or to the end.
func scrubKeys(body []byte) []byte {
	var out []byte
	for {
		at := keyBegin.FindIndex(body)
		if at == nil {
			return append(out, body...)
		}
		out = append(append(out, body[:at[0]]...), Scrubbed...)
		body = body[at[1]:]
		quote := bytes.IndexByte(body, '"')
		end := keyEnd.FindIndex(body)
		switch {
		case end != nil && (quote < 0 || end[1] <= quote):
			body = body[end[1]:]
		case quote >= 0:
			body = body[quote:]
		default:
			return out
		}
	}
}

// scrubUserinfo takes the password out of scheme://user:password@host. No regular expression: vendors' bodies are full of URLs.
func scrubUserinfo(body []byte) []byte {
	for from := 0; ; {
		i := bytes.IndexByte(body[from:], '@')
		if i < 0 {
			return body
		}
		at := from + i
		from = at + 1
		start := bytes.LastIndexAny(body[:at], " \t\r\n\"/") + 1
		colon := bytes.IndexByte(body[start:at], ':')
		if colon < 0 || start < 3 || string(body[start-3:start]) != "://" || start+colon+1 == at {
			continue
		}
		clean := append([]byte{}, body[:start+colon+1]...)
		clean = append(clean, Scrubbed...)
		from = len(clean) + 1
		body = append(clean, body[at:]...)
	}
}
