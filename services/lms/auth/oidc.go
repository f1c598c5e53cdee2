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

// Provider is an OpenID provider. It signs people in by the authorization code flow with PKCE (RFC 7636) and a nonce.
// The claim "roles" makes an instructor or admin; any other user is the person of the roster with the verified email
// address.
type Provider struct {
	Issuer   string       // an https URL, as the provider's discovery document has it
	Client   string       // client id
	Secret   string       // client secret; empty for a public client
	Redirect string       // URL of /sign-in/callback for browsers
	HTTP     *http.Client // for requests to the provider

	mu     sync.Mutex
	found  *oidc.Provider
	flight singleflight.Group // concurrent sign-ins share one discovery
}

// pendingSignIn is the state of a sign-in between the redirect to the provider and the callback. It is kept in an
// encrypted cookie and not in memory, so that many pending sign-ins cannot displace others.
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
	providerWithin = 10 * time.Second // timeout of a request to the provider
	longestClaim   = 255              // limit of a subject by OpenID Connect Core 1.0, section 2
)

// ProviderFromEnv reads OIDC_ISSUER, OIDC_CLIENT_ID, OIDC_REDIRECT_URL and, optionally, OIDC_CLIENT_SECRET_FILE. It
// returns nil without OIDC_ISSUER.
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

// Host is the provider's host, by which pages name it; empty for nil.
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

