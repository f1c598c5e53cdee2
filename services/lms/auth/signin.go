// Package auth authenticates people: by a one-time link, a client certificate, or an OpenID provider. It keeps sessions
// and refuses revoked certificates.
package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"time"

	"github.com/alexedwards/scs/v2"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/postgres/audited"
)

// Config is what Auth needs.
type Config struct {
	Provider *Provider        // OpenID provider; nil: none
	Now      func() time.Time // the wall clock
	Log      *slog.Logger
}

// Auth serves the sign-in pages and identifies the viewer of every other page. Its methods are safe for concurrent use.
type Auth struct {
	Store    *Store
	cfg      Config
	scorer   *riskclient.Client
	site     *site.Site
	sessions *scs.SessionManager
}

// New returns an Auth. Serve must be called before the first request.
func New(cfg Config, db *store.Store, scorer *riskclient.Client) *Auth {
	return &Auth{Store: &Store{db}, cfg: cfg, scorer: scorer, sessions: newSessions(db.Pool)}
}

// Serve sets the site that renders the pages. It is not an argument of New, since the site needs Recognise.
func (a *Auth) Serve(pages *site.Site) { a.site = pages }

type signInView struct {
	Token string // of the link, for the form; empty: none
	Used  bool   // the link's token is no longer valid

	Done        bool   // signed in; the browser is redirected
	Certificate string // name in the client certificate, if there is one
	Provider    string // host of the OpenID provider, if there is one
}

var tokenPattern = regexp.MustCompile(`^[A-Z2-7]{26,64}$`)

// ShowSignIn shows a button that signs in. A GET does not use up the link, because mail scanners and link previews
// request it, too.
func (a *Auth) ShowSignIn(req *site.Request) error {
	token := req.R.URL.Query().Get("token")
	if token == "" && req.Viewer != nil {
		return req.Redirect("/")
	}
	m := a.signInViewOf(req)
	if tokenPattern.MatchString(token) {
		m.Token = token
	} else if token != "" {
		m.Used = true
	}
	req.Viewer = nil // the page is about the link, not about the current session
	return a.site.Render(req, "signin", "Sign in", "", m)
}

// signInViewOf lists the ways to sign in without a link.
func (a *Auth) signInViewOf(req *site.Request) signInView {
	m := signInView{Provider: a.cfg.Provider.Host()}
	if c, ok := a.site.Certificate(req.R); ok {
		m.Certificate = c.Name
	}
	return m
}

// DoCertificate signs in by client certificate: a person of the roster, an instructor or an admin. 403 for any other.
func (a *Auth) DoCertificate(req *site.Request) error {
	c, ok := a.site.Certificate(req.R)
	if !ok {
		a.site.RecordRefusal(req, "", "no_certificate")
		return httpjson.Errorf(http.StatusForbidden, "no_certificate",
			"Your browser did not send a certificate. Import the file that you were given, and use the https address.")
	}
	p := site.Principal{Role: c.Role, Via: "certificate", Certificate: c.Serial}
	switch c.Role {
	case site.RoleInstructor, site.RoleAdmin:
	case site.RolePerson:
		p.Person = c.Name
		people, err := a.scorer.People()
		if err != nil {
			return site.Unavailable(err)
		}
		if !listed(people, c.Name) {
			a.site.RecordRefusal(req, c.Name, "not_in_roster")
			return httpjson.Errorf(http.StatusForbidden, "not_in_roster",
				"The roster does not list the person in your certificate.")
		}
	default:
		a.site.RecordRefusal(req, c.Name, "no_role")
		return httpjson.Errorf(http.StatusForbidden, "no_role", "Your certificate names no role.")
	}
	return a.beginAudited(req, p)
}

// beginAudited writes the audit row of a sign-in, begins the session and redirects to the first page.
func (a *Auth) beginAudited(req *site.Request, p site.Principal) error {
	if err := a.Store.Record(req.Ctx(), audited.Note("sign_in", p.Person, "", p)); err != nil {
		return err
	}
	if err := a.signIn(req.Ctx(), p); err != nil {
		return err
	}
	return req.Redirect("/")
}

// DoSignIn uses a link and begins a session; 403 if the link is unknown, used or expired.
func (a *Auth) DoSignIn(req *site.Request) error {
	token := req.R.PostForm.Get("token")
	p, err := site.Principal{}, store.ErrNotFound
	if tokenPattern.MatchString(token) {
		p, err = a.Store.useLink(req.Ctx(), token, a.cfg.Now())
	}
	if errors.Is(err, store.ErrNotFound) {
		req.GuessFailed = true
		a.site.RecordRefusal(req, "", "bad_link")
		req.Status, req.Viewer = http.StatusForbidden, nil
		return a.site.Render(req, "signin", "Sign in", "", signInView{Used: true})
	}
	if err != nil {
		return err
	}
	if err := a.signIn(req.Ctx(), p); err != nil {
		return err
	}
	return req.Redirect("/")
}

// DoSignOut ends the session.
func (a *Auth) DoSignOut(req *site.Request) error {
	row := audited.Note("sign_out", req.Viewer.Person, "", req.Viewer.Principal)
	if err := a.Store.Record(req.Ctx(), row); err != nil {
		return err
	}
	if err := a.sessions.Destroy(req.Ctx()); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return req.Redirect("/sign-in")
}
