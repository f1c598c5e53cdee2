package lms

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"example.org/security-training/services/lms/auth"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/mesh"
)

// fakeProvider is an OpenID provider that signs in all who come as who says, by the book: since a code is exchanged for
// an access token, the ID token has what it must have, and the rest is told at the UserInfo endpoint.
type fakeProvider struct {
	*httptest.Server
	t   *testing.T
	key *ecdsa.PrivateKey

	mu    sync.Mutex
	codes map[string]url.Values // what was asked for, by code
	who   map[string]any
	edit  func(claims map[string]any) // of the ID token
	tell  func(claims map[string]any) // of the UserInfo endpoint
	info  http.HandlerFunc            // set: answers there
	sign  *ecdsa.PrivateKey           // set: signs with another key than it publishes
}

func newFakeProvider(t *testing.T) *fakeProvider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &fakeProvider{t: t, key: key, codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	say := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		say(w, 200, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"userinfo_endpoint": p.URL + "/userinfo", "id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		say(w, 200, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		code := rand.Text()
		p.mu.Lock()
		p.codes[code] = q
		p.mu.Unlock()
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusFound)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		asked, ok := p.codes[r.FormValue("code")]
		delete(p.codes, r.FormValue("code"))
		sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
		if !ok || asked.Get("code_challenge_method") != "S256" || base64.RawURLEncoding.EncodeToString(sum[:]) != asked.Get("code_challenge") {
			say(w, 400, map[string]string{"error": "invalid_grant"})
			return
		}
		c := map[string]any{"iss": p.URL, "aud": "lms", "sub": "42", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "nonce": asked.Get("nonce")}
		if sub, ok := p.who["sub"]; ok {
			c["sub"] = sub
		}
		if p.edit != nil {
			p.edit(c)
		}
		say(w, 200, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": p.token(c)})
	})
	mux.HandleFunc("GET /userinfo", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer x" {
			say(w, 401, map[string]string{"error": "invalid_token"})
			return
		}
		if p.info != nil {
			p.info(w, r)
			return
		}
		c := map[string]any{"sub": "42"}
		for k, v := range p.who {
			c[k] = v
		}
		if p.tell != nil {
			p.tell(c)
		}
		say(w, 200, c)
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *fakeProvider) token(c map[string]any) string {
	key := p.key
	if p.sign != nil {
		key = p.sign
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		p.t.Error(err)
		return ""
	}
	body, _ := json.Marshal(c)
	signed, err := signer.Sign(body)
	if err != nil {
		p.t.Error(err)
		return ""
	}
	text, _ := signed.CompactSerialize()
	return text
}

// come walks b from the sign-in page to the provider and back, and answers the last page.
func (b *browser) come(change func(callback *url.URL)) shown {
	b.s.t.Helper()
	begun := b.get("/sign-in/provider")
	if begun.status != 303 {
		b.s.t.Fatalf("begin: %d %s", begun.status, begun.body)
	}
	r, err := http.NewRequest("GET", begun.location(), nil)
	if err != nil {
		b.s.t.Fatal(err)
	}
	back, err := url.Parse(b.send(r).location())
	if err != nil {
		b.s.t.Fatal(err)
	}
	if change != nil {
		change(back)
	}
	return b.get(back.RequestURI())
}

// in adds claims.
func in(more map[string]any) func(map[string]any) {
	return func(c map[string]any) { maps.Copy(c, more) }
}

// signsInBy gives a school a provider of identities.
func signsInBy(p *fakeProvider) func(*school, *Config) {
	return func(s *school, cfg *Config) {
		cfg.Provider = &auth.Provider{
			Issuer: p.URL, Client: "lms", Redirect: s.web.URL + "/sign-in/callback", HTTP: p.Client(),
		}
	}
}

