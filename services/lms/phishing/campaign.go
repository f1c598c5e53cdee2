// Package phishing runs simulated phishing campaigns: an instructor sends a message to a team, learners click, type or
// report in a mailbox of the lab, and each of these is a training event. The messages are templates, rated by the NIST
// Phish Scale.
package phishing

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/outbox"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// Campaigns serves the mailbox of learners and the campaigns of instructors. Its methods are safe for concurrent use.
type Campaigns struct {
	Store     *Store
	scorer    *riskclient.Client
	site      *site.Site
	outbox    *outbox.Outbox
	templates templates
}

// New returns Campaigns with the embedded templates.
func New(db *store.Store, scorer *riskclient.Client, pages *site.Site, events *outbox.Outbox) (*Campaigns, error) {
	all, err := readTemplates(templateText)
	if err != nil {
		return nil, err
	}
	return &Campaigns{Store: &Store{db}, scorer: scorer, site: pages, outbox: events, templates: all}, nil
}

const (
	phishingModule = "phishing" // id of the module that teaches against phishing
	detailPrefix   = "Drill: "  // of the details of a campaign's events
)

// Steps of a message, by the names that GoPhish uses.
const (
	stepSent      = "Email Sent"
	stepOpened    = "Email Opened"
	stepClicked   = "Clicked Link"
	stepSubmitted = "Submitted Data"
	stepReported  = "Email Reported"
)

type campaignsView struct {
	Templates []Template
	Teams     []site.Choice
	Campaigns []campaignView
}

type campaignView struct {
	campaign
	Template Template
	Steps    []stepRow
	Acted    []recipientRow
	Idle     []recipientRow // people who have not opened the message
	More     int            // number of people who are not listed
}

// stepRow is how many people took one step.
type stepRow struct {
	Name  string
	Count int
	Part  float64
	Bar   chart.Share
}

// recipientRow is a person with the steps they took.
type recipientRow struct {
	Message
	Name  string
	Steps []string
	Last  time.Time // of the latest step
}

// viewOf is a campaign with the share of people who took each step.
func (cs *Campaigns) viewOf(c campaign) campaignView {
	x, known := cs.templates.byID(c.TemplateID)
	if !known {
		x = Template{ID: c.TemplateID, Subject: c.TemplateID}
	}
	m := campaignView{campaign: c, Template: x}
	for _, s := range []struct {
		name  string
		n     int
		class string
	}{
		{stepSent, c.Sent, "accent"},
		{stepOpened, c.Opened, "accent"},
		{stepClicked, c.Clicked, "high"},
		{stepSubmitted, c.Submitted, "critical"},
		{stepReported, c.Reported, "low"},
	} {
		part := float64(s.n) / float64(max(1, c.Sent))
		m.Steps = append(m.Steps, stepRow{Name: s.name, Count: s.n, Part: part, Bar: chart.Bar(part, s.class)})
	}
	return m
}

// ShowCampaigns lists the campaigns, and has the form that begins one.
func (cs *Campaigns) ShowCampaigns(req *site.Request) error {
	people, err := cs.scorer.Staff()
	if err != nil && !errors.As(err, &req.Stale) {
		return site.Canceled(req.Ctx(), err)
	}
	all, err := cs.Store.campaigns(req.Ctx())
	if err != nil {
		return err
	}
	m := campaignsView{}
	for _, x := range cs.templates {
		if !x.Ordinary {
			m.Templates = append(m.Templates, x)
		}
	}
	teams := map[string]string{}
	for _, p := range people {
		teams[p.Team] = words.Sentence(p.Team)
	}
	m.Teams = site.Choices(teams, "")
	for _, c := range all {
		m.Campaigns = append(m.Campaigns, cs.viewOf(c))
	}
	return cs.site.Render(req, "drills", "Drills", "/drills", m)
}

// DoBegin begins a campaign for a team, or without a team for the whole staff. 422 for an unknown template or an empty
// team.
func (cs *Campaigns) DoBegin(req *site.Request) error {
	x, known := cs.templates.byID(req.R.PostForm.Get("lure"))
	if !known || x.Ordinary {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "unknown_lure", "There is no such message.")
	}
	people, err := cs.scorer.Staff()
	if err != nil {
		return site.Unavailable(err)
	}
	at, err := cs.scorer.NowIn(req.Ctx(), "UTC")
	if err != nil {
		return site.Unavailable(err)
	}
	team := req.R.PostForm.Get("team")
	var to []string
	for _, p := range people {
		if team == "" || p.Team == team {
			to = append(to, p.ID)
		}
	}
	if len(to) == 0 {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "nobody", "This team has no people.")
	}
	ordinary := slices.DeleteFunc(slices.Clone(cs.templates), func(x Template) bool { return !x.Ordinary })
	id, err := cs.Store.beginCampaign(req.Ctx(), x, ordinary[len(to)%len(ordinary)], team, to, at, req.Viewer.Principal)
	if err != nil {
		return err
	}
	return req.Redirect("/drills/" + id.String())
}

// ShowCampaign shows the steps that people took in a campaign. 404 if there is no such campaign.
func (cs *Campaigns) ShowCampaign(req *site.Request) error {
	id, err := uuid.Parse(req.R.PathValue("campaign"))
	if err != nil {
		return site.NotFound()
	}
	c, messages, err := cs.Store.campaign(req.Ctx(), id)
	if errors.Is(err, store.ErrNotFound) {
		return site.NotFound()
	}
	if err != nil {
		return err
	}
	people, err := cs.scorer.People()
	if err != nil && !errors.As(err, &req.Stale) {
		return site.Canceled(req.Ctx(), err)
	}
	names := map[string]string{}
	for _, p := range people {
		names[p.ID] = p.Name
	}
	m := cs.viewOf(c)
	for _, x := range messages {
		row := recipientRowOf(x, names[x.Person])
		if len(row.Steps) > 0 {
			m.Acted = append(m.Acted, row)
		} else {
			m.Idle = append(m.Idle, row)
		}
	}
	m.More = c.Sent - len(messages)
	return cs.site.Render(req, "drill", "Drill: "+m.Template.Subject, "/drills", m)
}

// recipientRowOf lists the steps that a person took with a message.
func recipientRowOf(m Message, name string) recipientRow {
	row := recipientRow{Message: m, Name: name}
	for _, s := range []struct {
		name string
		at   *time.Time
	}{{stepOpened, m.Opened}, {stepClicked, m.Clicked}, {stepSubmitted, m.Submitted}, {stepReported, m.Reported}} {
		if s.at == nil {
			continue
		}
		row.Steps = append(row.Steps, s.name)
		if s.at.After(row.Last) {
			row.Last = *s.at
		}
	}
	return row
}

// Concerns reports whether a reason comes from a campaign and belongs to a module, the one about phishing.
func Concerns(module string, r risk.Reason) bool {
	return module == phishingModule && r.Verb == activity.FailedAssessment && strings.HasPrefix(r.Detail, detailPrefix)
}
