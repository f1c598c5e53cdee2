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

// messageView is a message as a learner sees it. Until Over, it does not tell that it is a simulation.
type messageView struct {
	ID       string
	Template Template
	Sent     time.Time
	Unread   bool
	Over     bool // the learner clicked or reported it
	Clicked  bool
	Reported bool
	Module   risk.Module
}

func (cs *Campaigns) viewOfMessage(m Message, x Template, loc *time.Location) messageView {
	module, _ := risk.ModuleByID(phishingModule)
	return messageView{
		ID:       m.ID.String(),
		Template: x,
		Sent:     m.Sent.In(loc),
		Unread:   m.Opened == nil,
		Clicked:  m.Clicked != nil,
		Reported: m.Reported != nil,
		Over:     m.Clicked != nil || m.Reported != nil,
		Module:   module,
	}
}

type mailboxView struct{ Mails []messageView }

// ShowMailbox lists the viewer's messages.
func (cs *Campaigns) ShowMailbox(req *site.Request) error {
	all, err := cs.Store.messagesOf(req.Ctx(), req.Viewer.Person)
	if err != nil {
		return err
	}
	var m mailboxView
	for _, x := range all {
		if template, known := cs.templates.byID(x.TemplateID); known {
			m.Mails = append(m.Mails, cs.viewOfMessage(x, template, words.Location(req.Viewer.Zone())))
		}
	}
	return cs.site.Render(req, "mailbox", "Mailbox", "/mailbox", m)
}

// ownMessage returns the viewer's message that the path names. For another person's it counts a failed guess.
func (cs *Campaigns) ownMessage(req *site.Request) (Message, Template, error) {
	id, err := uuid.Parse(req.R.PathValue("mail"))
	if err != nil {
		return Message{}, Template{}, site.NotFound()
	}
	m, err := cs.Store.message(req.Ctx(), id, req.Viewer.Person)
	if errors.Is(err, store.ErrNotFound) {
		req.GuessFailed = true
		return m, Template{}, cs.site.DenyAsNotFound(req, "not_own")
	}
	if err != nil {
		return m, Template{}, err
	}
	x, known := cs.templates.byID(m.TemplateID)
	if !known {
		return m, x, site.NotFound()
	}
	return m, x, nil
}

// record stores a step of the viewer at the lab's time.
func (cs *Campaigns) record(req *site.Request, m Message, x Template, step string) error {
	at, err := cs.scorer.NowIn(req.Ctx(), req.Viewer.Zone())
	if err != nil {
		return site.Unavailable(err)
	}
	if err := cs.Store.recordStep(req.Ctx(), m, x, step, at); err != nil {
		return err
	}
	cs.outbox.Kick()
	return nil
}

// ShowMessage shows a message, and records that it was opened.
func (cs *Campaigns) ShowMessage(req *site.Request) error {
	m, x, err := cs.ownMessage(req)
	if err != nil {
		return err
	}
	if m.Opened == nil {
		if err := cs.record(req, m, x, stepOpened); err != nil {
			return err
		}
	}
	model := cs.viewOfMessage(m, x, words.Location(req.Viewer.Zone()))
	return cs.site.Render(req, "mail", x.Subject, "/mailbox", model)
}

// ShowLink shows the page behind the message's link, and records the click. A GET has this effect because following the
// link is what the campaign measures.
func (cs *Campaigns) ShowLink(req *site.Request) error {
	m, x, err := cs.ownMessage(req)
	if err != nil {
		return err
	}
	if x.Ordinary {
		return site.NotFound()
	}
	if m.Clicked == nil {
		if err := cs.record(req, m, x, stepClicked); err != nil {
			return err
		}
	}
	if !x.Form || m.Submitted != nil {
		return req.Redirect("/mailbox/" + m.ID.String())
	}
	model := cs.viewOfMessage(m, x, words.Location(req.Viewer.Zone()))
	req.Viewer = nil // the page looks like another site's
	return cs.site.Render(req, "lure", x.From, "", model)
}

// DoSubmit records that the form behind the link was sent. It does not read the form. The fields have no names, so that
// browsers do not send what was typed.
func (cs *Campaigns) DoSubmit(req *site.Request) error {
	m, x, err := cs.ownMessage(req)
	if err != nil {
		return err
	}
	if x.Ordinary || !x.Form {
		return site.NotFound()
	}
	if err := cs.record(req, m, x, stepSubmitted); err != nil {
		return err
	}
	return req.Redirect("/mailbox/" + m.ID.String())
}

// DoReport records that the learner reported the message as suspicious.
func (cs *Campaigns) DoReport(req *site.Request) error {
	m, x, err := cs.ownMessage(req)
	if err != nil {
		return err
	}
	if err := cs.record(req, m, x, stepReported); err != nil {
		return err
	}
	return req.Redirect("/mailbox/" + m.ID.String())
}
