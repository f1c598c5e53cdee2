package phishing

import (
	"errors"
	"time"

	"github.com/google/uuid"

	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

type mailView struct {
	ID       string
	Lure     Template
	Sent     time.Time
	Unread   bool
	Over     bool // the learner clicked or reported: what it was may be told
	Clicked  bool
	Reported bool
	Score    bool // whether the score has heard of it
	Module   risk.Module
}

func (cs *Drills) mailViewOf(m Message, x Template, loc *time.Location) mailView {
	module, _ := risk.ModuleByID(drillModule)
	return mailView{
		ID:       m.ID.String(),
		Lure:     x,
		Sent:     m.Sent.In(loc),
		Unread:   m.Opened == nil,
		Clicked:  m.Clicked != nil,
		Reported: m.Reported != nil,
		Over:     m.Clicked != nil || m.Reported != nil,
		Module:   module,
	}
}

type mailboxView struct{ Mails []mailView }

// ShowMailbox lists the viewer's mails.
func (cs *Drills) ShowMailbox(req *site.Request) error {
	all, err := cs.Store.mailsOf(req.Ctx(), req.Viewer.Person)
	if err != nil {
		return err
	}
	var m mailboxView
	for _, x := range all {
		if lure, known := cs.templates.byID(x.LureID); known {
			m.Mails = append(m.Mails, cs.mailViewOf(x, lure, words.Location(req.Viewer.Zone())))
		}
	}
	return cs.site.Render(req, "mailbox", "Mailbox", "/mailbox", m)
}

// ownMail is the mail that the path names, if it is the viewer's.
func (cs *Drills) ownMail(req *site.Request) (Message, Template, error) {
	id, err := uuid.Parse(req.R.PathValue("mail"))
	if err != nil {
		return Message{}, Template{}, site.NotFound()
	}
	m, err := cs.Store.mail(req.Ctx(), id, req.Viewer.Person)
	if errors.Is(err, store.ErrNotFound) {
		req.Wrong = true
		return m, Template{}, cs.site.DenyAsNotFound(req, "not_own")
	}
	if err != nil {
		return m, Template{}, err
	}
	x, known := cs.templates.byID(m.LureID)
	if !known {
		return m, x, site.NotFound()
	}
	return m, x, nil
}

// record records a step of the viewer's, by the lab's clock.
func (cs *Drills) record(req *site.Request, m Message, x Template, step string) error {
	at, err := cs.scorer.NowIn(req.Ctx(), req.Viewer.Zone())
	if err != nil {
		return site.Unavailable(err)
	}
	if err := cs.Store.happened(req.Ctx(), m, x, step, at); err != nil {
		return err
	}
	cs.outbox.Kick()
	return nil
}

// ShowMail shows one mail, and records that it was opened.
func (cs *Drills) ShowMail(req *site.Request) error {
	m, x, err := cs.ownMail(req)
	if err != nil {
		return err
	}
	if m.Opened == nil {
		if err := cs.record(req, m, x, mailOpened); err != nil {
			return err
		}
	}
	model := cs.mailViewOf(m, x, words.Location(req.Viewer.Zone()))
	return cs.site.Render(req, "mail", x.Subject, "/mailbox", model)
}

// ShowLink is what the mail's link opens. Following it is what the drill is about, so looking is the act here.
func (cs *Drills) ShowLink(req *site.Request) error {
	m, x, err := cs.ownMail(req)
	if err != nil {
		return err
	}
	if x.Ordinary {
		return site.NotFound()
	}
	if m.Clicked == nil {
		if err := cs.record(req, m, x, mailClicked); err != nil {
			return err
		}
	}
	if !x.Form || m.Submitted != nil {
		return req.Redirect("/mailbox/" + m.ID.String())
	}
	model := cs.mailViewOf(m, x, words.Location(req.Viewer.Zone()))
	req.Viewer = nil // it looks like somebody else's page
	return cs.site.Render(req, "lure", x.From, "", model)
}

// DoSubmit notes that the form was sent. Its fields have no names, so a browser sends nothing of what was typed, and
// nothing of what is sent is read.
func (cs *Drills) DoSubmit(req *site.Request) error {
	m, x, err := cs.ownMail(req)
	if err != nil {
		return err
	}
	if x.Ordinary || !x.Form {
		return site.NotFound()
	}
	if err := cs.record(req, m, x, mailSubmitted); err != nil {
		return err
	}
	return req.Redirect("/mailbox/" + m.ID.String())
}

// DoReport takes the report of a mail as suspicious.
func (cs *Drills) DoReport(req *site.Request) error {
	m, x, err := cs.ownMail(req)
	if err != nil {
		return err
	}
	if err := cs.record(req, m, x, mailReported); err != nil {
		return err
	}
	return req.Redirect("/mailbox/" + m.ID.String())
}
