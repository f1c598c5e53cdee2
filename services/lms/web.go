package lms

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// access says who may ask for a page.
type access string

// Accesses. Pages about one object check the object as well.
const (
	anyone      access = "anyone"
	signedIn    access = "signed in"
	learners    access = "learners"    // sessions of a person
	leaders     access = "leaders"     // persons with reports
	instructors access = "instructors" // sessions of an instructor
	admins      access = "admins"      // instructors who may also give and take identities
)

// page is one row of the people's routes.
type page struct {
	pattern string
	access  access
	show    func(*LMS, *visit) error
}

// guessable are the pages at which a stranger could try what they do not know: what fails there is counted.
var guessable = map[string]bool{
	"POST /sign-in":               true,
	"GET /sign-in/callback":       true,
	"GET /verify":                 true,
	"GET /mailbox/{mail}":         true,
	"GET /mailbox/{mail}/link":    true,
	"POST /mailbox/{mail}/link":   true,
	"POST /mailbox/{mail}/report": true,
}

// routes are all pages. What is not here does not exist.
var routes = []page{
	{"GET /{$}", signedIn, (*LMS).showHome},
	{"GET /sign-in", anyone, (*LMS).showSignIn},
	{"POST /sign-in", anyone, (*LMS).doSignIn},
	{"POST /sign-in/certificate", anyone, (*LMS).doCertificate},
	{"GET /sign-in/provider", anyone, (*LMS).doProvider},
	{"GET /sign-in/callback", anyone, (*LMS).doCallback},
	{"POST /sign-out", signedIn, (*LMS).doSignOut},
	{"GET /training", learners, (*LMS).showTraining},
	{"POST /training", learners, (*LMS).doStart},
	{"GET /training/{lesson}", signedIn, (*LMS).showLesson},
	{"GET /training/{lesson}/progress", signedIn, (*LMS).showProgress},
	{"GET /training/{lesson}/quiz", learners, (*LMS).showQuiz},
	{"POST /training/{lesson}/quiz", learners, (*LMS).doQuiz},
	{"GET /training/{lesson}/result", signedIn, (*LMS).showResult},
	{"GET /certificates/{lesson}", signedIn, (*LMS).showCertificate},
	{"GET /verify", anyone, (*LMS).showVerify},
	{"GET /xapi", instructors, (*LMS).showXAPI},
	{"GET /mailbox", learners, (*LMS).showMailbox},
	{"GET /mailbox/{mail}", learners, (*LMS).showMail},
	{"GET /mailbox/{mail}/link", learners, (*LMS).showLink},
	{"POST /mailbox/{mail}/link", learners, (*LMS).doSubmit},
	{"POST /mailbox/{mail}/report", learners, (*LMS).doReport},
	{"GET /drills", instructors, (*LMS).showDrills},
	{"POST /drills", instructors, (*LMS).doDrill},
	{"GET /drills/{campaign}", instructors, (*LMS).showDrill},
	{"GET /team", leaders, (*LMS).showTeam},
	{"GET /organisation", instructors, (*LMS).showOrganisation},
	{"GET /people", instructors, (*LMS).showPeople},
	{"GET /people/{person}", signedIn, (*LMS).showPerson},
	{"GET /people/{person}/reasons/{reason}", instructors, (*LMS).showPersonsReason},
	{"GET /reasons/{reason}", learners, (*LMS).showOwnReason},
	{"GET /exercises", instructors, (*LMS).showExercises},
	{"GET /audit", instructors, (*LMS).showAudit},
	{"GET /console", instructors, (*LMS).showConsole},
	{"GET /console/events", instructors, (*LMS).showConsoleEvents},
	{"GET /console/identities", instructors, (*LMS).showIdentities},
	{"GET /console/matrix", instructors, (*LMS).showMatrix},
	{"GET /console/records", instructors, (*LMS).showRecords},
	{"GET /console/results/{file}", instructors, (*LMS).showResults},
	{"GET /console/story", instructors, (*LMS).showStory},
	{"POST /console/hints", instructors, (*LMS).doHint},
	{"POST /console/identities", admins, (*LMS).doIdentity},
	{"POST /console/orders", instructors, (*LMS).doOrder},
}

// viewer is who looks at a page.
type viewer struct {
	principal
	Name    string
	Self    *risk.Standing  // the roster's line; nil for an instructor, and while nobody knows the roster
	Reports []risk.Standing // who reports to this person, the highest score first
	Manager string          // whom this person reports to, if the roster lists them
	Peers   int             // how many report to that manager, this person among them
}

