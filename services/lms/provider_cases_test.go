package lms

import (
	"bytes"
	"crypto/ecdsa"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// providerCase is a sign-in by a provider that answers in a certain way.
type providerCase struct {
	name   string
	who    map[string]any
	edit   func(map[string]any)
	tell   func(map[string]any)
	info   http.HandlerFunc
	sign   *ecdsa.PrivateKey
	change func(*url.URL)
	status int
	page   string // that can be read afterwards
	reason string
}

// verifiedMira are the claims of a person of the roster.
var verifiedMira = map[string]any{"email": "Mira.Keller@example.org", "email_verified": true}

// providerCases are all ways in which a provider may answer; other is a key that it does not publish.
func providerCases(other *ecdsa.PrivateKey) []providerCase {
	return slices.Concat(userCases(), userInfoCases(), tokenCases(other), callbackCases())
}

// userCases differ in who signs in.
func userCases() []providerCase {
	mira := verifiedMira
	return []providerCase{
		{name: "a person", who: mira, status: 200, page: "/training"},
		{name: "an instructor", who: map[string]any{"roles": []string{"instructor"}}, status: 200, page: "/console"},
		{
			name: "an admin", who: map[string]any{"roles": []string{"staff", "admin"}}, status: 200, page: "/console/identities",
		},
		{
			name: "an address that is not verified", who: map[string]any{"email": "mira.keller@example.org"}, status: 403,
			reason: "email_not_verified",
		},
		{
			name: "an address that is said not to be verified",
			who:  map[string]any{"email": "mira.keller@example.org", "email_verified": false}, status: 403,
			reason: "email_not_verified",
		},
		{
			name: "a flag that is a string", who: map[string]any{"email": "mira.keller@example.org", "email_verified": "true"},
			status: 200, page: "/training",
		},
		{name: "an address in the ID token alone", edit: in(mira), status: 200, page: "/training"},
		{name: "an address that is verified in another place only", who: map[string]any{
			"email": "mallory@example.org", "email_verified": true,
		},
			edit: in(map[string]any{"email": "mira.keller@example.org"}), status: 403, reason: "email_not_verified"},
		{
			name: "an instructor by the ID token", edit: in(map[string]any{"roles": []string{"instructor"}}), status: 200,
			page: "/console",
		},
	}
}

// userInfoCases differ in the answer of the UserInfo endpoint.
func userInfoCases() []providerCase {
	mira := verifiedMira
	return []providerCase{
		{
			name: "the claims of another subject", who: mira, tell: in(map[string]any{"sub": "43"}), status: 403,
			reason: "bad_token",
		},
		{
			name: "claims of no subject", who: mira, tell: func(c map[string]any) { delete(c, "sub") }, status: 403,
			reason: "bad_token",
		},
		{
			name: "claims that are refused", who: mira,
			info: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, status: 403, reason: "bad_token",
		},
		{
			name: "claims that are no JSON", who: mira,
			info: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }, status: 403,
			reason: "bad_token",
		},
		{name: "claims without an end", who: mira, info: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(bytes.Repeat([]byte(" "), 1<<20))
		}, status: 403, reason: "bad_token"},
		{
			name: "no answer for claims", who: mira, info: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
			status: 503, reason: "provider_away",
		},
	}
}

// tokenCases differ in the ID token.
func tokenCases(other *ecdsa.PrivateKey) []providerCase {
	mira := verifiedMira
	return []providerCase{
		{name: "an authorized party", who: mira, edit: in(map[string]any{"azp": "lms"}), status: 200, page: "/training"},
		{
			name: "another authorized party", who: mira, edit: in(map[string]any{"azp": "wiki"}), status: 403,
			reason: "bad_token",
		},
		{
			name: "several audiences", who: mira, edit: in(map[string]any{"aud": []string{"lms", "wiki"}, "azp": "lms"}),
			status: 200, page: "/training",
		},
		{
			name: "several audiences and no authorized party", who: mira,
			edit: in(map[string]any{"aud": []string{"lms", "wiki"}}), status: 403, reason: "bad_token",
		},
		{
			name: "several audiences and another authorized party", who: mira,
			edit: in(map[string]any{"aud": []string{"lms", "wiki"}, "azp": "wiki"}), status: 403, reason: "bad_token",
		},
		{
			name: "a person who is not listed", who: map[string]any{
				"email": "mallory@example.org", "email_verified": true,
			}, status: 403,
			reason: "not_in_roster",
		},
		{
			name: "another nonce", who: mira, edit: func(c map[string]any) { c["nonce"] = "x" }, status: 403,
			reason: "bad_token",
		},
		{
			name: "another audience", who: mira, edit: func(c map[string]any) { c["aud"] = "wiki" }, status: 403,
			reason: "bad_token",
		},
		{
			name: "another issuer", who: mira, edit: func(c map[string]any) { c["iss"] = "https://evil.example" }, status: 403,
			reason: "bad_token",
		},
		{
			name: "a token of yesterday", who: mira,
			edit: func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }, status: 403, reason: "bad_token",
		},
		{name: "another key", who: mira, sign: other, status: 403, reason: "bad_token"},
	}
}

// callbackCases differ in the callback.
func callbackCases() []providerCase {
	mira := verifiedMira
	return []providerCase{
		{
			name: "another state", who: mira,
			change: func(u *url.URL) { q := u.Query(); q.Set("state", "x"); u.RawQuery = q.Encode() }, status: 403,
			reason: "bad_state",
		},
		{
			name: "an unknown code", who: mira,
			change: func(u *url.URL) { q := u.Query(); q.Set("code", "x"); u.RawQuery = q.Encode() }, status: 403,
			reason: "bad_token",
		},
		{
			name: "a refusal", who: mira,
			change: func(u *url.URL) { q := u.Query(); q.Set("error", "access_denied"); u.RawQuery = q.Encode() }, status: 403,
			reason: "provider_refused",
		},
	}
}