// discover reads the provider's discovery document, until it has succeeded once. It returns when ctx ends, even if
// other callers still wait.
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	p.mu.Lock()
	found := p.found
	p.mu.Unlock()
	if found == nil {
		asked := p.flight.DoChan("", func() (any, error) {
			// The context of one request must not end what others wait for. oidc keeps the client to fetch keys later.
			ctx, cancel := context.WithTimeout(oidc.ClientContext(context.WithoutCancel(ctx), p.HTTP), providerWithin)
			defer cancel()
			found, err := oidc.NewProvider(ctx, p.Issuer)
			if err != nil {
				return nil, fmt.Errorf("discover OpenID provider: %w", err)
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
			return nil, nil, fmt.Errorf("discover OpenID provider: %w", ctx.Err())
		}
	}
	return found, &oauth2.Config{
		ClientID: p.Client, ClientSecret: p.Secret, Endpoint: found.Endpoint(), RedirectURL: p.Redirect,
		Scopes: []string{oidc.ScopeOpenID, "email", "profile"},
	}, nil
}

// beginSignIn returns the state of a new sign-in and its cookie.
func beginSignIn(key cipher.AEAD, now time.Time) (cookie string, s pendingSignIn, err error) {
	s = pendingSignIn{
		State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Ends: now.Add(providerEnd),
	}
	text, err := json.Marshal(s)
	if err != nil {
		return "", s, fmt.Errorf("begin sign-in: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(key.Seal(nil, nil, text, []byte(providerCookie))), s, nil
}

// endSignIn decrypts the cookie of a sign-in; false if it was not made with key or has expired. The provider ensures
// that a sign-in completes only once: it redeems a code once.
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

// DoProvider redirects the browser to the provider. The page has a link for it and not a form, because the policy
// restricts forms to this site.
func (a *Auth) DoProvider(req *site.Request) error {
	p := a.cfg.Provider
	if p == nil {
		return site.NotFound()
	}
	_, flow, err := p.discover(req.Ctx())
	if err != nil {
		return providerUnavailable(err)
	}
	key, err := a.Store.SignInKey(req.Ctx())
	if err != nil {
		return err
	}
	cookie, s, err := beginSignIn(key, a.cfg.Now())
	if err != nil {
		return err
	}
	setProviderCookie(req, cookie, int(providerEnd.Seconds()))
	address := flow.AuthCodeURL(s.State, oidc.Nonce(s.Nonce), oauth2.S256ChallengeOption(s.Verifier))
	http.Redirect(req.W, req.R, address, http.StatusSeeOther)
	return nil
}

// setProviderCookie keeps the pending sign-in in the browser for seconds; a negative number deletes it. The cookie is
// Lax, because the browser returns from another site.
func setProviderCookie(req *site.Request, value string, seconds int) {
	http.SetCookie(req.W, &http.Cookie{
		Name: providerCookie, Value: value, Path: providerPath, MaxAge: seconds,
		HttpOnly: true, Secure: req.R.TLS != nil, SameSite: http.SameSiteLaxMode,
	})
}

func providerUnavailable(err error) error {
	return site.Answer(err, httpjson.Errorf(http.StatusServiceUnavailable, "provider_away",
		"The OpenID provider does not answer at the moment. You can sign in by a one-time link.").After(5*time.Second))
}

// clip cuts a claim to the length that the specification allows for a subject.
func clip(claim string) string {
	return strings.ToValidUTF8(claim[:min(len(claim), longestClaim)], "")
}

// DoCallback completes a sign-in when the browser returns from the provider. 403 if it was not begun in this browser,
// or the provider does not vouch for a known user; 503 if the provider or the roster is not available.
func (a *Auth) DoCallback(req *site.Request) error {
	p := a.cfg.Provider
	if p == nil {
		return site.NotFound()
	}
	pending, err := a.pendingOf(req)
	if err != nil {
		return err
	}
	q := req.R.URL.Query()
	if q.Get("error") != "" || q.Get("code") == "" {
		return a.refuseCallback(req, "provider_refused", "The provider did not sign you in.")
	}
	user, err := p.exchange(req.Ctx(), q.Get("code"), pending)
	var bad *badToken
	if errors.As(err, &bad) {
		a.cfg.Log.Warn("sign in by provider", "error", err.Error())
		return a.refuseCallback(req, "bad_token", "The provider's answer is not valid. You were not signed in.")
	}
	if err != nil {
		return providerUnavailable(err)
	}
	principal, err := a.principalByClaims(req, user)
	if err != nil {
		return err
	}
	if err := a.Store.Record(req.Ctx(), audited.Note("sign_in", principal.Person, "", principal)); err != nil {
		return err
	}
	if err := a.signIn(req.Ctx(), principal); err != nil {
		return err
	}
	// A redirect would belong to the other site's navigation, for which browsers do not send a Strict cookie.
	req.W.Header().Set("Refresh", "0; url=/")
	req.Viewer = nil
	return a.site.Render(req, "signin", "Signed in", "", signInView{Done: true})
}

// pendingOf returns the sign-in that the callback completes, and deletes its cookie.
func (a *Auth) pendingOf(req *site.Request) (pendingSignIn, error) {
	const again = "This sign-in was not begun in this browser, or too long ago. Begin again."
	cookie, err := req.R.Cookie(providerCookie)
	if err != nil {
		return pendingSignIn{}, a.refuseCallback(req, "bad_state", again)
	}
	setProviderCookie(req, "", -1)
	key, err := a.Store.SignInKey(req.Ctx())
	if err != nil {
		return pendingSignIn{}, err
	}
	s, ok := endSignIn(key, cookie.Value, a.cfg.Now())
	state := req.R.URL.Query().Get("state")
	if !ok || subtle.ConstantTimeCompare([]byte(state), []byte(s.State)) != 1 {
		return s, a.refuseCallback(req, "bad_state", again)
	}
	return s, nil
}

// refuseCallback records a refused callback. A wrong state or token counts as a failed guess.
func (a *Auth) refuseCallback(req *site.Request, reason, message string) error {
	req.GuessFailed = reason == "bad_state" || reason == "bad_token"
	a.site.RecordRefusal(req, "", reason)
	return httpjson.Errorf(http.StatusForbidden, reason, "%s", message)
}

// principalByClaims is the user that the provider's claims describe: by role, else by verified email address.
func (a *Auth) principalByClaims(req *site.Request, user claims) (site.Principal, error) {
	p := site.Principal{Via: "provider " + a.cfg.Provider.Host(), Subject: clip(user.Subject)}
	if user.Verified {
		p.Email = clip(user.Email)
	}
	switch {
	case slices.Contains(user.Roles, site.RoleAdmin):
		p.Role = site.RoleAdmin
	case slices.Contains(user.Roles, site.RoleInstructor):
		p.Role = site.RoleInstructor
	case !bool(user.Verified) || user.Email == "":
		return p, a.refuseCallback(req, "email_not_verified",
			"The provider has not verified your email address, so it does not tell who you are.")
	default:
		people, err := a.scorer.People()
		if err != nil {
			return p, site.Unavailable(err)
		}
		i := slices.IndexFunc(people, func(s risk.Standing) bool { return strings.EqualFold(s.Email, user.Email) })
		if i < 0 {
			return p, a.refuseCallback(req, "not_in_roster", "The roster lists no person with your email address.")
		}
		p.Role, p.Person = site.RolePerson, people[i].ID
	}
	return p, nil
}

// badToken is an error for an answer of the provider that is not valid.
type badToken struct{ cause error }

func (b *badToken) Error() string { return fmt.Sprintf("bad token: %v", b.cause) }

func (b *badToken) Unwrap() error { return b.cause }

// exchange redeems a code and verifies the ID token: its signature, issuer, audience, authorized party, lifetime and
// nonce. It adds the claims of the UserInfo endpoint. It returns a *badToken for an answer that is not valid.
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
		return c, &badToken{errors.New("wrong nonce")}
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
