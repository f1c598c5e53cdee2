package lms

import (
	"errors"
	"fmt"
	"net/http"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/words"
)

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