func TestAProviderSignsInWhomTheRosterListsAndNobodyElse(t *testing.T) {
	p := newFakeProvider(t)
	s := newSchool(t, signsInBy(p))
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mira := map[string]any{"email": "Mira.Keller@example.org", "email_verified": true}
	for _, c := range []struct {
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
	}{
		{name: "a person", who: mira, status: 200, page: "/training"},
		{name: "an instructor", who: map[string]any{"roles": []string{"instructor"}}, status: 200, page: "/console"},
		{name: "an admin", who: map[string]any{"roles": []string{"staff", "admin"}}, status: 200, page: "/console/identities"},
		{name: "an address that nobody has verified", who: map[string]any{"email": "mira.keller@example.org"}, status: 403, reason: "email_not_verified"},
		{name: "an address that is said not to be verified", who: map[string]any{"email": "mira.keller@example.org", "email_verified": false}, status: 403, reason: "email_not_verified"},
		{name: "a flag that is a string", who: map[string]any{"email": "mira.keller@example.org", "email_verified": "true"}, status: 200, page: "/training"},
		{name: "an address in the ID token alone", edit: in(mira), status: 200, page: "/training"},
		{name: "an address that is verified in another place only", who: map[string]any{"email": "mallory@example.org", "email_verified": true},
			edit: in(map[string]any{"email": "mira.keller@example.org"}), status: 403, reason: "email_not_verified"},
		{name: "an instructor by the ID token", edit: in(map[string]any{"roles": []string{"instructor"}}), status: 200, page: "/console"},
		{name: "the claims of another subject", who: mira, tell: in(map[string]any{"sub": "43"}), status: 403, reason: "bad_token"},
		{name: "claims of no subject", who: mira, tell: func(c map[string]any) { delete(c, "sub") }, status: 403, reason: "bad_token"},
		{name: "claims that are refused", who: mira, info: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, status: 403, reason: "bad_token"},
		{name: "claims that are no JSON", who: mira, info: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }, status: 403, reason: "bad_token"},
		{name: "claims without an end", who: mira, info: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(bytes.Repeat([]byte(" "), 1<<20))
		}, status: 403, reason: "bad_token"},
		{name: "no answer for claims", who: mira, info: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, status: 503, reason: "provider_away"},
		{name: "an authorized party", who: mira, edit: in(map[string]any{"azp": "lms"}), status: 200, page: "/training"},
		{name: "another authorized party", who: mira, edit: in(map[string]any{"azp": "wiki"}), status: 403, reason: "bad_token"},
		{name: "several audiences", who: mira, edit: in(map[string]any{"aud": []string{"lms", "wiki"}, "azp": "lms"}), status: 200, page: "/training"},
		{name: "several audiences and no authorized party", who: mira, edit: in(map[string]any{"aud": []string{"lms", "wiki"}}), status: 403, reason: "bad_token"},
		{name: "several audiences and another authorized party", who: mira, edit: in(map[string]any{"aud": []string{"lms", "wiki"}, "azp": "wiki"}), status: 403, reason: "bad_token"},
		{name: "somebody else", who: map[string]any{"email": "mallory@example.org", "email_verified": true}, status: 403, reason: "not_in_roster"},
		{name: "another nonce", who: mira, edit: func(c map[string]any) { c["nonce"] = "x" }, status: 403, reason: "bad_token"},
		{name: "another audience", who: mira, edit: func(c map[string]any) { c["aud"] = "wiki" }, status: 403, reason: "bad_token"},
		{name: "another issuer", who: mira, edit: func(c map[string]any) { c["iss"] = "https://evil.example" }, status: 403, reason: "bad_token"},
		{name: "a token of yesterday", who: mira, edit: func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }, status: 403, reason: "bad_token"},
		{name: "another key", who: mira, sign: other, status: 403, reason: "bad_token"},
		{name: "another state", who: mira, change: func(u *url.URL) { q := u.Query(); q.Set("state", "x"); u.RawQuery = q.Encode() }, status: 403, reason: "bad_state"},
		{name: "an unknown code", who: mira, change: func(u *url.URL) { q := u.Query(); q.Set("code", "x"); u.RawQuery = q.Encode() }, status: 403, reason: "bad_token"},
		{name: "a refusal", who: mira, change: func(u *url.URL) { q := u.Query(); q.Set("error", "access_denied"); u.RawQuery = q.Encode() }, status: 403, reason: "provider_refused"},
	} {
		p.mu.Lock()
		p.who, p.edit, p.tell, p.info, p.sign = c.who, c.edit, c.tell, c.info, c.sign
		p.mu.Unlock()
		b := s.browser()
		page := b.come(c.change)
		if page.status != c.status || !strings.Contains(page.body, c.reason) {
			t.Errorf("%s: %d, want %d with %q: %s", c.name, page.status, c.status, c.reason, page.text())
			continue
		}
		if c.page == "" {
			if home := b.get("/"); home.status != 401 {
				t.Errorf("%s is signed in all the same: %d", c.name, home.status)
			}
			continue
		}
		if page.header.Get("Refresh") != "0; url=/" {
			t.Errorf("%s: the page does not go on: %v", c.name, page.header)
		}
		if home := b.get(c.page); home.status != 200 {
			t.Errorf("%s gets %s: %d", c.name, c.page, home.status)
		}
	}
	// A callback works once, and in the browser that began.
	p.mu.Lock()
	p.who, p.edit, p.tell, p.info, p.sign = mira, nil, nil, nil, nil
	p.mu.Unlock()
	b := s.browser()
	if page := s.browser().get("/sign-in/callback?code=x&state=y"); page.status != 403 {
		t.Errorf("a callback that nobody began: %d", page.status)
	}
	var used string
	b.come(func(u *url.URL) { used = u.RequestURI() })
	if page := b.get(used); page.status != 403 {
		t.Errorf("a callback a second time: %d", page.status)
	}
	p.Close()
	s = newSchool(t, signsInBy(p))
	if page := s.browser().get("/sign-in/provider"); page.status != 503 {
		t.Errorf("without the provider: %d", page.status)
	}
}

