package site

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"example.org/security-training/services/httpjson"
)

// errSignIn is the answer to a request without a session for a page that needs one.
var errSignIn = httpjson.Errorf(http.StatusUnauthorized, "sign_in", "Open your sign-in link to see this page.")

// DenyAsNotFound refuses access to an object with a 404, so that the answer does not tell whether the object exists. It
// records the refusal.
func (s *Site) DenyAsNotFound(req *Request, reason string) error {
	s.RecordRefusal(req, req.Viewer.Person, reason)
	return NotFound()
}

// NotFound is a 404: the page does not exist, or the viewer may not see it.
func NotFound() error {
	return httpjson.Errorf(http.StatusNotFound, "not_found", "This page does not exist, or it is not yours to see.")
}

// ScorerUnavailable begins what a page says while the risk scorer cannot be reached.
const ScorerUnavailable = "The risk scorer does not answer at the moment"

// Unavailable is a 503 for a page that needs the risk scorer, which cannot be reached because of err.
func Unavailable(err error) error {
	return Answer(err, httpjson.Errorf(http.StatusServiceUnavailable, "scorer_away",
		ScorerUnavailable+". Nothing is lost; try again in a few seconds.").After(retryAfter))
}

// retryAfter is when a client should repeat a request that failed because the risk scorer could not be reached.
const retryAfter = 5 * time.Second

// MarkUnavailable makes the answer to req a 503 that asks to be repeated. The page is still shown, with what is known.
func (req *Request) MarkUnavailable() {
	req.Status = http.StatusServiceUnavailable
	req.W.Header().Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
}

// Answer is an error that the client sees as with. The cause is for the log only.
func Answer(cause error, with *httpjson.Error) error { return &answered{with, cause} }

type answered struct {
	answer *httpjson.Error
	cause  error
}

func (a *answered) Error() string { return fmt.Sprintf("%v: %v", a.answer, a.cause) }

func (a *answered) Unwrap() []error { return []error{a.answer, a.cause} }

// databaseUnavailable reports whether err means that the database cannot be reached, as opposed to a statement that
// failed.
func databaseUnavailable(err error) bool {
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) {
		// Classes of SQLSTATE: connection, resources, operator, system.
		return slices.Contains([]string{"08", "53", "57", "58"}, refusal.Code[:min(2, len(refusal.Code))])
	}
	var connect *pgconn.ConnectError
	return errors.As(err, &connect) || pgconn.SafeToRetry(err) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Typed returns err, or a 503 with err as its cause if the database cannot be reached.
func Typed(err error) error {
	var answered *httpjson.Error
	if err == nil || errors.As(err, &answered) || !databaseUnavailable(err) {
		return err
	}
	return Answer(err, httpjson.Errorf(http.StatusServiceUnavailable, "database_away",
		"The database does not answer at the moment. Nothing was changed; try again in a few seconds.").After(2*time.Second))
}

// Fail answers with an error page. It logs errors of the service and records refused requests from other sites.
func (s *Site) Fail(req *Request, err error) {
	err = Typed(err)
	e := httpjson.FromError(err)
	switch {
	case e.Status == http.StatusForbidden && e.Code == "cross_site":
		s.RecordRefusal(req, "", e.Code)
	case e.Status >= 500 && req.Ctx().Err() == nil:
		s.cfg.Log.Error("answer page", "route", req.R.Pattern, "status", e.Status, "error", err.Error())
	}
	if e.Status == http.StatusRequestEntityTooLarge {
		e.Message = "The form is too long."
	}
	if e.RetryAfter > 0 {
		req.W.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	req.Status = e.Status
	m := errorView{Status: e.Status, Message: e.Message, Code: e.Code, Wait: e.RetryAfter}
	m.Title = cmp.Or(errorTitles[e.Status], http.StatusText(e.Status))
	if e.Status == http.StatusInternalServerError {
		m.Message = "The log of the service has the error. Nothing was changed."
		if words, ok := broken(req, err); ok {
			m.Title, m.Message = "This page cannot be shown", words
		}
	}
	err = s.Render(req, "error", m.Title, "", m)
	if s.cfg.Dir != "" && err != nil {
		// What every page includes is broken in the folder.
		s.cfg.Log.Error("show error page", "error", err.Error())
		err = s.render(s.builtIn, req, "error", m.Title, "", m)
	}
	if err != nil {
		s.cfg.Log.Error("show error page", "error", err.Error())
	}
}

// errorTitles are the titles of error pages, by status. A status without one has its standard text.
var errorTitles = map[int]string{
	http.StatusUnauthorized:        "Please sign in",
	http.StatusForbidden:           "You may not see this page",
	http.StatusNotFound:            "Page not found",
	http.StatusTooManyRequests:     "Too many requests",
	http.StatusInternalServerError: "Something went wrong",
	http.StatusServiceUnavailable:  "Not available at the moment",
}

type errorView struct {
	Status  int
	Title   string
	Message string
	Code    string
	Wait    time.Duration
}

// NotOwn is a 403 for a learner's request for another person's page.
func NotOwn() error {
	return httpjson.Errorf(http.StatusForbidden, "not_own", "This page is about another person.")
}

// Canceled is Unavailable, or, if the client has ended the request, an error that is not logged as the service's.
func Canceled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("request canceled: %w", err)
	}
	return Unavailable(err)
}