// escalated says what it means for the viewer that their own training is escalated.
func (v *viewer) escalated(to risk.Escalation) string {
	words := "It is overdue by half of its interval or more. "
	if to == risk.ToSecurity {
		words = "It is overdue by its whole interval or more. "
	}
	switch {
	case v.Manager == "":
		words += "The roster lists no manager of yours, so it is an instructor who sees that."
	case v.Peers < smallestGroup:
		words += fmt.Sprintf("Your manager's page hides a team of fewer than %d, so it is an instructor who sees that.", smallestGroup)
	default:
		words += "Your manager's page lists it among the first."
	}
	if to == risk.ToSecurity {
		words += " To an instructor it is marked for the security team as well."
	}
	return words
}

// Instructor says whether the viewer may see everything.
func (v *viewer) Instructor() bool { return v.Role == roleInstructor || v.Role == roleAdmin }

// Admin says whether the viewer may give and take identities.
func (v *viewer) Admin() bool { return v.Role == roleAdmin }

// Leader says whether somebody reports to the viewer.
func (v *viewer) Leader() bool { return len(v.Reports) > 0 }

// Learner says whether the viewer has a score of their own.
func (v *viewer) Learner() bool { return v.Role == rolePerson }

func (v *viewer) zone() string {
	if v.Self != nil {
		return v.Self.Zone
	}
	return "UTC"
}

func (v *viewer) may(a access) bool {
	switch a {
	case anyone:
		return true
	case signedIn:
		return v != nil
	case learners:
		return v != nil && v.Learner()
	case leaders:
		return v != nil && v.Leader()
	case instructors:
		return v != nil && v.Instructor()
	case admins:
		return v != nil && v.Admin()
	}
	return false
}

// visit is one request for a page.
type visit struct {
	w      http.ResponseWriter
	r      *http.Request
	viewer *viewer           // nil: not signed in
	stale  *riskclient.Stale // set when the roster is an old one
	status int               // of the answer; 0: 200
	wrong  bool              // what was asked with was a guess that failed
}

func (v *visit) ctx() context.Context { return v.r.Context() }

// policy lets a page load its own style, picture and script, ask its own address again and send its own forms, and nothing
// else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Pages is the handler for people. Every answer, whatever it says, has the headers of headers.
func (l *LMS) Pages() http.Handler {
	mux := http.NewServeMux()
	for _, p := range routes {
		mux.Handle(p.pattern, l.withSession(l.page(p)))
	}
	mux.HandleFunc("GET /static/{file}", l.pages.serveAsset)
	mux.Handle("/", l.withSession(l.page(page{"/", anyone, func(*LMS, *visit) error { return notFound() }})))
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.fail(&visit{w: w, r: r}, httpjson.Errorf(http.StatusForbidden, "cross_site", "This request came from another site. Nothing was done."))
	}))
	return headers(compressed(guard.Handler(mux)))
}

func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
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
func (l *LMS) page(p page) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{w: w, r: r}
		defer func() {
			if x := recover(); x != nil {
				if x == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
					panic(x)
				}
				l.fail(v, fmt.Errorf("panic: %v\n%s", x, debug.Stack()))
			}
		}()
		err := httpjson.Address(r)
		if err == nil {
			err = l.unrevoked(v)
		}
		if err == nil {
			err = l.recognise(v)
		}
		if err == nil {
			err = l.admit(p, v)
		}
		if err == nil && r.Method == http.MethodPost {
			err = readForm(w, r)
		}
		if err == nil {
			err = l.braked(p, v)
		}
		if err != nil {
			l.fail(v, err)
		}
	})
}

// braked shows p, unless it could be guessed at and too much failed there from where v comes.
func (l *LMS) braked(p page, v *visit) error {
	if !guessable[p.pattern] {
		return p.show(l, v)
	}
	right, err := l.brake.begin(v.r.RemoteAddr)
	if err != nil {
		v.viewer = nil
		l.refused(v, "", "too_many_failures")
		return err
	}
	err = p.show(l, v)
	if !v.wrong {
		right()
	}
	return err
}

func readForm(w http.ResponseWriter, r *http.Request) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return httpjson.Errorf(http.StatusUnsupportedMediaType, "content_type", "Send this page's form, not %q.", r.Header.Get("Content-Type"))
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

