package lms

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"example.org/security-training/services/env"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/risk"
)

// Provider signs people in by OpenID Connect: the authorization code flow with PKCE (RFC 7636) and a nonce. Who has the role
// instructor or admin in the claim "roles" is one; anybody else is the person of the roster with the provider's verified email
// address.
type Provider struct {
	Issuer   string       // an https URL, as the provider's discovery document has it
	Client   string       // the client's id
	Secret   string       // empty for a public client
	Redirect string       // the address of /sign-in/callback, as browsers reach it
	HTTP     *http.Client // how the provider is reached

	mu      sync.Mutex
	found   *oidc.Provider
	pending map[string]pendingSignIn // by the cookie of the browser that began it
}

type pendingSignIn struct {
	state, nonce, verifier string
	ends                   time.Time
}

const (
	providerCookie  = "provider"
	providerPath    = "/sign-in/"
	providerEnd     = 10 * time.Minute
	providerPending = 1000
)

// providerFromEnv reads OIDC_ISSUER, OIDC_CLIENT_ID, OIDC_REDIRECT_URL and, optionally, OIDC_CLIENT_SECRET_FILE; nil without
// OIDC_ISSUER.
func providerFromEnv(lookup env.Lookup, client *http.Client) (*Provider, error) {
	r := env.Read(lookup)
	p := &Provider{Issuer: r.Optional("OIDC_ISSUER", ""), HTTP: client}
	if p.Issuer == "" {
		return nil, nil
	}
	p.Client, p.Redirect = r.Required("OIDC_CLIENT_ID"), r.Required("OIDC_REDIRECT_URL")
	file := r.Optional("OIDC_CLIENT_SECRET_FILE", "")
	if err := r.Err(); err != nil {
		return nil, err
	}
	if file != "" {
		secret, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read OIDC_CLIENT_SECRET_FILE: %w", err)
		}
		p.Secret = strings.TrimSpace(string(secret))
	}
	return p, nil
}

// host names the provider to people; empty without one.
func (p *Provider) host() string {
	if p == nil {
		return ""
	}
	u, err := url.Parse(p.Issuer)
	if err != nil {
		return p.Issuer
	}
	return u.Host
}

// discover asks the provider who it is, once.
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found == nil {
		// Its keys are fetched with this client for as long as the process lives, so not under a request's context.
		found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.HTTP), p.Issuer)
		if err != nil {
			return nil, nil, fmt.Errorf("discover provider of identities: %w", err)
		}
		p.found = found
	}
	return p.found, &oauth2.Config{
		ClientID: p.Client, ClientSecret: p.Secret, Endpoint: p.found.Endpoint(), RedirectURL: p.Redirect, Scopes: []string{oidc.ScopeOpenID, "email", "profile"},
	}, nil
}

