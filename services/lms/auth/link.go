package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
)

// Store is the tables of links, sessions and revocations.
type Store struct{ *store.Store }

// Sweep deletes expired sessions, and links that expired more than a day ago.
func (s *Store) Sweep(ctx context.Context) error {
	_, err := s.Pool.Exec(ctx, `DELETE FROM training.session WHERE expiry < now()`)
	if err != nil {
		return fmt.Errorf("delete sessions: %w", err)
	}
	if _, err = s.Pool.Exec(ctx, `DELETE FROM training.link WHERE expires < now() - interval '1 day'`); err != nil {
		return fmt.Errorf("delete links: %w", err)
	}
	return nil
}

// digest is what the table keeps of a token, so that reading the table gives no working link.
func digest(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

func (s *Store) addLink(ctx context.Context, token string, p site.Principal, expires time.Time, by string) error {
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		_, err := tx.Exec(ctx, `INSERT INTO training.link (token, role, person, expires) VALUES ($1, $2, $3, $4)`,
			digest(token), p.Role, p.Person, expires)
		if err != nil {
			return nil, fmt.Errorf("store link: %w", err)
		}
		return []audited.Row{audited.Note("link.made", p.Person, "", struct {
			Role    string    `json:"role"`
			By      string    `json:"by"`
			Expires time.Time `json:"expires"`
		}{p.Role, by, expires.UTC()})}, nil
	})
}

// useLink consumes a link; of concurrent callers one succeeds. store.ErrNotFound if it is unknown, used or expired.
func (s *Store) useLink(ctx context.Context, token string, now time.Time) (site.Principal, error) {
	var p site.Principal
	err := s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		row := tx.QueryRow(ctx, `UPDATE training.link SET used = $2
			WHERE token = $1 AND used IS NULL AND expires > $2 RETURNING role, person`, digest(token), now)
		if err := row.Scan(&p.Role, &p.Person); errors.Is(err, pgx.ErrNoRows) {
			return nil, store.ErrNotFound
		} else if err != nil {
			return nil, fmt.Errorf("use link: %w", err)
		}
		return []audited.Row{audited.Note("sign_in", p.Person, "", p)}, nil
	})
	return p, err
}

var personPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)

// PostLink is POST /v1/links: it makes a sign-in link that works once, within 15 minutes. 404 if the roster does not
// list the person, 409 for a manager without reports, 503 if the roster is not available, 422 for any other fault.
func (a *Auth) PostLink(w http.ResponseWriter, r *http.Request) error {
	var order lmsapi.LinkOrder
	if err := httpjson.Read(w, r, 4<<10, &order); err != nil {
		return err
	}
	link := lmsapi.Link{Person: order.Person, Role: order.Role, Expires: a.cfg.Now().Add(linkEnd).UTC()}
	p, err := a.principalOf(order, &link)
	if err != nil {
		return err
	}
	token := rand.Text()
	if err := a.Store.addLink(r.Context(), token, p, link.Expires, mesh.Caller(r.Context()).Name); err != nil {
		return err
	}
	link.Path = "/sign-in?" + url.Values{"token": {token}}.Encode()
	return httpjson.Write(w, http.StatusCreated, link)
}

// principalOf is whom a link signs in. For a person it sets the role in the link by the roster.
func (a *Auth) principalOf(order lmsapi.LinkOrder, link *lmsapi.Link) (site.Principal, error) {
	p := site.Principal{Role: site.RolePerson, Person: order.Person}
	switch order.Role {
	case site.RoleInstructor, site.RoleAdmin:
		if order.Person != "" {
			return p, badLink("person: an instructor's link is not bound to a person")
		}
		p.Role = order.Role
		return p, nil
	case "", "learner", "manager":
	default:
		return p, badLink("role %q: want learner, manager, instructor or admin", order.Role)
	}
	if !personPattern.MatchString(order.Person) {
		return p, badLink("person: want an id of the roster, or the role instructor")
	}
	people, err := a.scorer.People()
	if err != nil {
		return p, site.Unavailable(err)
	}
	if !listed(people, order.Person) {
		return p, httpjson.Errorf(http.StatusNotFound, "unknown_person", "the roster does not list %q", order.Person)
	}
	link.Role = "learner"
	if slices.ContainsFunc(people, func(s risk.Standing) bool { return s.Manager == order.Person }) {
		link.Role = "manager"
	} else if order.Role == "manager" {
		return p, httpjson.Errorf(http.StatusConflict, "no_reports", "no person reports to %q", order.Person)
	}
	return p, nil
}

func badLink(format string, args ...any) error {
	return httpjson.Errorf(http.StatusUnprocessableEntity, "bad_link", format, args...)
}

// listed reports whether the roster lists a person.
func listed(people []risk.Standing, person string) bool {
	return slices.ContainsFunc(people, func(s risk.Standing) bool { return s.ID == person })
}
