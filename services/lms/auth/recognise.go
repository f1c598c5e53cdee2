package auth

import (
	"errors"
	"fmt"
	"net/http"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// recognise sets the viewer by the session and the roster. The roster is at most ten seconds old, or ten minutes while
// the risk scorer cannot be reached. The session of a person whom the roster does not list is ended.
func (a *Auth) recognise(req *site.Request) error {
	p, ok := a.signedIn(req.Ctx())
	if !ok {
		return nil
	}
	if p.Certificate != "" {
		if c, shown := a.site.Certificate(req.R); !shown || c.Serial != p.Certificate {
			return nil // a stolen cookie is worthless without the certificate
		}
	}
	if p.Role != site.RolePerson {
		req.Viewer = &site.Viewer{Principal: p, Name: words.Sentence(p.Role)}
		return nil
	}
	people, err := a.scorer.People()
	if err != nil && !errors.As(err, &req.Stale) {
		// Without a roster the viewer is the person of the session, and has no reports.
		req.Viewer = &site.Viewer{Principal: p, Name: p.Person}
		req.Stale = &riskclient.Stale{Cause: err}
		return nil
	}
	viewer := viewerOf(p, people)
	if viewer.Self == nil {
		if err := a.sessions.Destroy(req.Ctx()); err != nil {
			return fmt.Errorf("end session: %w", err)
		}
		a.site.RecordRefusal(req, p.Person, "left")
		return httpjson.Errorf(http.StatusForbidden, "left", "The roster no longer lists you, so you were signed out.")
	}
	req.Viewer = viewer
	return nil
}

// viewerOf looks a person up in the roster, with reports and manager.
func viewerOf(p site.Principal, people []risk.Standing) *site.Viewer {
	v := &site.Viewer{Principal: p}
	for i, s := range people {
		if s.ID == p.Person {
			v.Self, v.Name = &people[i], s.Name
		} else if s.Manager == p.Person {
			v.Reports = append(v.Reports, s)
		}
	}
	if v.Self == nil || v.Self.Manager == "" {
		return v
	}
	for _, s := range people {
		if s.ID == v.Self.Manager {
			v.Manager = s.ID
		}
		if s.Manager == v.Self.Manager {
			v.Peers++
		}
	}
	return v
}

// Recognise sets the viewer of req. It returns a 403 for a revoked certificate.
func (a *Auth) Recognise(req *site.Request) error {
	if err := a.unrevoked(req); err != nil {
		return err
	}
	return a.recognise(req)
}
