// Package auth finds out who asks: by a link that works once, a certificate that the browser shows, or a provider of
// identities. It keeps sessions, ends them, and turns revoked certificates away.
package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/alexedwards/scs/v2"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
)

// Config is what Auth needs.
type Config struct {
	Provider *Provider        // of identities, by OpenID Connect; nil: none
	Now      func() time.Time // the wall clock
	Log      *slog.Logger
}

// Auth serves the pages of signing in, and tells who asks for any other. Its methods are safe for concurrent use.
type Auth struct {
	Store    *Store
	cfg      Config
	scorer   *riskclient.Client
	site     *site.Site
	sessions *scs.SessionManager
}

// New makes an Auth. Serve is to be called before the first page is served.
func New(cfg Config, db *store.Store, scorer *riskclient.Client) *Auth {
	return &Auth{Store: &Store{db}, cfg: cfg, scorer: scorer, sessions: newSessions(db.Pool)}
}

// Serve tells which site the pages are of: a site in its turn asks Recognise.
func (a *Auth) Serve(pages *site.Site) { a.site = pages }

type signInView struct {
	Token string // to be sent back by the form; empty: nobody brought one
	Used  bool   // the one sent does not work any more

	Done        bool   // the browser goes on by itself
	Certificate string // whose certificate the browser shows, if it shows one
	Provider    string // the host of the provider of identities, if there is one
}

var tokenPattern = regexp.MustCompile(`^[A-Z2-7]{26,64}$`)

// ShowSignIn shows a button. Only pressing it uses the link up: previews of links, and scanners of mail, only look.
func (a *Auth) ShowSignIn(req *site.Request) error {
	token := req.R.URL.Query().Get("token")
	if token == "" && req.Viewer != nil {
		return req.Redirect("/")
	}
	m := a.door(req)
	if tokenPattern.MatchString(token) {
		m.Token = token
	} else if token != "" {
		m.Used = true
	}
	req.Viewer = nil // whoever is signed in already: this page is about the link
	return a.site.Render(req, "signin", "Sign in", "", m)
}

// door is how else one may come in.
func (a *Auth) door(req *site.Request) signInView {
	m := signInView{Provider: a.cfg.Provider.Host()}
	if c, ok := a.site.Certificate(req.R); ok {
		m.Certificate = c.Name
	}
	return m
}

// DoCertificate signs in whom the browser's certificate names: somebody of the roster, or a role that is nobody's own.
func (a *Auth) DoCertificate(req *site.Request) error {
	c, ok := a.site.Certificate(req.R)
	if !ok {
		a.site.RecordRefusal(req, "", "no_certificate")
		return httpjson.Errorf(
			http.StatusForbidden,
			"no_certificate",
			"Your browser shows no certificate here. Import the file that you were given, and come in by the address with https.",
		)
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
		if !slices.ContainsFunc(people, func(s risk.Standing) bool { return s.ID == c.Name }) {
			a.site.RecordRefusal(req, c.Name, "not_in_roster")
			return httpjson.Errorf(
				http.StatusForbidden,
				"not_in_roster",
				"The roster does not list who your certificate is for.",
			)
		}
	default:
		a.site.RecordRefusal(req, c.Name, "no_role")
		return httpjson.Errorf(http.StatusForbidden, "no_role", "Your certificate names no role.")
	}
	return a.welcome(req, p)
}

// welcome begins a session, with its audit row.
func (a *Auth) welcome(req *site.Request, p site.Principal) error {
	if err := a.Store.Record(req.Ctx(), audited.Note("sign_in", p.Person, "", p)); err != nil {
		return err
	}
	if err := a.signIn(req.Ctx(), p); err != nil {
		return err
	}
	return req.Redirect("/")
}

// DoSignIn uses a link up and begins a session; 403 for one that is unknown, used or too old.
func (a *Auth) DoSignIn(req *site.Request) error {
	token := req.R.PostForm.Get("token")
	p, err := site.Principal{}, store.ErrNotFound
	if tokenPattern.MatchString(token) {
		p, err = a.Store.useLink(req.Ctx(), token, a.cfg.Now())
	}
	if errors.Is(err, store.ErrNotFound) {
		req.Wrong = true
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
	if err := a.Store.Record(req.Ctx(), audited.Note("sign_out", req.Viewer.Person, "", req.Viewer.Principal)); err != nil {
		return err
	}
	if err := a.sessions.Destroy(req.Ctx()); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return req.Redirect("/sign-in")
}