// recognise finds who asks, by the session and a roster that is ten seconds old at most, ten minutes while the scorer is away.
// Somebody who has left is nobody.
func (l *LMS) recognise(v *visit) error {
	p, ok := l.signedIn(v.ctx())
	if !ok {
		return nil
	}
	if p.Certificate != "" {
		if c, shown := l.certificate(v.r); !shown || c.Serial != p.Certificate {
			return nil // a stolen cookie alone is nobody
		}
	}
	if p.Role != rolePerson {
		v.viewer = &viewer{principal: p, Name: words.Sentence(p.Role)}
		return nil
	}
	people, err := l.scorer.People()
	if err != nil && !errors.As(err, &v.stale) {
		// Who the session stands for is known all the same; what the roster would grant beyond that is not.
		v.viewer = &viewer{principal: p, Name: p.Person}
		v.stale = &riskclient.Stale{Cause: err}
		return nil
	}
	who := &viewer{principal: p}
	for i, s := range people {
		if s.ID == p.Person {
			who.Self, who.Name = &people[i], s.Name
		} else if s.Manager == p.Person {
			who.Reports = append(who.Reports, s)
		}
	}
	for _, s := range people {
		if who.Self == nil || who.Self.Manager == "" {
			break
		}
		if s.ID == who.Self.Manager {
			who.Manager = s.ID
		}
		if s.Manager == who.Self.Manager {
			who.Peers++
		}
	}
	if who.Self == nil {
		if err := l.sessions.Destroy(v.ctx()); err != nil {
			return fmt.Errorf("end session: %w", err)
		}
		l.refused(v, p.Person, "left")
		return httpjson.Errorf(http.StatusForbidden, "left", "The roster does not list you any more, so you were signed out.")
	}
	v.viewer = who
	return nil
}

// errSignIn asks for a sign-in.
var errSignIn = httpjson.Errorf(http.StatusUnauthorized, "sign_in", "Open your sign-in link to see this page.")

func (l *LMS) admit(p page, v *visit) error {
	if v.viewer.may(p.access) {
		return nil
	}
	if v.viewer == nil {
		return errSignIn
	}
	l.refused(v, v.viewer.Person, "not_for_this_role")
	return httpjson.Errorf(http.StatusForbidden, "not_for_this_role", "This page is not for your role.")
}

// refused records that somebody was turned away.
func (l *LMS) refused(v *visit, person, reason string) {
	if l.cfg.Decisions == nil {
		return
	}
	route := v.r.Pattern
	if route == "" {
		route = v.r.Method
	}
	e := audit.Entry{Kind: "page", Person: person, Route: route, Outcome: "Forbidden", Reason: reason}
	if c, ok := l.certificate(v.r); ok {
		e.Serial = c.Serial // of what was shown: the person's certificate
	}
	if v.viewer == nil && person == "" && l.cfg.Turned != nil {
		l.cfg.Turned(v.r.RemoteAddr, e)
		return
	}
	l.cfg.Decisions(e)
}

// gone refuses an object: whoever may not see it does not learn whether it is there.
func (l *LMS) gone(v *visit, reason string) error {
	l.refused(v, v.viewer.Person, reason)
	return notFound()
}

func notFound() error {
	return httpjson.Errorf(http.StatusNotFound, "not_found", "There is nothing here, or nothing that is yours.")
}

// away is the answer while the scorer is away and a page can do nothing without it.
func away(err error) error {
	return &unavailable{answer: httpjson.Errorf(http.StatusServiceUnavailable, "scorer_away", "The risk scorer does not answer at the moment. Nothing is lost; try again in a few seconds.").After(5 * time.Second), cause: err}
}

// unavailable keeps the cause for the log.
type unavailable struct {
	answer *httpjson.Error
	cause  error
}

func (u *unavailable) Error() string { return fmt.Sprintf("%v: %v", u.answer, u.cause) }

func (u *unavailable) Unwrap() []error { return []error{u.answer, u.cause} }

// lostDatabase says whether an error is of a database that is not there, or not there any more, rather than of a statement.
func lostDatabase(err error) bool {
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) {
		return slices.Contains([]string{"08", "53", "57", "58"}, refusal.Code[:min(2, len(refusal.Code))]) // connection, resources, operator, system
	}
	var connect *pgconn.ConnectError
	return errors.As(err, &connect) || pgconn.SafeToRetry(err) || errors.Is(err, io.ErrUnexpectedEOF)
}

// typed is an error that a client can act on: a lost database is a 503, and keeps its cause for the log.
func typed(err error) error {
	var answered *httpjson.Error
	if err == nil || errors.As(err, &answered) || !lostDatabase(err) {
		return err
	}
	return &unavailable{answer: httpjson.Errorf(http.StatusServiceUnavailable, "database_away", "The database does not answer at the moment. Nothing was half done; try again in a few seconds.").After(2 * time.Second), cause: err}
}

