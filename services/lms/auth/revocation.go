package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/postgres/audited"
)

// clockSkew is how far the issuer's clock may be ahead of this one. A later time would revoke certificates that are not
// issued yet.
const clockSkew = 5 * time.Minute

// PostRevocation is POST /v1/revocations. It does not check the roster, so that it works for people who have left and
// while the risk scorer cannot be reached. The answer has the time that applies: an earlier one than the stored one
// changes nothing. 422 for a fault in the body.
func (a *Auth) PostRevocation(w http.ResponseWriter, r *http.Request) error {
	var order lmsapi.Revocation
	if err := httpjson.Read(w, r, 4<<10, &order); err != nil {
		return err
	}
	switch {
	case !personPattern.MatchString(order.Name):
		return badRevocation("name: want an id of the roster, or a role")
	case !slices.Contains([]string{site.RolePerson, site.RoleInstructor, site.RoleAdmin}, order.Role):
		return badRevocation("role %q: want person, instructor or admin", order.Role)
	case order.Before.IsZero() || order.Before.After(a.cfg.Now().Add(clockSkew)):
		return badRevocation("before: want a time that is not in the future")
	}
	var err error
	if order.Before, err = a.Store.Revoke(r.Context(), order, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	return httpjson.Write(w, http.StatusOK, order)
}

func badRevocation(format string, args ...any) error {
	return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_revocation", format, args...)
}

// Revoke stores a revocation, with its audit row, and returns the time that applies to the name and role from now on.
func (s *Store) Revoke(ctx context.Context, o lmsapi.Revocation, by string) (time.Time, error) {
	var holds time.Time
	err := s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		err := tx.QueryRow(ctx, `INSERT INTO training.revoked_certificate AS r (role, name, before, by)
			VALUES ($1, $2, $3, $4)
			ON CONFLICT (role, name) DO UPDATE SET before = excluded.before, by = excluded.by, at = excluded.at
			WHERE excluded.before > r.before
			RETURNING before`, o.Role, o.Name, o.Before, by).Scan(&holds)
		if errors.Is(err, pgx.ErrNoRows) { // the stored time is not earlier
			err = tx.QueryRow(ctx, revokedBefore, o.Role, o.Name).Scan(&holds)
		}
		if err != nil {
			return nil, fmt.Errorf("revoke certificates: %w", err)
		}
		person := ""
		if o.Role == site.RolePerson {
			person = o.Name
		}
		return []audited.Row{audited.Note("certificate.revoked", person, "", struct {
			Role   string    `json:"role"`
			By     string    `json:"by"`
			Asked  time.Time `json:"asked"`
			Before time.Time `json:"before"` // the time that applies
		}{o.Role, by, o.Before.UTC(), holds.UTC()})}, nil
	})
	return holds.UTC(), err
}

const revokedBefore = `SELECT before FROM training.revoked_certificate WHERE role = $1 AND name = $2`

// Revoked reports whether a certificate is revoked.
func (s *Store) Revoked(ctx context.Context, c mesh.Certificate) (bool, error) {
	var before time.Time
	err := s.Pool.QueryRow(ctx, revokedBefore, c.Role, c.Name).Scan(&before)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for revocation: %w", err)
	}
	return !c.Begins.After(before), nil
}

// unrevoked refuses a request with a revoked certificate, for any page and any session, and ends the session that the
// certificate began. It queries the database each time, so that a revocation applies from the next request on: in each
// replica, on open connections, and after a restart.
func (a *Auth) unrevoked(req *site.Request) error {
	c, ok := a.site.Certificate(req.R)
	if !ok {
		return nil
	}
	revoked, err := a.Store.Revoked(req.Ctx(), c)
	if err != nil || !revoked {
		return err
	}
	if p, ok := a.signedIn(req.Ctx()); ok && p.Certificate == c.Serial {
		if err := a.sessions.Destroy(req.Ctx()); err != nil {
			return fmt.Errorf("end session: %w", err)
		}
	}
	person := ""
	if c.Role == site.RolePerson {
		person = c.Name
	}
	a.site.RecordRefusal(req, person, "certificate_revoked")
	req.W.Header().Set("Connection", "close") // lets the browser reconnect with another certificate
	return httpjson.Errorf(http.StatusForbidden, "certificate_revoked",
		"The certificate of your browser was revoked. Remove it, and ask your instructor for a new one.")
}
