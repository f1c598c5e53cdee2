package lms

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"example.org/security-training/services/lms/auth"
	"example.org/security-training/services/lms/site"
)

// fakeProvider is an OpenID provider that signs in every user with the claims in who. As the specification allows in
// the code flow, the ID token has only the required claims, and the UserInfo endpoint has the others.
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
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		say(w, 200, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize",
			"token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"userinfo_endpoint": p.URL + "/userinfo", "id_token_signing_alg_values_supported": []string{"ES256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		say(
			w,
			200,
			jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}},
		)
	})
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		code := rand.Text()
		p.mu.Lock()
		p.codes[code] = q
		p.mu.Unlock()
		http.Redirect(
			w,
			r,
			q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(),
			http.StatusFound,
		)
	})
	mux.HandleFunc("POST /token", p.redeem)
	mux.HandleFunc("GET /userinfo", p.userInfo)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func say(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// redeem answers a code with an ID token.
func (p *fakeProvider) redeem(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked, ok := p.codes[r.FormValue("code")]
	delete(p.codes, r.FormValue("code"))
	sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if !ok || asked.Get("code_challenge_method") != "S256" ||
		base64.RawURLEncoding.EncodeToString(sum[:]) != asked.Get("code_challenge") {
		say(w, 400, map[string]string{"error": "invalid_grant"})
		return
	}
	c := map[string]any{
		"iss":   p.URL,
		"aud":   "lms",
		"sub":   "42",
		"iat":   time.Now().Unix(),
		"exp":   time.Now().Add(time.Hour).Unix(),
		"nonce": asked.Get("nonce"),
	}
	if sub, ok := p.who["sub"]; ok {
		c["sub"] = sub
	}
	if p.edit != nil {
		p.edit(c)
	}
	say(w, 200, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": p.token(c)})
}

// userInfo answers an access token with claims.
func (p *fakeProvider) userInfo(w http.ResponseWriter, r *http.Request) {
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

// come takes b from the sign-in page to the provider and back, and returns the last page.
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

// in returns an edit that adds claims.
func in(more map[string]any) func(map[string]any) {
	return func(c map[string]any) { maps.Copy(c, more) }
}

// signsInBy configures an OpenID provider.
func signsInBy(p *fakeProvider) func(*fixture, *Config) {
	return func(s *fixture, cfg *Config) {
		cfg.Provider = &auth.Provider{
			Issuer: p.URL, Client: "lms", Redirect: s.web.URL + "/sign-in/callback", HTTP: p.Client(),
		}
	}
}

func TestAProviderSignsInWhomTheRosterListsAndNobodyElse(t *testing.T) {
	p := newFakeProvider(t)
	s := newFixture(t, signsInBy(p))
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mira := verifiedMira
	for _, c := range providerCases(other) {
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
		t.Errorf("a callback that was not begun: %d", page.status)
	}
	var used string
	b.come(func(u *url.URL) { used = u.RequestURI() })
	if page := b.get(used); page.status != 403 {
		t.Errorf("a callback a second time: %d", page.status)
	}
	p.Close()
	s = newFixture(t, signsInBy(p))
	if page := s.browser().get("/sign-in/provider"); page.status != 503 {
		t.Errorf("without the provider: %d", page.status)
	}
}

// staff signs in a user with these claims by the provider.
func (s *fixture) staff(p *fakeProvider, who map[string]any) *browser {
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
	s := newFixture(t, signsInBy(p))
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
	} // with Anna's address, which is not verified
	host := (&auth.Provider{Issuer: p.URL}).Host()
	want := map[string]site.Principal{
		"7": {Role: site.RoleInstructor, Via: "provider " + host, Subject: "7", Email: "anna@example.org"},
		"8": {Role: site.RoleAdmin, Via: "provider " + host, Subject: "8"},
	}
	for subject, who := range map[string]map[string]any{"7": anna, "8": boris} {
		before := len(s.chain())
		b := s.staff(p, who)
		for _, path := range []string{
			"/people/mira.keller", "/people/mira.keller/reasons/git.secret_committed", "/audit?person=mira.keller", "/xapi",
		} {
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
	s := newFixture(t, signsInBy(p))
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

// A replica must be able to complete the sign-ins that another one began.
func TestTheKeyOfSignInsIsTheSameInEachReplica(t *testing.T) {
	s := newFixture(t)
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