func TestACertificateSignsInAndItsSessionIsGoodWithItAlone(t *testing.T) {
	var mu sync.Mutex
	shows := map[string]mesh.Certificate{} // by a header that stands for the connection
	s := newSchool(t, func(_ *school, cfg *Config) {
		cfg.Certificate = func(r *http.Request) (mesh.Certificate, bool) {
			mu.Lock()
			defer mu.Unlock()
			c, ok := shows[r.UserAgent()]
			return c, ok
		}
	})
	shows["mira"] = mesh.Certificate{Name: "mira.keller", Role: "person", Serial: "1f"}
	shows["mallory"] = mesh.Certificate{Name: "mallory", Role: "person", Serial: "2f"}
	shows["admin"] = mesh.Certificate{Name: "admin", Role: "admin", Serial: "3f"}
	shows["owner"] = mesh.Certificate{Name: "owner", Role: "owner", Serial: "4f"}
	as := func(b *browser, agent, method, path string) shown {
		r, err := http.NewRequest(method, s.web.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("User-Agent", agent)
		if method == "POST" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Sec-Fetch-Site", "same-origin")
		}
		return b.send(r)
	}
	for agent, want := range map[string]int{"mira": 303, "admin": 303, "mallory": 403, "owner": 403, "nobody": 403} {
		if p := as(s.browser(), agent, "POST", "/sign-in/certificate"); p.status != want {
			t.Errorf("%s by certificate: %d, want %d", agent, p.status, want)
		}
	}
	b := s.browser()
	if p := as(b, "mira", "GET", "/sign-in"); !strings.Contains(p.body, "Continue as mira.keller") {
		t.Errorf("the door does not know the certificate: %s", p.text())
	}
	as(b, "mira", "POST", "/sign-in/certificate")
	for agent, want := range map[string]int{"mira": 200, "nobody": 401, "admin": 401} {
		if p := as(b, agent, "GET", "/training"); p.status != want {
			t.Errorf("the session's cookie with the certificate of %s: %d, want %d", agent, p.status, want)
		}
	}
}

