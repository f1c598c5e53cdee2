// Package site serves web pages: access control, security headers, forms, error pages, compression, server-sent events,
// templates and assets. The content of the pages is in other packages.
package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/mesh"
)

// Config is what a Site needs.
type Config struct {
	Recognise       func(*Request) error      // sets the viewer; an error is answered instead of the page
	Refusals        func(audit.Entry)         // receives every refusal; may be nil
	UnknownRefusals func(string, audit.Entry) // receives those of unknown users, with remote address; nil: Refusals does
	Words           []template.FuncMap        // more functions for the templates
	Dir             string                    // where pages are read from at each request; empty: those built in

	// Certificate returns the verified client certificate of a request; nil: mesh.PersonOf.
	Certificate func(*http.Request) (mesh.Certificate, bool)

	Log *slog.Logger
}

// Site serves pages. Its methods are safe for concurrent use.
type Site struct {
	cfg     Config
	builtIn *templates
	pages   pages // builtIn, or a folder
	limiter *limiter
}

// New returns a site with its templates parsed.
func New(cfg Config) (*Site, error) {
	builtIn, err := loadTemplates(files, cfg.Words...)
	if err != nil {
		return nil, err
	}
	s := &Site{cfg: cfg, builtIn: builtIn, pages: builtIn, limiter: newLimiter(time.Now)}
	if cfg.Dir != "" {
		s.pages = &folder{dir: cfg.Dir, words: cfg.Words}
		cfg.Log.Warn("templates and static files are read from a folder", "folder", cfg.Dir)
	}
	return s, nil
}

// Page is one route for people: a pattern of http.ServeMux, who may request it, and its handler.
type Page struct {
	Pattern string
	Access  Access
	Show    func(*Request) error
}

// Request is one request for a page.
type Request struct {
	W           http.ResponseWriter
	R           *http.Request
	Viewer      *Viewer           // nil: the request has no session
	Stale       *riskclient.Stale // set if the roster is an old answer of the risk scorer
	Status      int               // status of the answer; 0: 200
	GuessFailed bool              // set by the handler; see limiter.begin
}

// Ctx is the request's context.
func (req *Request) Ctx() context.Context { return req.R.Context() }

// Policy is the Content-Security-Policy of every page: styles, scripts, images, requests and forms of this site only.
const Policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Handler serves pages and assets. It wraps each page in session. Failed requests to the patterns in guessable are
// rate-limited. Every answer has the security headers.
func (s *Site) Handler(pages []Page, guessable map[string]bool, session func(http.Handler) http.Handler) http.Handler {
	mux := http.NewServeMux()
	for _, p := range pages {
		mux.Handle(p.Pattern, session(s.page(p, guessable[p.Pattern])))
	}
	mux.HandleFunc("GET /static/{file}", s.serveAsset)
	nothing := Page{Pattern: "/", Access: Anyone, Show: func(*Request) error { return NotFound() }}
	mux.Handle("/", session(s.page(nothing, false)))
	return headers(compressed(s.sameSite(mux)))
}

// sameSite refuses requests that other sites make with the user's cookies.
func (s *Site) sameSite(next http.Handler) http.Handler {
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Fail(&Request{W: w, R: r}, httpjson.Errorf(http.StatusForbidden, "cross_site",
			"This request came from another site. Nothing was changed."))
	}))
	return guard.Handler(next)
}

// headers sets the security headers.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", Policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// longestForm is the most bytes of a form.
const longestForm = 64 << 10

// page is the handler of p. It answers an error or a panic with an error page.
func (s *Site) page(p Page, guessable bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := &Request{W: w, R: r}
		defer s.recovered(req)
		if err := s.serve(p, guessable, req); err != nil {
			s.Fail(req, err)
		}
	})
}

// recovered answers a panic as an error. http.ErrAbortHandler is for net/http.
func (s *Site) recovered(req *Request) {
	x := recover()
	switch {
	case x == nil:
	case x == http.ErrAbortHandler: //nolint:errorlint // net/http compares it so
		panic(x)
	default:
		s.Fail(req, fmt.Errorf("panic: %v\n%s", x, debug.Stack()))
	}
}

// serve checks the address, the viewer and the form, in this order, and then shows p.
func (s *Site) serve(p Page, guessable bool, req *Request) error {
	if err := httpjson.Address(req.R); err != nil {
		return err
	}
	if err := s.cfg.Recognise(req); err != nil {
		return err
	}
	if err := s.admit(p, req); err != nil {
		return err
	}
	if req.R.Method == http.MethodPost {
		if err := readForm(req.W, req.R); err != nil {
			return err
		}
	}
	if guessable {
		return s.limited(p, req)
	}
	return p.Show(req)
}

// limited shows p, unless too many requests of the same address have failed.
func (s *Site) limited(p Page, req *Request) error {
	right, err := s.limiter.begin(req.R.RemoteAddr)
	if err != nil {
		req.Viewer = nil
		s.RecordRefusal(req, "", "too_many_failures")
		return err
	}
	err = p.Show(req)
	if !req.GuessFailed {
		right()
	}
	return err
}

