package auth

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
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
	"golang.org/x/sync/singleflight"

	"example.org/security-training/services/env"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/postgres/audited"
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

	mu     sync.Mutex
	found  *oidc.Provider
	flight singleflight.Group // of the discovery: many who come at once ask once
}

// pendingSignIn is a sign-in under way. It is kept by the browser that began it, sealed, so that strangers who begin many sign-ins
// cannot push out anybody's.
type pendingSignIn struct {
	State    string    `json:"state"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"`
	Ends     time.Time `json:"ends"`
}

const (
	providerCookie = "provider"
	providerPath   = "/sign-in/"
	providerEnd    = 10 * time.Minute
	providerWithin = 10 * time.Second // an answer of the provider
	longestClaim   = 255              // of a subject, by OpenID Connect Core 1.0, section 2
)

// ProviderFromEnv reads OIDC_ISSUER, OIDC_CLIENT_ID, OIDC_REDIRECT_URL and, optionally, OIDC_CLIENT_SECRET_FILE; nil
// without OIDC_ISSUER.
func ProviderFromEnv(lookup env.Lookup, client *http.Client) (*Provider, error) {
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

// Host names the provider to people; empty without one.
func (p *Provider) Host() string {
	if p == nil {
		return ""
	}
	u, err := url.Parse(p.Issuer)
	if err != nil {
		return p.Issuer
	}
	return u.Host
}

// discover asks the provider who it is, once. Nobody waits for others than the provider, nor longer than ctx lasts.
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	p.mu.Lock()
	found := p.found
	p.mu.Unlock()
	if found == nil {
		asked := p.flight.DoChan("", func() (any, error) {
			// Its keys are fetched with this client for as long as the process lives, and many may wait for it, so not under a
			// request's context.
			ctx, cancel := context.WithTimeout(oidc.ClientContext(context.WithoutCancel(ctx), p.HTTP), providerWithin)
			defer cancel()
			found, err := oidc.NewProvider(ctx, p.Issuer)
			if err != nil {
				return nil, fmt.Errorf("discover provider of identities: %w", err)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.found = found
			return found, nil
		})
		select {
		case r := <-asked:
			if r.Err != nil {
				return nil, nil, r.Err
			}
			found = r.Val.(*oidc.Provider)
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("discover provider of identities: %w", ctx.Err())
		}
	}
	return found, &oauth2.Config{
		ClientID: p.Client, ClientSecret: p.Secret, Endpoint: found.Endpoint(), RedirectURL: p.Redirect, Scopes: []string{oidc.ScopeOpenID, "email", "profile"},
	}, nil
}

func beginSignIn(key cipher.AEAD, now time.Time) (cookie string, s pendingSignIn, err error) {
	s = pendingSignIn{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Ends: now.Add(providerEnd)}
	text, err := json.Marshal(s)
	if err != nil {
		return "", s, fmt.Errorf("begin sign-in: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(key.Seal(nil, nil, text, []byte(providerCookie))), s, nil
}

// endSignIn is what began with cookie, if it was begun with key and has not ended. That it is used once, the provider's code sees to,
// and the answer that takes the cookie away.
func endSignIn(key cipher.AEAD, cookie string, now time.Time) (s pendingSignIn, ok bool) {
	sealed, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil {
		return s, false
	}
	text, err := key.Open(nil, nil, sealed, []byte(providerCookie))
	if err != nil || json.Unmarshal(text, &s) != nil {
		return pendingSignIn{}, false
	}
	return s, now.Before(s.Ends)
}

// DoProvider sends the browser to the provider. It begins with a link, not with a form: the policy lets forms lead
// nowhere else.
func (a *Auth) DoProvider(req *site.Request) error {
	p := a.cfg.Provider
	if p == nil {
		return site.NotFound()
	}
	_, flow, err := p.discover(req.Ctx())
	if err != nil {
		return providerAway(err)
	}
	key, err := a.Store.SignInKey(req.Ctx())
	if err != nil {
		return err
	}
	cookie, s, err := beginSignIn(key, a.cfg.Now())
	if err != nil {
		return err
	}
	// Lax, because the browser comes back from another site. It is good for this one sign-in and nothing else.
	http.SetCookie(req.W, &http.Cookie{
		Name: providerCookie, Value: cookie, Path: providerPath, MaxAge: int(providerEnd.Seconds()), HttpOnly: true, Secure: req.R.TLS != nil, SameSite: http.SameSiteLaxMode,
	})
	http.Redirect(
		req.W,
		req.R,
		flow.AuthCodeURL(s.State, oidc.Nonce(s.Nonce), oauth2.S256ChallengeOption(s.Verifier)),
		http.StatusSeeOther,
	)
	return nil
}

func providerAway(err error) error {
	return site.Answer(
		err,
		httpjson.Errorf(http.StatusServiceUnavailable, "provider_away", "The provider of identities does not answer at the moment. A one-time link works all the same.").
			After(5*time.Second),
	)
}

// clip is a claim as it is kept: in a length that a claim of a provider by the book has.
func clip(claim string) string {
	return strings.ToValidUTF8(claim[:min(len(claim), longestClaim)], "")
}

// DoCallback takes the browser back from the provider.
func (a *Auth) DoCallback(req *site.Request) error {
	p := a.cfg.Provider
	if p == nil {
		return site.NotFound()
	}
	refuse := func(reason, words string) error {
		req.Wrong = reason == "bad_state" || reason == "bad_token"
		a.site.RecordRefusal(req, "", reason)
		return httpjson.Errorf(http.StatusForbidden, reason, "%s", words)
	}
	const again = "This sign-in was not begun here, or too long ago. Begin again."
	cookie, err := req.R.Cookie(providerCookie)
	if err != nil {
		return refuse("bad_state", again)
	}
	http.SetCookie(
		req.W,
		&http.Cookie{
			Name:     providerCookie,
			Path:     providerPath,
			MaxAge:   -1,
			HttpOnly: true,
			Secure:   req.R.TLS != nil,
			SameSite: http.SameSiteLaxMode,
		},
	)
	key, err := a.Store.SignInKey(req.Ctx())
	if err != nil {
		return err
	}
	s, ok := endSignIn(key, cookie.Value, a.cfg.Now())
	q := req.R.URL.Query()
	if !ok || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(s.State)) != 1 {
		return refuse("bad_state", again)
	}
	if q.Get("error") != "" || q.Get("code") == "" {
		return refuse("provider_refused", "The provider did not sign you in.")
	}
	who, err := p.exchange(req.Ctx(), q.Get("code"), s)
	var bad *badToken
	if errors.As(err, &bad) {
		a.cfg.Log.Warn("sign in by provider", "error", err.Error())
		return refuse("bad_token", "What the provider answered cannot be trusted. Nobody was signed in.")
	}
	if err != nil {
		return providerAway(err)
	}
	signed := site.Principal{Via: "provider " + p.Host(), Subject: clip(who.Subject)}
	if who.Verified {
		signed.Email = clip(who.Email) // one that is not verified could be anybody's
	}
	switch {
	case slices.Contains(who.Roles, site.RoleAdmin):
		signed.Role = site.RoleAdmin
	case slices.Contains(who.Roles, site.RoleInstructor):
		signed.Role = site.RoleInstructor
	case !bool(who.Verified) || who.Email == "":
		return refuse("email_not_verified", "The provider has not verified your email address, so it says nothing about who you are.")
	default:
		people, err := a.scorer.People()
		if err != nil {
			return site.Unavailable(err)
		}
		i := slices.IndexFunc(people, func(x risk.Standing) bool { return strings.EqualFold(x.Email, who.Email) })
		if i < 0 {
			return refuse("not_in_roster", "The roster lists nobody with your email address.")
		}
		signed.Role, signed.Person = site.RolePerson, people[i].ID
	}
	if err := a.Store.Record(req.Ctx(), audited.Note("sign_in", signed.Person, "", signed)); err != nil {
		return err
	}
	if err := a.signIn(req.Ctx(), signed); err != nil {
		return err
	}
	// A redirect would still be the other site's navigation, on which the session's cookie is not sent: the page itself goes on.
	req.W.Header().Set("Refresh", "0; url=/")
	req.Viewer = nil
	return a.site.Render(req, "signin", "Signed in", "", signInView{Done: true})
}

// badToken is an answer of the provider that does not hold.
type badToken struct{ cause error }

func (b *badToken) Error() string { return fmt.Sprintf("bad token: %v", b.cause) }

func (b *badToken) Unwrap() error { return b.cause }

// exchange redeems a code and verifies the ID token: its signature, issuer, audience, authorized party, life and nonce.
// What the token does not say of the person is asked for at the provider.
func (p *Provider) exchange(ctx context.Context, code string, s pendingSignIn) (claims, error) {
	var c claims
	found, flow, err := p.discover(ctx)
	if err != nil {
		return c, err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.HTTP), providerWithin)
	defer cancel()
	token, err := flow.Exchange(ctx, code, oauth2.VerifierOption(s.Verifier))
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
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(s.Nonce)) != 1 {
		return c, &badToken{errors.New("another nonce")}
	}
	if err := authorized(id, p.Client); err != nil {
		return c, &badToken{err}
	}
	if err := id.Claims(&c); err != nil {
		return c, &badToken{err}
	}
	if c.Subject == "" {
		return c, &badToken{errors.New("no subject")}
	}
	return c, p.complete(ctx, found, token, &c)
}
