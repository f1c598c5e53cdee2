package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/lms/site"
)

// A session ends after idleEnd without a request, and after absoluteEnd in any case. A link expires after linkEnd.
const (
	idleEnd     = 30 * time.Minute
	absoluteEnd = 8 * time.Hour
	linkEnd     = 15 * time.Minute

	principalKey = "principal"
)

func newSessions(pool *pgxpool.Pool) *scs.SessionManager {
	m := scs.New()
	m.Store = &sessionTable{pool: pool}
	m.IdleTimeout, m.Lifetime = idleEnd, absoluteEnd
	m.HashTokenInStore = true
	m.Cookie.Name = "session"
	m.Cookie.Path = "/"
	m.Cookie.HttpOnly = true
	m.Cookie.SameSite = http.SameSiteStrictMode
	m.Cookie.Persist = false // the cookie ends with the browser
	return m
}

// withCertificates returns m for the HTTPS port: the same sessions, with a cookie that no other origin and no plain
// HTTP connection can set.
func withCertificates(m *scs.SessionManager) *scs.SessionManager {
	secure := *m
	secure.Cookie.Name, secure.Cookie.Secure = "__Host-session", true
	return &secure
}

// WithSession loads the session of a request before next and stores it afterwards. HTTP and HTTPS have cookies of
// different names.
func (a *Auth) WithSession(next http.Handler) http.Handler {
	a.sessions.ErrorFunc = func(w http.ResponseWriter, r *http.Request, err error) {
		a.site.Fail(&site.Request{W: w, R: r}, fmt.Errorf("session: %w", err))
	}
	plain, secure := a.sessions.LoadAndSave(next), withCertificates(a.sessions).LoadAndSave(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			secure.ServeHTTP(w, r)
			return
		}
		plain.ServeHTTP(w, r)
	})
}

// sessionTable keeps scs's sessions in training.session.
type sessionTable struct{ pool *pgxpool.Pool }

// FindCtx implements scs.CtxStore.
func (s *sessionTable) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	var b []byte
	err := s.pool.QueryRow(ctx, `SELECT state FROM training.session WHERE token = $1 AND expiry > now()`, token).Scan(&b)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read session: %w", err)
	}
	return b, true, nil
}

// CommitCtx implements scs.CtxStore. It writes an unchanged session at most once a minute, so that most page views do
// not wait for the disk.
func (s *sessionTable) CommitCtx(ctx context.Context, token string, b []byte, expiry time.Time) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO training.session AS s (token, state, expiry) VALUES ($1, $2, $3)
		ON CONFLICT (token) DO UPDATE SET state = excluded.state, expiry = excluded.expiry
		WHERE s.state <> excluded.state OR s.expiry < excluded.expiry - interval '1 minute'`, token, b, expiry)
	if err != nil {
		return fmt.Errorf("store session: %w", err)
	}
	return nil
}

// DeleteCtx implements scs.CtxStore.
func (s *sessionTable) DeleteCtx(ctx context.Context, token string) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM training.session WHERE token = $1`, token); err != nil {
		return fmt.Errorf("delete session: %w", err)
	}
	return nil
}

// Find implements scs.Store; scs calls FindCtx instead.
func (s *sessionTable) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

// Commit implements scs.Store; scs calls CommitCtx instead.
func (s *sessionTable) Commit(token string, b []byte, expiry time.Time) error {
	return s.CommitCtx(context.Background(), token, b, expiry)
}

// Delete implements scs.Store; scs calls DeleteCtx instead.
func (s *sessionTable) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

// signIn begins a session of p with a new token.
func (a *Auth) signIn(ctx context.Context, p site.Principal) error {
	if err := a.sessions.RenewToken(ctx); err != nil {
		return fmt.Errorf("begin session: %w", err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("begin session: %w", err)
	}
	a.sessions.Put(ctx, principalKey, string(b)) // a string, because scs encodes a struct differently each time
	return nil
}

// signedIn returns the principal of the session, if it has a valid one.
func (a *Auth) signedIn(ctx context.Context) (site.Principal, bool) {
	var p site.Principal
	text := a.sessions.GetString(ctx, principalKey)
	if text == "" || json.Unmarshal([]byte(text), &p) != nil {
		return site.Principal{}, false
	}
	return p, (p.Role == site.RoleInstructor || p.Role == site.RoleAdmin) && p.Person == "" ||
		p.Role == site.RolePerson && p.Person != ""
}
