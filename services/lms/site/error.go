package site

import (
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

// errSignIn asks for a sign-in.
var errSignIn = httpjson.Errorf(http.StatusUnauthorized, "sign_in", "Open your sign-in link to see this page.")

// DenyAsNotFound refuses an object: whoever may not see it does not learn whether it is there.
func (s *Site) DenyAsNotFound(v *Request, reason string) error {
	s.RecordRefusal(v, v.Viewer.Person, reason)
	return NotFound()
}

// NotFound is the answer where there is nothing, or nothing for the one who asks.
func NotFound() error {
	return httpjson.Errorf(http.StatusNotFound, "not_found", "This page does not exist, or it is not yours to see.")
}

// Unavailable is the answer while the scorer is away and a page can do nothing without it.
func Unavailable(err error) error {
	return Answer(
		err,
		httpjson.Errorf(http.StatusServiceUnavailable, "scorer_away", "The risk scorer does not answer at the moment. Nothing is lost; try again in a few seconds.").
			After(5*time.Second),
	)
}

// Answer answers with what is given, and keeps the cause for the log.
func Answer(cause error, with *httpjson.Error) error { return &answered{with, cause} }

type answered struct {
	answer *httpjson.Error
	cause  error
}

func (a *answered) Error() string { return fmt.Sprintf("%v: %v", a.answer, a.cause) }

func (a *answered) Unwrap() []error { return []error{a.answer, a.cause} }

// lostDatabase says whether an error is of a database that is not there, or not there any more, rather than of a
// statement.
func lostDatabase(err error) bool {
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) {
		return slices.Contains(
			[]string{"08", "53", "57", "58"},
			refusal.Code[:min(2, len(refusal.Code))],
		) // connection, resources, operator, system
	}
	var connect *pgconn.ConnectError
	return errors.As(err, &connect) || pgconn.SafeToRetry(err) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Typed is an error that a client can act on: a lost database is a 503, and keeps its cause for the log.
func Typed(err error) error {
	var answered *httpjson.Error
	if err == nil || errors.As(err, &answered) || !lostDatabase(err) {
		return err
	}
	return Answer(
		err,
		httpjson.Errorf(http.StatusServiceUnavailable, "database_away", "The database does not answer at the moment. Nothing was half done; try again in a few seconds.").
			After(2*time.Second),
	)
}

// Fail shows an error as a page.
func (s *Site) Fail(v *Request, err error) {
	err = Typed(err)
	e := httpjson.FromError(err)
	switch {
	case e.Status == http.StatusForbidden && e.Code == "cross_site":
		s.RecordRefusal(v, "", e.Code)
	case e.Status >= 500 && v.Ctx().Err() == nil:
		s.cfg.Log.Error("answer page", "route", v.R.Pattern, "status", e.Status, "error", err.Error())
	}
	if e.Status == http.StatusRequestEntityTooLarge {
		e.Message = "The form is too long."
	}
	if e.RetryAfter > 0 {
		v.W.Header().Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	v.Status = e.Status
	m := errorView{Status: e.Status, Message: e.Message, Code: e.Code, Wait: e.RetryAfter}
	switch e.Status {
	case http.StatusUnauthorized:
		m.Title = "Please sign in"
	case http.StatusForbidden:
		m.Title = "You may not see this page"
	case http.StatusNotFound:
		m.Title = "Page not found"
	case http.StatusTooManyRequests:
		m.Title = "Too many requests"
	case http.StatusServiceUnavailable:
		m.Title = "Not available at the moment"
	default:
		m.Title = http.StatusText(e.Status)
	}
	if e.Status == http.StatusInternalServerError {
		m.Title, m.Message = "Something went wrong", "The service's log says what. Nothing was half done."
		if words, ok := broken(v, err); ok {
			m.Title, m.Message = "This page cannot be shown", words
		}
	}
	err = s.Render(v, "error", m.Title, "", m)
	if s.cfg.Dir != "" && err != nil {
		// What every page includes is broken in the folder.
		s.cfg.Log.Error("show error page", "error", err.Error())
		err = s.render(s.builtIn, v, "error", m.Title, "", m)
	}
	if err != nil {
		s.cfg.Log.Error("show error page", "error", err.Error())
	}
}

type errorView struct {
	Status  int
	Title   string
	Message string
	Code    string
	Wait    time.Duration
}

// NotOwn is the answer to a page about somebody else.
func NotOwn() error {
	return httpjson.Errorf(http.StatusForbidden, "not_own", "This page is about another person.")
}

// Canceled is away for a request that ended by itself: nobody is there to be told.
func Canceled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("reader gone: %w", err)
	}
	return Unavailable(err)
}