func (p *Provider) begin(now time.Time) (cookie string, s pendingSignIn) {
	cookie, s = rand.Text(), pendingSignIn{state: rand.Text(), nonce: rand.Text(), verifier: oauth2.GenerateVerifier(), ends: now.Add(providerEnd)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pending == nil {
		p.pending = map[string]pendingSignIn{}
	}
	for k, old := range p.pending {
		if now.After(old.ends) || len(p.pending) >= providerPending {
			delete(p.pending, k)
		}
	}
	p.pending[cookie] = s
	return cookie, s
}

// end is what began with cookie, once.
func (p *Provider) end(cookie string, now time.Time) (pendingSignIn, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.pending[cookie]
	delete(p.pending, cookie)
	return s, ok && now.Before(s.ends)
}

// doProvider sends the browser to the provider. It begins with a link, not with a form: the policy lets forms lead nowhere else.
func (l *LMS) doProvider(v *visit) error {
	p := l.cfg.Provider
	if p == nil {
		return notFound()
	}
	_, flow, err := p.discover(v.ctx())
	if err != nil {
		return providerAway(err)
	}
	cookie, s := p.begin(l.cfg.Now())
	// Lax, because the browser comes back from another site. It is good for this one sign-in and nothing else.
	http.SetCookie(v.w, &http.Cookie{
		Name: providerCookie, Value: cookie, Path: providerPath, MaxAge: int(providerEnd.Seconds()), HttpOnly: true, Secure: v.r.TLS != nil, SameSite: http.SameSiteLaxMode,
	})
	http.Redirect(v.w, v.r, flow.AuthCodeURL(s.state, oidc.Nonce(s.nonce), oauth2.S256ChallengeOption(s.verifier)), http.StatusSeeOther)
	return nil
}

func providerAway(err error) error {
	return &unavailable{answer: httpjson.Errorf(http.StatusServiceUnavailable, "provider_away", "The provider of identities does not answer at the moment. A one-time link works all the same.").After(5 * time.Second), cause: err}
}

// claims are what an ID token says beyond what is verified with it.
type claims struct {
	Email    string   `json:"email"`
	Verified bool     `json:"email_verified"`
	Roles    []string `json:"roles"`
}

// doCallback takes the browser back from the provider.
func (l *LMS) doCallback(v *visit) error {
	p := l.cfg.Provider
	if p == nil {
		return notFound()
	}
	refuse := func(reason, words string) error {
		l.refused(v, "", reason)
		return httpjson.Errorf(http.StatusForbidden, reason, "%s", words)
	}
	const again = "This sign-in was not begun here, or too long ago. Begin again."
	cookie, err := v.r.Cookie(providerCookie)
	if err != nil {
		return refuse("bad_state", again)
	}
	http.SetCookie(v.w, &http.Cookie{Name: providerCookie, Path: providerPath, MaxAge: -1, HttpOnly: true, Secure: v.r.TLS != nil, SameSite: http.SameSiteLaxMode})
	s, ok := p.end(cookie.Value, l.cfg.Now())
	q := v.r.URL.Query()
	if !ok || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(s.state)) != 1 {
		return refuse("bad_state", again)
	}
	if q.Get("error") != "" || q.Get("code") == "" {
		return refuse("provider_refused", "The provider did not sign you in.")
	}
	who, err := p.exchange(v.ctx(), q.Get("code"), s)
	var bad *badToken
	if errors.As(err, &bad) {
		l.cfg.Log.Warn("sign in by provider", "error", err.Error())
		return refuse("bad_token", "What the provider answered cannot be trusted. Nobody was signed in.")
	}
	if err != nil {
		return providerAway(err)
	}
	signed := principal{Via: "provider " + p.host()}
	switch {
	case slices.Contains(who.Roles, roleAdmin):
		signed.Role = roleAdmin
	case slices.Contains(who.Roles, roleInstructor):
		signed.Role = roleInstructor
	case !who.Verified || who.Email == "":
		return refuse("email_not_verified", "The provider has not verified your email address, so it says nothing about who you are.")
	default:
		people, err := l.scorer.people()
		if err != nil {
			return away(err)
		}
		i := slices.IndexFunc(people, func(x risk.Standing) bool { return strings.EqualFold(x.Email, who.Email) })
		if i < 0 {
			return refuse("not_in_roster", "The roster lists nobody with your email address.")
		}
		signed.Role, signed.Person = rolePerson, people[i].ID
	}
	if err := l.store.record(v.ctx(), note("sign_in", signed.Person, "", signed)); err != nil {
		return err
	}
	if err := l.signIn(v.ctx(), signed); err != nil {
		return err
	}
	// A redirect would still be the other site's navigation, on which the session's cookie is not sent: the page itself goes on.
	v.w.Header().Set("Refresh", "0; url=/")
	v.viewer = nil
	return l.render(v, "signin", "Signed in", "", signInView{Done: true})
}

// badToken is an answer of the provider that does not hold.
type badToken struct{ cause error }

func (b *badToken) Error() string { return fmt.Sprintf("bad token: %v", b.cause) }
func (b *badToken) Unwrap() error { return b.cause }

// exchange redeems a code and verifies the ID token: its signature, issuer, audience, life and nonce.
func (p *Provider) exchange(ctx context.Context, code string, s pendingSignIn) (claims, error) {
	var c claims
	found, flow, err := p.discover(ctx)
	if err != nil {
		return c, err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.HTTP), 10*time.Second)
	defer cancel()
	token, err := flow.Exchange(ctx, code, oauth2.VerifierOption(s.verifier))
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil && refused.Response.StatusCode < 500 {
		return c, &badToken{err}
	}
	if err != nil {
		return c, fmt.Errorf("redeem code: %w", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return c, &badToken{errors.New("no ID token")}
	}
	id, err := found.Verifier(&oidc.Config{ClientID: p.Client}).Verify(ctx, raw)
	if err != nil {
		return c, &badToken{err}
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(s.nonce)) != 1 {
		return c, &badToken{errors.New("another nonce")}
	}
	if err := id.Claims(&c); err != nil {
		return c, &badToken{err}
	}
	return c, nil
}