// fail shows an error as a page.
func (l *LMS) fail(v *visit, err error) {
	err = typed(err)
	e := httpjson.FromError(err)
	switch {
	case e.Status == http.StatusForbidden && e.Code == "cross_site":
		l.refused(v, "", e.Code)
	case e.Status >= 500 && v.ctx().Err() == nil:
		l.cfg.Log.Error("answer page", "route", v.r.Pattern, "status", e.Status, "error", err.Error())
	}
	if e.Status == http.StatusRequestEntityTooLarge {
		e.Message = "The form is too long."
	}
	if e.RetryAfter > 0 {
		v.w.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	v.status = e.Status
	m := errorView{Status: e.Status, Message: e.Message, Code: e.Code, Wait: e.RetryAfter}
	switch e.Status {
	case http.StatusUnauthorized:
		m.Title = "Please sign in"
	case http.StatusForbidden:
		m.Title = "Not for you"
	case http.StatusNotFound:
		m.Title = "Nothing here"
	case http.StatusTooManyRequests:
		m.Title = "A little slower, please"
	case http.StatusServiceUnavailable:
		m.Title = "Back in a moment"
	default:
		m.Title = http.StatusText(e.Status)
	}
	if e.Status == http.StatusInternalServerError {
		m.Title, m.Message = "Something went wrong", "The service's log says what. Nothing was half done."
	}
	if err := l.render(v, "error", m.Title, "", m); err != nil {
		l.cfg.Log.Error("show error page", "error", err.Error())
	}
}

type errorView struct {
	Status  int
	Title   string
	Message string
	Code    string
	Wait    time.Duration
}

// render answers with a page: title and which entry of the navigation it belongs to.
func (l *LMS) render(v *visit, name, title, at string, model any) error {
	var b bytes.Buffer
	frame := frame{Title: title, Viewer: v.viewer, Model: model}
	if v.stale != nil {
		frame.Stale = "The risk scorer does not answer at the moment. What it would say is missing here."
		if !v.stale.Since.IsZero() {
			frame.Stale = "The risk scorer does not answer at the moment. Names and scores are those of " + v.stale.Since.UTC().
				Format("15:04:05") +
				" UTC."
		}
	}
	if v.viewer != nil {
		frame.Nav = navigation(v.viewer, at)
	}
	if err := l.pages.execute(&b, name, frame); err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(max(v.status, http.StatusOK))
	_, err := v.w.Write(plainly(b.Bytes()))
	if err != nil && v.ctx().Err() == nil {
		l.cfg.Log.Debug("send page", "error", err.Error())
	}
	return nil // the status is out: nothing more can be told
}

// to sends the browser on, by GET.
func (v *visit) to(path string) error {
	http.Redirect(v.w, v.r, path, http.StatusSeeOther)
	return nil
}

// frame is what is around a page.
type frame struct {
	Title  string
	Viewer *viewer
	Nav    []navItem
	Stale  string
	Model  any
}

type navItem struct {
	Path, Name, Icon string
	Here             string // "page" for the entry that is open, else empty: the value of aria-current
}

func navigation(v *viewer, at string) []navItem {
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

var gzips = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is a constant that exists
	return z
}}

// compressed gzips answers of text for those who take it.
func compressed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept-Encoding")
		if !accepts(r.Header.Get("Accept-Encoding")) {
			next.ServeHTTP(w, r)
			return
		}
		z := &zipped{ResponseWriter: w}
		defer z.close()
		next.ServeHTTP(z, r)
	})
}

func accepts(encodings string) bool {
	return slices.ContainsFunc(strings.Split(encodings, ","), func(e string) bool {
		name, q, _ := strings.Cut(strings.TrimSpace(e), ";")
		return name == "gzip" && strings.ReplaceAll(q, " ", "") != "q=0"
	})
}

type zipped struct {
	http.ResponseWriter
	z       *gzip.Writer
	decided bool
}

// WriteHeader implements http.ResponseWriter.
func (z *zipped) WriteHeader(status int) {
	if !z.decided {
		z.decided = true
		t := z.Header().Get("Content-Type")
		if status != http.StatusNoContent && status != http.StatusNotModified && t != eventStream && (strings.HasPrefix(t, "text/") || strings.HasPrefix(t, "image/svg")) {
			z.Header().Set("Content-Encoding", "gzip")
			z.Header().Del("Content-Length")
			z.z = gzips.Get().(*gzip.Writer)
			z.z.Reset(z.ResponseWriter)
		}
	}
	z.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (z *zipped) Write(b []byte) (int, error) {
	if !z.decided {
		z.WriteHeader(http.StatusOK)
	}
	if z.z != nil {
		return z.z.Write(b)
	}
	return z.ResponseWriter.Write(b)
}

// eventStream is the media type of what is sent bit by bit: packing it would hold it back.
const eventStream = "text/event-stream"

// Unwrap lets http.ResponseController reach the connection.
func (z *zipped) Unwrap() http.ResponseWriter { return z.ResponseWriter }

func (z *zipped) close() {
	if z.z == nil {
		return
	}
	_ = z.z.Close() // the reader is gone if this fails
	gzips.Put(z.z)
}

func notAllowed() error {
	return httpjson.Errorf(http.StatusForbidden, "not_own", "This page is about somebody else.")
}

// lost is away for a request that ended by itself: nobody is there to be told.
func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("reader gone: %w", err)
	}
	return away(err)
}