func TestByHTTPSTheCookieIsBoundToTheHost(t *testing.T) {
	s := newSchool(t)
	web := httptest.NewTLSServer(s.Pages())
	t.Cleanup(web.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := web.Client()
	client.Jar = jar
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	_, token, _ := strings.Cut(s.link(`{"person":"mira.keller"}`).Path, "token=")
	r, err := http.NewRequest("POST", web.URL+"/sign-in", strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 303 || len(resp.Cookies()) != 1 {
		t.Fatalf("sign in: %d, %d cookies", resp.StatusCode, len(resp.Cookies()))
	}
	c := resp.Cookies()[0]
	if c.Name != "__Host-session" || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteStrictMode {
		t.Errorf("cookie %s", resp.Header.Get("Set-Cookie"))
	}
	for name, want := range map[string]int{"__Host-session": 200, "session": 401} {
		r, err := http.NewRequest("GET", web.URL+"/training", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Cookie", fmt.Sprintf("%s=%s", name, c.Value))
		bare := &http.Client{Transport: client.Transport}
		resp, err := bare.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("cookie %s by HTTPS: %d, want %d", name, resp.StatusCode, want)
		}
	}
}

func TestAProviderIsConfiguredWhollyOrNotAtAll(t *testing.T) {
	file := t.TempDir() + "/secret"
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		set   map[string]string
		wrong string
	}{
		{"nothing", nil, ""},
		{"an issuer alone", map[string]string{"OIDC_ISSUER": "https://id.example.org"}, "OIDC_CLIENT_ID"},
		{"a secret that is not there", map[string]string{"OIDC_ISSUER": "https://id.example.org", "OIDC_CLIENT_ID": "lms", "OIDC_REDIRECT_URL": "https://x/sign-in/callback", "OIDC_CLIENT_SECRET_FILE": file + "x"}, "OIDC_CLIENT_SECRET_FILE"},
		{"everything", map[string]string{"OIDC_ISSUER": "https://id.example.org", "OIDC_CLIENT_ID": "lms", "OIDC_REDIRECT_URL": "https://x/sign-in/callback", "OIDC_CLIENT_SECRET_FILE": file}, ""},
	} {
		p, err := auth.ProviderFromEnv(func(name string) (string, bool) { v, ok := c.set[name]; return v, ok }, nil)
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

// staff signs somebody in by the provider, as it knows them.
func (s *school) staff(p *fakeProvider, who map[string]any) *browser {
	s.t.Helper()
	p.mu.Lock()
	p.who = who
	p.mu.Unlock()
	b := s.browser()
	if page := b.come(nil); page.status != 200 {
		s.t.Fatalf("sign in as %v: %d %s", who, page.status, page.text())
	}
	return b
}

func TestTheAuditSaysWhichOfTwoInstructorsActed(t *testing.T) {
	p := newFakeProvider(t)
	s := newSchool(t, signsInBy(p))
	anna := map[string]any{
		"sub":            "7",
		"email":          "anna@example.org",
		"email_verified": true,
		"roles":          []string{"instructor"},
	}
	boris := map[string]any{
		"sub":   "8",
		"email": "anna@example.org",
		"roles": []string{"admin"},
	} // says that he is Anna; nobody has verified it
	host := (&auth.Provider{Issuer: p.URL}).Host()
	want := map[string]site.Principal{
		"7": {Role: site.RoleInstructor, Via: "provider " + host, Subject: "7", Email: "anna@example.org"},
		"8": {Role: site.RoleAdmin, Via: "provider " + host, Subject: "8"},
	}
	for subject, who := range map[string]map[string]any{"7": anna, "8": boris} {
		before := len(s.chain())
		b := s.staff(p, who)
		for _, path := range []string{"/people/mira.keller", "/people/mira.keller/reasons/git.secret_committed", "/audit?person=mira.keller", "/xapi"} {
			if p := b.get(path); p.status != 200 {
				t.Fatalf("%s: %d", path, p.status)
			}
		}
		if p := b.post("/drills", url.Values{"lure": {"prize"}}); p.status != 303 {
			t.Fatalf("drill: %d %s", p.status, p.text())
		}
		if p := b.post("/console/orders", url.Values{"kind": {"reset"}, "exercise": {"leaked-secret-1"}}); p.status != 303 {
			t.Fatalf("order: %d %s", p.status, p.text())
		}
		var acts []string
		for _, row := range s.chain()[before:] {
			if row.Kind == "sign_in" {
				var by site.Principal
				if err := json.Unmarshal([]byte(row.Detail), &by); err != nil || by != want[subject] {
					t.Errorf("%s signs in as %+v, %v", subject, by, err)
				}
				continue
			}
			acts = append(acts, row.Kind)
			var detail struct {
				By site.Principal `json:"by"`
			}
			if err := json.Unmarshal([]byte(row.Detail), &detail); err != nil || detail.By != want[subject] {
				t.Errorf("%s by %+v, want %+v: %v", row.Kind, detail.By, want[subject], err)
			}
		}
		if got := strings.Join(acts, " "); got != "view view search export drill.begun order" {
			t.Errorf("%s did: %s", subject, got)
		}
		if page := b.get("/audit?kind=search"); !strings.Contains(page.text(), want[subject].Words()) {
			t.Errorf("the page of the audit does not say who searched: %s", page.text())
		}
	}
}

func TestStrangersWhoBeginToSignInPushNobodyOut(t *testing.T) {
	p := newFakeProvider(t)
	s := newSchool(t, signsInBy(p))
	p.who = map[string]any{"email": "mira.keller@example.org", "email_verified": true}
	pages := s.Pages()
	page := s.browser().come(func(*url.URL) { // Mira is at the provider
		for range 1001 {
			w := httptest.NewRecorder()
			if pages.ServeHTTP(w, httptest.NewRequest("GET", "/sign-in/provider", nil)); w.Code != 303 {
				t.Fatalf("a stranger: %d", w.Code)
			}
		}
	})
	if page.status != 200 {
		t.Errorf("Mira, who began before them: %d %s", page.status, page.text())
	}
}

// The key of pending sign-ins is the same in each replica, and after a restart.
func TestTheKeyOfSignInsIsTheSameInEachReplica(t *testing.T) {
	s := newSchool(t)
	key, err := s.db.SignInKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.db.SignInKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text, err := again.Open(nil, nil, key.Seal(nil, nil, []byte("x"), nil), nil); err != nil || string(text) != "x" {
		t.Errorf("%q, %v", text, err)
	}
}
