// Package site serves pages to people: who may see one, sessions' headers, forms, errors, compression, streams, and the
// templates and assets. What the pages are about is the other packages' matter.
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
	Recognise func(*Request) error      // sets who asks; an error is answered in place of the page
	Decisions func(audit.Entry)         // gets every refusal; nil: nobody does
	Turned    func(string, audit.Entry) // gets those of people who are not known, with where they come from; nil: Decisions does
	Words     []template.FuncMap        // functions that templates know besides the site's own
	Dir       string                    // read templates and static files from here at each request; empty: those built in

	// Certificate is what a browser has proven by TLS; nil: mesh.PersonOf.
	Certificate func(*http.Request) (mesh.Certificate, bool)

	Log *slog.Logger
}

// Site serves pages. Its methods are safe for concurrent use.
type Site struct {
	cfg     Config
	builtIn *templates
	pages   pages // builtIn, or a folder
	brake   *brake
}

// New makes a site with all its templates.
func New(cfg Config) (*Site, error) {
	builtIn, err := loadTemplates(files, cfg.Words...)
	if err != nil {
		return nil, err
	}
	s := &Site{cfg: cfg, builtIn: builtIn, pages: builtIn, brake: newBrake(time.Now)}
	if cfg.Dir != "" {
		s.pages = &folder{dir: cfg.Dir, words: cfg.Words}
		cfg.Log.Warn("templates and static files are read from a folder", "folder", cfg.Dir)
	}
	return s, nil
}

// Page is one row of the people's routes.
type Page struct {
	Pattern string
	Access  Access
	Show    func(*Request) error
}

// Request is one request for a page.
type Request struct {
	W      http.ResponseWriter
	R      *http.Request
	Viewer *Viewer           // nil: nobody is signed in
	Stale  *riskclient.Stale // set when the roster is an old one
	Status int               // of the answer; 0: 200
	Wrong  bool              // what was asked with was a guess that failed
}

// Ctx is the request's context.
func (v *Request) Ctx() context.Context { return v.R.Context() }

// Policy lets a page load its own style, picture and script, ask its own address again and send its own forms, and
// nothing else.
const Policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Handler serves pages, each within a session, and the assets. Guessable are the patterns of pages at which a stranger
// could try what they do not know: what fails there is counted. Every answer, whatever it says, has the headers of
// headers.
func (s *Site) Handler(pages []Page, guessable map[string]bool, session func(http.Handler) http.Handler) http.Handler {
	mux := http.NewServeMux()
	for _, p := range pages {
		mux.Handle(p.Pattern, session(s.page(p, guessable[p.Pattern])))
	}
	mux.HandleFunc("GET /static/{file}", s.serveAsset)
	mux.Handle(
		"/",
		session(s.page(Page{Pattern: "/", Access: Anyone, Show: func(*Request) error { return NotFound() }}, false)),
	)
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Fail(
			&Request{W: w, R: r},
			httpjson.Errorf(http.StatusForbidden, "cross_site", "This request came from another site. Nothing was done."),
		)
	}))
	return headers(compressed(guard.Handler(mux)))
}

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

// longestForm is what a form may hold.
const longestForm = 64 << 10

// page decides who may, then shows.
func (s *Site) page(p Page, guessable bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &Request{W: w, R: r}
		defer func() {
			if x := recover(); x != nil {
				if x == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
					panic(x)
				}
				s.Fail(v, fmt.Errorf("panic: %v\n%s", x, debug.Stack()))
			}
		}()
		err := httpjson.Address(r)
		if err == nil {
			err = s.cfg.Recognise(v)
		}
		if err == nil {
			err = s.admit(p, v)
		}
		if err == nil && r.Method == http.MethodPost {
			err = readForm(w, r)
		}
		if err == nil {
			err = s.braked(p, guessable, v)
		}
		if err != nil {
			s.Fail(v, err)
		}
	})
}

// braked shows p, unless it could be guessed at and too much failed there from where v comes.
func (s *Site) braked(p Page, guessable bool, v *Request) error {
	if !guessable {
		return p.Show(v)
	}
	right, err := s.brake.begin(v.R.RemoteAddr)
	if err != nil {
		v.Viewer = nil
		s.RecordRefusal(v, "", "too_many_failures")
		return err
	}
	err = p.Show(v)
	if !v.Wrong {
		right()
	}
	return err
}

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

func (s *Site) admit(p Page, v *Request) error {
	if v.Viewer.may(p.Access) {
		return nil
	}
	if v.Viewer == nil {
		return errSignIn
	}
	s.RecordRefusal(v, v.Viewer.Person, "not_for_this_role")
	return httpjson.Errorf(http.StatusForbidden, "not_for_this_role", "This page is not for your role.")
}

// RecordRefusal records that somebody was turned away.
func (s *Site) RecordRefusal(v *Request, person, reason string) {
	if s.cfg.Decisions == nil {
		return
	}
	route := v.R.Pattern
	if route == "" {
		route = v.R.Method
	}
	e := audit.Entry{Kind: "page", Person: person, Route: route, Outcome: "Forbidden", Reason: reason}
	if c, ok := s.Certificate(v.R); ok {
		e.Serial = c.Serial // of what was shown: the person's certificate
	}
	if v.Viewer == nil && person == "" && s.cfg.Turned != nil {
		s.cfg.Turned(v.R.RemoteAddr, e)
		return
	}
	s.cfg.Decisions(e)
}

// Render answers with a page: title and which entry of the navigation it belongs to.
func (s *Site) Render(v *Request, name, title, at string, model any) error {
	return s.render(s.pages, v, name, title, at, model)
}

func (s *Site) render(from pages, v *Request, name, title, at string, model any) error {
	var b bytes.Buffer
	frame := frame{Title: title, Viewer: v.Viewer, Model: model}
	if v.Stale != nil {
		frame.Stale = "The risk scorer does not answer at the moment. What it provides is missing here."
		if !v.Stale.Since.IsZero() {
			frame.Stale = "The risk scorer does not answer at the moment. Names and scores are those of " + v.Stale.Since.UTC().
				Format("15:04:05") +
				" UTC."
		}
	}
	if v.Viewer != nil {
		frame.Nav = navigation(v.Viewer, at)
	}
	if err := execute(from, &b, name, frame); err != nil {
		if s.cfg.Dir != "" {
			return &brokenTemplate{err}
		}
		return err
	}
	v.W.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.W.WriteHeader(max(v.Status, http.StatusOK))
	_, err := v.W.Write(plainly(b.Bytes()))
	if err != nil && v.Ctx().Err() == nil {
		s.cfg.Log.Debug("send page", "error", err.Error())
	}
	return nil // the status is out: nothing more can be told
}

// Redirect sends the browser on, by GET.
func (v *Request) Redirect(path string) error {
	http.Redirect(v.W, v.R, path, http.StatusSeeOther)
	return nil
}

// frame is what is around a page.
type frame struct {
	Title  string
	Viewer *Viewer
	Nav    []navItem
	Stale  string
	Model  any
}

type navItem struct {
	Path, Name, Icon string
	Here             string // "page" for the entry that is open, else empty: the value of aria-current
}

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

// Certificate is what the browser has proven by TLS to hold, if it has.
func (s *Site) Certificate(r *http.Request) (mesh.Certificate, bool) {
	if s.cfg.Certificate == nil {
		return mesh.PersonOf(r)
	}
	return s.cfg.Certificate(r)
}
