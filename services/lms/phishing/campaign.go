// Package phishing is the drills: mails that an instructor sends to a team, a mailbox in which learners click, type or
// report, and what that means for their training. Templates are rated by NIST's Phish Scale.
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

// Drills serves the learner's mailbox and the instructor's campaigns.
type Drills struct {
	Store     *Store
	scorer    *riskclient.Client
	site      *site.Site
	outbox    *outbox.Outbox
	templates templates
}

// New makes drills with the templates that come with the program.
func New(db *store.Store, scorer *riskclient.Client, pages *site.Site, events *outbox.Outbox) (*Drills, error) {
	all, err := readTemplates(templateText)
	if err != nil {
		return nil, err
	}
	return &Drills{Store: &Store{db}, scorer: scorer, site: pages, outbox: events, templates: all}, nil
}

const (
	drillModule = "phishing" // the module of the catalogue that teaches what a drill tries
)

const (
	drillPrefix = "Drill: "
)

// What GoPhish calls what happens to a mail.
const (
	mailSent      = "Email Sent"
	mailOpened    = "Email Opened"
	mailClicked   = "Clicked Link"
	mailSubmitted = "Submitted Data"
	mailReported  = "Email Reported"
)

type drillsView struct {
	Lures     []Template
	Teams     []site.Choice
	Campaigns []campaignView
}

type campaignView struct {
	campaign
	Lure  Template
	Steps []drillStep
	Acted []drillPerson
	Idle  []drillPerson // their mail lies unopened
	More  int
}

// drillStep is a line of a campaign's funnel.
type drillStep struct {
	Name  string
	Count int
	Part  float64
	Bar   chart.Share
}

type drillPerson struct {
	Message
	Name  string
	Steps []string
	Last  time.Time
}

func (cs *Drills) campaignViewOf(c campaign) campaignView {
	x, known := cs.templates.byID(c.LureID)
	if !known {
		x = Template{ID: c.LureID, Subject: c.LureID}
	}
	m := campaignView{campaign: c, Lure: x}
	for _, s := range []struct {
		name  string
		n     int
		class string
	}{{mailSent, c.Sent, "accent"}, {mailOpened, c.Opened, "accent"}, {mailClicked, c.Clicked, "high"}, {mailSubmitted, c.Submitted, "critical"}, {mailReported, c.Reported, "low"}} {
		part := float64(s.n) / float64(max(1, c.Sent))
		m.Steps = append(m.Steps, drillStep{Name: s.name, Count: s.n, Part: part, Bar: chart.Bar(part, s.class)})
	}
	return m
}

// ShowDrills lists the drills, and the form that begins one.
func (cs *Drills) ShowDrills(req *site.Request) error {
	people, err := cs.scorer.Staff()
	if err != nil && !errors.As(err, &req.Stale) {
		return site.Canceled(req.Ctx(), err)
	}
	all, err := cs.Store.campaigns(req.Ctx())
	if err != nil {
		return err
	}
	m := drillsView{}
	for _, x := range cs.templates {
		if !x.Ordinary {
			m.Lures = append(m.Lures, x)
		}
	}
	teams := map[string]string{}
	for _, p := range people {
		teams[p.Team] = words.Sentence(p.Team)
	}
	m.Teams = site.Choices(teams, "")
	for _, c := range all {
		m.Campaigns = append(m.Campaigns, cs.campaignViewOf(c))
	}
	return cs.site.Render(req, "drills", "Drills", "/drills", m)
}

// DoDrill begins a campaign for a team, or for everybody.
func (cs *Drills) DoDrill(req *site.Request) error {
	x, known := cs.templates.byID(req.R.PostForm.Get("lure"))
	if !known || x.Ordinary {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "unknown_lure", "There is no such mail to send.")
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
		return httpjson.Errorf(http.StatusUnprocessableEntity, "nobody", "Nobody is in this team.")
	}
	ordinary := slices.DeleteFunc(slices.Clone(cs.templates), func(x Template) bool { return !x.Ordinary })
	id, err := cs.Store.beginCampaign(req.Ctx(), x, ordinary[len(to)%len(ordinary)], team, to, at, req.Viewer.Principal)
	if err != nil {
		return err
	}
	return req.Redirect("/drills/" + id.String())
}

// ShowDrill shows who did what with the mails of a drill.
func (cs *Drills) ShowDrill(req *site.Request) error {
	id, err := uuid.Parse(req.R.PathValue("campaign"))
	if err != nil {
		return site.NotFound()
	}
	c, mails, err := cs.Store.campaign(req.Ctx(), id)
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
	m := cs.campaignViewOf(c)
	for _, x := range mails {
		row := drillPerson{Message: x, Name: names[x.Person]}
		for _, s := range []struct {
			name string
			at   *time.Time
		}{{mailOpened, x.Opened}, {mailClicked, x.Clicked}, {mailSubmitted, x.Submitted}, {mailReported, x.Reported}} {
			if s.at != nil {
				row.Steps = append(row.Steps, s.name)
				if s.at.After(row.Last) {
					row.Last = *s.at
				}
			}
		}
		if len(row.Steps) > 0 {
			m.Acted = append(m.Acted, row)
		} else {
			m.Idle = append(m.Idle, row)
		}
	}
	m.More = c.Sent - len(mails)
	return cs.site.Render(req, "drill", "Drill: "+m.Lure.Subject, "/drills", m)
}

// OfDrill says whether a reason is about a drill, which the lesson about phishing is about as well.
func OfDrill(module string, r risk.Reason) bool {
	return module == drillModule && r.Verb == activity.FailedAssessment && strings.HasPrefix(r.Detail, drillPrefix)
}
