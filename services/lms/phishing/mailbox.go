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

func (d *Drills) mailViewOf(m Message, x Template, loc *time.Location) mailView {
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
func (d *Drills) ShowMailbox(v *site.Request) error {
	all, err := d.Store.mailsOf(v.Ctx(), v.Viewer.Person)
	if err != nil {
		return err
	}
	var m mailboxView
	for _, x := range all {
		if lure, known := d.templates.byID(x.LureID); known {
			m.Mails = append(m.Mails, d.mailViewOf(x, lure, words.Location(v.Viewer.Zone())))
		}
	}
	return d.site.Render(v, "mailbox", "Mailbox", "/mailbox", m)
}

// ownMail is the mail that the path names, if it is the viewer's.
func (d *Drills) ownMail(v *site.Request) (Message, Template, error) {
	id, err := uuid.Parse(v.R.PathValue("mail"))
	if err != nil {
		return Message{}, Template{}, site.NotFound()
	}
	m, err := d.Store.mail(v.Ctx(), id, v.Viewer.Person)
	if errors.Is(err, store.ErrNotFound) {
		v.Wrong = true
		return m, Template{}, d.site.DenyAsNotFound(v, "not_own")
	}
	if err != nil {
		return m, Template{}, err
	}
	x, known := d.templates.byID(m.LureID)
	if !known {
		return m, x, site.NotFound()
	}
	return m, x, nil
}

// record records a step of the viewer's, by the lab's clock.
func (d *Drills) record(v *site.Request, m Message, x Template, step string) error {
	at, err := d.scorer.NowIn(v.Ctx(), v.Viewer.Zone())
	if err != nil {
		return site.Unavailable(err)
	}
	if err := d.Store.happened(v.Ctx(), m, x, step, at); err != nil {
		return err
	}
	d.outbox.Kick()
	return nil
}

// ShowMail shows one mail, and records that it was opened.
func (d *Drills) ShowMail(v *site.Request) error {
	m, x, err := d.ownMail(v)
	if err != nil {
		return err
	}
	if m.Opened == nil {
		if err := d.record(v, m, x, mailOpened); err != nil {
			return err
		}
	}
	model := d.mailViewOf(m, x, words.Location(v.Viewer.Zone()))
	return d.site.Render(v, "mail", x.Subject, "/mailbox", model)
}

// ShowLink is what the mail's link opens. Following it is what the drill is about, so looking is the act here.
func (d *Drills) ShowLink(v *site.Request) error {
	m, x, err := d.ownMail(v)
	if err != nil {
		return err
	}
	if x.Ordinary {
		return site.NotFound()
	}
	if m.Clicked == nil {
		if err := d.record(v, m, x, mailClicked); err != nil {
			return err
		}
	}
	if !x.Form || m.Submitted != nil {
		return v.Redirect("/mailbox/" + m.ID.String())
	}
	model := d.mailViewOf(m, x, words.Location(v.Viewer.Zone()))
	v.Viewer = nil // it looks like somebody else's page
	return d.site.Render(v, "lure", x.From, "", model)
}

// DoSubmit notes that the form was sent. Its fields have no names, so a browser sends nothing of what was typed, and
// nothing of what is sent is read.
func (d *Drills) DoSubmit(v *site.Request) error {
	m, x, err := d.ownMail(v)
	if err != nil {
		return err
	}
	if x.Ordinary || !x.Form {
		return site.NotFound()
	}
	if err := d.record(v, m, x, mailSubmitted); err != nil {
		return err
	}
	return v.Redirect("/mailbox/" + m.ID.String())
}

// DoReport takes the report of a mail as suspicious.
func (d *Drills) DoReport(v *site.Request) error {
	m, x, err := d.ownMail(v)
	if err != nil {
		return err
	}
	if err := d.record(v, m, x, mailReported); err != nil {
		return err
	}
	return v.Redirect("/mailbox/" + m.ID.String())
}