// readForm parses a form: 415 for another media type, 413 for one that is too long, 400 for one that cannot be read.
func readForm(w http.ResponseWriter, r *http.Request) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil ||
		t != "application/x-www-form-urlencoded" {
		return httpjson.Errorf(
			http.StatusUnsupportedMediaType,
			"content_type",
			"Send this page's form, not %q.",
			r.Header.Get("Content-Type"),
		)
	}
	r.Body = http.MaxBytesReader(w, r.Body, longestForm)
	if err := r.ParseForm(); err != nil {
		var long *http.MaxBytesError
		if errors.As(err, &long) {
			return err
		}
		return httpjson.Errorf(http.StatusBadRequest, "bad_form", "The form cannot be read.")
	}
	return httpjson.Values(r.PostForm)
}

// admit checks the viewer's role: 401 without a session, 403 for another role.
func (s *Site) admit(p Page, req *Request) error {
	if req.Viewer.may(p.Access) {
		return nil
	}
	if req.Viewer == nil {
		return errSignIn
	}
	s.RecordRefusal(req, req.Viewer.Person, "not_for_this_role")
	return httpjson.Errorf(http.StatusForbidden, "not_for_this_role", "This page is not for your role.")
}

// RecordRefusal records that a request was refused, with its route and certificate. The person is empty if unknown.
func (s *Site) RecordRefusal(req *Request, person, reason string) {
	if s.cfg.Refusals == nil {
		return
	}
	route := req.R.Pattern
	if route == "" {
		route = req.R.Method
	}
	e := audit.Entry{Kind: "page", Person: person, Route: route, Outcome: "Forbidden", Reason: reason}
	if c, ok := s.Certificate(req.R); ok {
		e.Serial = c.Serial // of the certificate that was presented
	}
	if req.Viewer == nil && person == "" && s.cfg.UnknownRefusals != nil {
		s.cfg.UnknownRefusals(req.R.RemoteAddr, e)
		return
	}
	s.cfg.Refusals(e)
}

// Render answers with the page of the template name. at is the path of the navigation entry that the page belongs to.
func (s *Site) Render(req *Request, name, title, at string, model any) error {
	return s.render(s.pages, req, name, title, at, model)
}

func (s *Site) render(from pages, req *Request, name, title, at string, model any) error {
	var b bytes.Buffer
	frame := frame{Title: title, Viewer: req.Viewer, Model: model}
	if req.Stale != nil {
		frame.Stale = ScorerUnavailable + ". Its data is missing on this page."
		if !req.Stale.Since.IsZero() {
			frame.Stale = ScorerUnavailable + ". Names and scores are those of " +
				req.Stale.Since.UTC().Format("15:04:05") + " UTC."
		}
	}
	if req.Viewer != nil {
		frame.Nav = navigation(req.Viewer, at)
	}
	if err := execute(from, &b, name, frame); err != nil {
		if s.cfg.Dir != "" {
			return &brokenTemplate{err}
		}
		return err
	}
	req.W.Header().Set("Content-Type", "text/html; charset=utf-8")
	req.W.WriteHeader(max(req.Status, http.StatusOK))
	_, err := req.W.Write(removeInvisible(b.Bytes()))
	if err != nil && req.Ctx().Err() == nil {
		s.cfg.Log.Debug("send page", "error", err.Error())
	}
	return nil // the status is sent: an error page is no longer possible
}

// Redirect answers with a redirect to path by GET.
func (req *Request) Redirect(path string) error {
	http.Redirect(req.W, req.R, path, http.StatusSeeOther)
	return nil
}

// frame is the model of the layout around a page.
type frame struct {
	Title  string
	Viewer *Viewer
	Nav    []navItem
	Stale  string
	Model  any
}

type navItem struct {
	Path, Name, Icon string
	Here             string // value of aria-current: "page" for the current entry, else empty
}

// navigation lists the entries for a viewer's roles. The current one has the path at.
func navigation(v *Viewer, at string) []navItem {
	var list []navItem
	add := func(path, name, icon string) {
		item := navItem{Path: path, Name: name, Icon: icon}
		if path == at {
			item.Here = "page"
		}
		list = append(list, item)
	}
	if v.Learner() {
		add("/", "My risk", "risk")
		add("/training", "My training", "training")
		add("/mailbox", "Mailbox", "mail")
	}
	if v.Leader() {
		add("/team", "My team", "team")
	}
	if v.Instructor() {
		add("/console", "Console", "exercises")
		add("/organisation", "Organisation", "organisation")
		add("/people", "People", "team")
		add("/exercises", "Exercises", "exercises")
		add("/drills", "Drills", "mail")
		add("/audit", "Audit", "audit")
	}
	return list
}

// Certificate returns the verified client certificate of a request, if it has one.
func (s *Site) Certificate(r *http.Request) (mesh.Certificate, bool) {
	if s.cfg.Certificate == nil {
		return mesh.PersonOf(r)
	}
	return s.cfg.Certificate(r)
}
