package auth

import (
	"errors"
	"fmt"
	"net/http"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
)

// recognise finds who asks, by the session and a roster that is ten seconds old at most, ten minutes while the scorer
// is away. Somebody who has left is nobody.
func (a *Auth) recognise(req *site.Request) error {
	p, ok := a.signedIn(req.Ctx())
	if !ok {
		return nil
	}
	if p.Certificate != "" {
		if c, shown := a.site.Certificate(req.R); !shown || c.Serial != p.Certificate {
			return nil // a stolen cookie alone is nobody
		}
	}
	if p.Role != site.RolePerson {
		req.Viewer = &site.Viewer{Principal: p, Name: words.Sentence(p.Role)}
		return nil
	}
	people, err := a.scorer.People()
	if err != nil && !errors.As(err, &req.Stale) {
		// Who the session stands for is known all the same; what the roster would grant beyond that is not.
		req.Viewer = &site.Viewer{Principal: p, Name: p.Person}
		req.Stale = &riskclient.Stale{Cause: err}
		return nil
	}
	who := &site.Viewer{Principal: p}
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
		if err := a.sessions.Destroy(req.Ctx()); err != nil {
			return fmt.Errorf("end session: %w", err)
		}
		a.site.RecordRefusal(req, p.Person, "left")
		return httpjson.Errorf(http.StatusForbidden, "left", "The roster does not list you any more, so you were signed out.")
	}
	req.Viewer = who
	return nil
}

// Recognise finds who asks; somebody whose certificate was revoked is refused.
func (a *Auth) Recognise(req *site.Request) error {
	if err := a.unrevoked(req); err != nil {
		return err
	}
	return a.recognise(req)
}
