package lms

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/risk"
)

type signInView struct {
	Token string // to be sent back by the form; empty: nobody brought one
	Used  bool   // the one sent does not work any more

	Done        bool   // the browser goes on by itself
	Certificate string // whose certificate the browser shows, if it shows one
	Provider    string // the host of the provider of identities, if there is one
}

var tokenPattern = regexp.MustCompile(`^[A-Z2-7]{26,64}$`)

// showSignIn shows a button. Only pressing it uses the link up: previews of links, and scanners of mail, only look.
func (l *LMS) showSignIn(v *site.Request) error {
	token := v.R.URL.Query().Get("token")
	if token == "" && v.Viewer != nil {
		return v.Redirect("/")
	}
	m := l.door(v)
	if tokenPattern.MatchString(token) {
		m.Token = token
	} else if token != "" {
		m.Used = true
	}
	v.Viewer = nil // whoever is signed in already: this page is about the link
	return l.site.Render(v, "signin", "Sign in", "", m)
}

// door is how else one may come in.
func (l *LMS) door(v *site.Request) signInView {
	m := signInView{Provider: l.cfg.Provider.host()}
	if c, ok := l.site.Certificate(v.R); ok {
		m.Certificate = c.Name
	}
	return m
}

// doCertificate signs in whom the browser's certificate names: somebody of the roster, or a role that is nobody's own.
func (l *LMS) doCertificate(v *site.Request) error {
	c, ok := l.site.Certificate(v.R)
	if !ok {
		l.site.RecordRefusal(v, "", "no_certificate")
		return httpjson.Errorf(http.StatusForbidden, "no_certificate", "Your browser shows no certificate here. Import the file that you were given, and come in by the address with https.")
	}
	p := site.Principal{Role: c.Role, Via: "certificate", Certificate: c.Serial}
	switch c.Role {
	case site.RoleInstructor, site.RoleAdmin:
	case site.RolePerson:
		p.Person = c.Name
		people, err := l.scorer.People()
		if err != nil {
			return site.Unavailable(err)
		}
		if !slices.ContainsFunc(people, func(s risk.Standing) bool { return s.ID == c.Name }) {
			l.site.RecordRefusal(v, c.Name, "not_in_roster")
			return httpjson.Errorf(http.StatusForbidden, "not_in_roster", "The roster does not list who your certificate is for.")
		}
	default:
		l.site.RecordRefusal(v, c.Name, "no_role")
		return httpjson.Errorf(http.StatusForbidden, "no_role", "Your certificate names no role.")
	}
	return l.welcome(v, p)
}

// welcome begins a session, with its audit row.
func (l *LMS) welcome(v *site.Request, p site.Principal) error {
	if err := l.store.Record(v.Ctx(), store.Note("sign_in", p.Person, "", p)); err != nil {
		return err
	}
	if err := l.signIn(v.Ctx(), p); err != nil {
		return err
	}
	return v.Redirect("/")
}

func (l *LMS) doSignIn(v *site.Request) error {
	token := v.R.PostForm.Get("token")
	p, err := site.Principal{}, store.ErrNotFound
	if tokenPattern.MatchString(token) {
		p, err = l.store.useLink(v.Ctx(), token, l.cfg.Now())
	}
	if errors.Is(err, store.ErrNotFound) {
		v.Wrong = true
		l.site.RecordRefusal(v, "", "bad_link")
		v.Status, v.Viewer = http.StatusForbidden, nil
		return l.site.Render(v, "signin", "Sign in", "", signInView{Used: true})
	}
	if err != nil {
		return err
	}
	if err := l.signIn(v.Ctx(), p); err != nil {
		return err
	}
	return v.Redirect("/")
}

func (l *LMS) doSignOut(v *site.Request) error {
	if err := l.store.Record(v.Ctx(), store.Note("sign_out", v.Viewer.Person, "", v.Viewer.Principal)); err != nil {
		return err
	}
	if err := l.sessions.Destroy(v.Ctx()); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return v.Redirect("/sign-in")
}

// unknownPerson is the answer to a link for somebody who is not in the roster.
func unknownPerson(id string) error {
	return httpjson.Errorf(http.StatusNotFound, "unknown_person", "nobody in the roster is %q", id)
}
