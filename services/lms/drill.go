package lms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/chart"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

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

// mailing is one mail to one person.
type mailing struct {
	ID, Campaign                         uuid.UUID
	Person, LureID                       string
	Sent                                 time.Time
	Opened, Clicked, Submitted, Reported *time.Time
}

const mailColumns = `id, campaign, person, lure, sent, opened, clicked, submitted, reported`

func scanMail(row pgx.Row) (mailing, error) {
	var m mailing
	err := row.Scan((*[16]byte)(&m.ID), (*[16]byte)(&m.Campaign), &m.Person, &m.LureID, &m.Sent, &m.Opened, &m.Clicked, &m.Submitted, &m.Reported)
	return m, err
}

// mail reads one person's mail; errGone if there is none of theirs.
func (s *records) mail(ctx context.Context, id uuid.UUID, person string) (mailing, error) {
	m, err := scanMail(
		s.Pool.QueryRow(ctx, `SELECT `+mailColumns+` FROM training.mail WHERE id = $1 AND person = $2`, [16]byte(id), person),
	)
	if errors.Is(err, pgx.ErrNoRows) {
		return m, store.ErrNotFound
	}
	if err != nil {
		return m, fmt.Errorf("read mail: %w", err)
	}
	return m, nil
}

func (s *records) mails(ctx context.Context, query string, args ...any) ([]mailing, error) {
	rows, err := s.Pool.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read mails: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (mailing, error) { return scanMail(row) })
	if err != nil {
		return nil, fmt.Errorf("read mails: %w", err)
	}
	return all, nil
}

const mailsShown = 100

func (s *records) mailsOf(ctx context.Context, person string) ([]mailing, error) {
	return s.mails(ctx, `SELECT `+mailColumns+` FROM training.mail WHERE person = $1 ORDER BY sent DESC, id LIMIT $2`, person, mailsShown)
}

// mailSteps are what can happen to a mail after it was sent: column, audit kind, and what it means to the scorer.
var mailSteps = map[string]struct {
	update string // answers when the mail was clicked
	kind   string
	event  string // last part of the event's id; empty: it is no event
}{
	mailOpened:    {`UPDATE training.mail SET opened = $2 WHERE id = $1 AND opened IS NULL RETURNING clicked`, "drill.opened", ""},
	mailClicked:   {`UPDATE training.mail SET clicked = $2 WHERE id = $1 AND clicked IS NULL RETURNING clicked`, "drill.clicked", "clicked"},
	mailSubmitted: {`UPDATE training.mail SET submitted = $2, clicked = coalesce(clicked, $2) WHERE id = $1 AND submitted IS NULL RETURNING clicked`, "drill.submitted", "submitted"},
	mailReported:  {`UPDATE training.mail SET reported = $2 WHERE id = $1 AND reported IS NULL RETURNING clicked`, "drill.reported", "reported"},
}

// happened records that a step was taken, the first time; mail, event and audit rows commit together. At is lab time.
func (s *records) happened(ctx context.Context, m mailing, x lure, step string, at time.Time) error {
	how := mailSteps[step]
	return s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		err := tx.QueryRow(ctx, how.update, [16]byte(m.ID), at).Scan(&m.Clicked)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil // it was taken already
		}
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", step, err)
		}
		id := ""
		if how.event != "" && !x.Ordinary {
			e := drillEvent(m, x, step, at)
			id = e.ID
			b, err := json.Marshal(e)
			if err != nil {
				return nil, fmt.Errorf("encode event: %w", err)
			}
			if _, err := tx.Exec(ctx, `INSERT INTO training.outbox (id, event) VALUES ($1, $2)`, e.ID, string(b)); err != nil {
				return nil, fmt.Errorf("store event: %w", err)
			}
		}
		return []store.Row{store.Note(how.kind, m.Person, id, struct {
			Campaign uuid.UUID `json:"campaign"`
			Mail     uuid.UUID `json:"mail"`
			Lure     string    `json:"lure"`
			Happened string    `json:"happened"`
		}{m.Campaign, m.ID, x.ID, step})}, nil
	})
}

// drillEvent is what a step means to the scorer.
func drillEvent(m mailing, x lure, step string, at time.Time) activity.Event {
	failed, passed := 0.0, 1.0
	e := activity.Event{
		ID: "training:drill-" + m.ID.String() + "-" + mailSteps[step].event, At: at, Person: m.Person, Source: activity.Training,
		Verb: activity.FailedAssessment, Module: drillModule, Score: &failed, Detail: drillPrefix + "clicked the link in “" + x.Subject + "”",
	}
	switch step {
	case mailSubmitted:
		e.Detail = drillPrefix + "typed something into the form behind “" + x.Subject + "”"
	case mailReported:
		e.Verb, e.Module, e.Score = activity.TrainingPassed, words.DrillReported, &passed
		e.Detail = drillPrefix + "reported “" + x.Subject + "”"
		e.Teaches = []activity.Verb{activity.PhishingClick}
		if m.Clicked != nil {
			e.Teaches = append(e.Teaches, activity.FailedAssessment)
		}
	}
	return e
}

// campaign is one drill with its counts.
type campaign struct {
	ID                                         uuid.UUID
	LureID, Team                               string
	Begun                                      time.Time
	Sent, Opened, Clicked, Submitted, Reported int
}

const campaignColumns = `c.id, c.lure, c.team, c.begun, count(m.id), count(m.opened), count(m.clicked), count(m.submitted), count(m.reported)
	FROM training.campaign c LEFT JOIN training.mail m ON m.campaign = c.id AND m.lure = c.lure`

func scanCampaign(row pgx.CollectableRow) (campaign, error) {
	var c campaign
	err := row.Scan((*[16]byte)(&c.ID), &c.LureID, &c.Team, &c.Begun, &c.Sent, &c.Opened, &c.Clicked, &c.Submitted, &c.Reported)
	return c, err
}

func (s *records) campaigns(ctx context.Context) ([]campaign, error) {
	rows, err := s.Pool.Query(ctx, `SELECT `+campaignColumns+` GROUP BY c.id ORDER BY c.made DESC LIMIT 100`)
	if err != nil {
		return nil, fmt.Errorf("read campaigns: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanCampaign)
	if err != nil {
		return nil, fmt.Errorf("read campaigns: %w", err)
	}
	return all, nil
}

func (s *records) campaign(ctx context.Context, id uuid.UUID) (campaign, []mailing, error) {
	rows, err := s.Pool.Query(ctx, `SELECT `+campaignColumns+` WHERE c.id = $1 GROUP BY c.id`, [16]byte(id))
	if err != nil {
		return campaign{}, nil, fmt.Errorf("read campaign: %w", err)
	}
	c, err := pgx.CollectExactlyOneRow(rows, scanCampaign)
	if errors.Is(err, pgx.ErrNoRows) {
		return c, nil, store.ErrNotFound
	}
	if err != nil {
		return c, nil, fmt.Errorf("read campaign: %w", err)
	}
	all, err := s.mails(ctx, `SELECT `+mailColumns+` FROM training.mail WHERE campaign = $1 AND lure = $2
		ORDER BY coalesce(submitted, clicked, reported, opened) DESC NULLS LAST, person LIMIT $3`, [16]byte(id), c.LureID, mailsShown)
	return c, all, err
}

// beginCampaign sends a lure and an ordinary mail to people, who each have one mailbox page here.
func (s *records) beginCampaign(
	ctx context.Context,
	x, ordinary lure,
	team string,
	people []string,
	at time.Time,
	by principal,
) (uuid.UUID, error) {
	id := uuid.New()
	return id, s.Write(ctx, func(tx pgx.Tx) ([]store.Row, error) {
		if _, err := tx.Exec(ctx, `INSERT INTO training.campaign (id, lure, team, begun) VALUES ($1, $2, $3, $4)`, [16]byte(id), x.ID, team, at); err != nil {
			return nil, fmt.Errorf("store campaign: %w", err)
		}
		for _, kind := range []string{x.ID, ordinary.ID} {
			if _, err := tx.Exec(ctx, `INSERT INTO training.mail (campaign, person, lure, sent) SELECT $1, person, $2, $3 FROM unnest($4::text[]) AS p (person)`, [16]byte(id), kind, at, people); err != nil {
				return nil, fmt.Errorf("store mails: %w", err)
			}
		}
		return []store.Row{store.Note("drill.begun", "", "", struct {
			Campaign uuid.UUID `json:"campaign"`
			Lure     string    `json:"lure"`
			Team     string    `json:"team"`
			People   int       `json:"people"`
			By       principal `json:"by"`
		}{id, x.ID, team, len(people), by})}, nil
	})
}

type mailView struct {
	ID       string
	Lure     lure
	Sent     time.Time
	Unread   bool
	Over     bool // the learner clicked or reported: what it was may be told
	Clicked  bool
	Reported bool
	Score    bool // whether the score has heard of it
	Module   risk.Module
}

func (l *LMS) mailViewOf(m mailing, x lure, loc *time.Location) mailView {
	module, _ := risk.ModuleByID(drillModule)
	return mailView{ID: m.ID.String(), Lure: x, Sent: m.Sent.In(loc), Unread: m.Opened == nil, Clicked: m.Clicked != nil, Reported: m.Reported != nil,
		Over: m.Clicked != nil || m.Reported != nil, Module: module}
}

type mailboxView struct{ Mails []mailView }

func (l *LMS) showMailbox(v *visit) error {
	all, err := l.store.mailsOf(v.ctx(), v.viewer.Person)
	if err != nil {
		return err
	}
	var m mailboxView
	for _, x := range all {
		if lure, known := l.lures.byID(x.LureID); known {
			m.Mails = append(m.Mails, l.mailViewOf(x, lure, words.Location(v.viewer.zone())))
		}
	}
	return l.render(v, "mailbox", "Mailbox", "/mailbox", m)
}

// ownMail is the mail that the path names, if it is the viewer's.
func (l *LMS) ownMail(v *visit) (mailing, lure, error) {
	id, err := uuid.Parse(v.r.PathValue("mail"))
	if err != nil {
		return mailing{}, lure{}, notFound()
	}
	m, err := l.store.mail(v.ctx(), id, v.viewer.Person)
	if errors.Is(err, store.ErrNotFound) {
		v.wrong = true
		return m, lure{}, l.gone(v, "not_own")
	}
	if err != nil {
		return m, lure{}, err
	}
	x, known := l.lures.byID(m.LureID)
	if !known {
		return m, x, notFound()
	}
	return m, x, nil
}

// take records a step of the viewer's, by the lab's clock.
func (l *LMS) take(v *visit, m mailing, x lure, step string) error {
	at, err := l.scorer.NowIn(v.ctx(), v.viewer.zone())
	if err != nil {
		return away(err)
	}
	if err := l.store.happened(v.ctx(), m, x, step, at); err != nil {
		return err
	}
	l.outbox.kick()
	return nil
}

func (l *LMS) showMail(v *visit) error {
	m, x, err := l.ownMail(v)
	if err != nil {
		return err
	}
	if m.Opened == nil {
		if err := l.take(v, m, x, mailOpened); err != nil {
			return err
		}
	}
	model := l.mailViewOf(m, x, words.Location(v.viewer.zone()))
	return l.render(v, "mail", x.Subject, "/mailbox", model)
}

// showLink is what the mail's link opens. Following it is what the drill is about, so looking is the act here.
func (l *LMS) showLink(v *visit) error {
	m, x, err := l.ownMail(v)
	if err != nil {
		return err
	}
	if x.Ordinary {
		return notFound()
	}
	if m.Clicked == nil {
		if err := l.take(v, m, x, mailClicked); err != nil {
			return err
		}
	}
	if !x.Form || m.Submitted != nil {
		return v.to("/mailbox/" + m.ID.String())
	}
	model := l.mailViewOf(m, x, words.Location(v.viewer.zone()))
	v.viewer = nil // it looks like somebody else's page
	return l.render(v, "lure", x.From, "", model)
}

// doSubmit notes that the form was sent. Its fields have no names, so a browser sends nothing of what was typed, and nothing
// of what is sent is read.
func (l *LMS) doSubmit(v *visit) error {
	m, x, err := l.ownMail(v)
	if err != nil {
		return err
	}
	if x.Ordinary || !x.Form {
		return notFound()
	}
	if err := l.take(v, m, x, mailSubmitted); err != nil {
		return err
	}
	return v.to("/mailbox/" + m.ID.String())
}

func (l *LMS) doReport(v *visit) error {
	m, x, err := l.ownMail(v)
	if err != nil {
		return err
	}
	if err := l.take(v, m, x, mailReported); err != nil {
		return err
	}
	return v.to("/mailbox/" + m.ID.String())
}

type drillsView struct {
	Lures     []lure
	Teams     []choice
	Campaigns []campaignView
}

type campaignView struct {
	campaign
	Lure  lure
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
	mailing
	Name  string
	Steps []string
	Last  time.Time
}

func (l *LMS) campaignViewOf(c campaign) campaignView {
	x, known := l.lures.byID(c.LureID)
	if !known {
		x = lure{ID: c.LureID, Subject: c.LureID}
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

func (l *LMS) showDrills(v *visit) error {
	people, err := l.scorer.Staff()
	if err != nil && !errors.As(err, &v.stale) {
		return lost(v.ctx(), err)
	}
	all, err := l.store.campaigns(v.ctx())
	if err != nil {
		return err
	}
	m := drillsView{}
	for _, x := range l.lures {
		if !x.Ordinary {
			m.Lures = append(m.Lures, x)
		}
	}
	teams := map[string]string{}
	for _, p := range people {
		teams[p.Team] = words.Sentence(p.Team)
	}
	m.Teams = choices(teams, "")
	for _, c := range all {
		m.Campaigns = append(m.Campaigns, l.campaignViewOf(c))
	}
	return l.render(v, "drills", "Drills", "/drills", m)
}

// doDrill begins a campaign for a team, or for everybody.
func (l *LMS) doDrill(v *visit) error {
	x, known := l.lures.byID(v.r.PostForm.Get("lure"))
	if !known || x.Ordinary {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "unknown_lure", "There is no such mail to send.")
	}
	people, err := l.scorer.Staff()
	if err != nil {
		return away(err)
	}
	at, err := l.scorer.NowIn(v.ctx(), "UTC")
	if err != nil {
		return away(err)
	}
	team := v.r.PostForm.Get("team")
	var to []string
	for _, p := range people {
		if team == "" || p.Team == team {
			to = append(to, p.ID)
		}
	}
	if len(to) == 0 {
		return httpjson.Errorf(http.StatusUnprocessableEntity, "nobody", "Nobody is in this team.")
	}
	ordinary := slices.DeleteFunc(slices.Clone(l.lures), func(x lure) bool { return !x.Ordinary })
	id, err := l.store.beginCampaign(v.ctx(), x, ordinary[len(to)%len(ordinary)], team, to, at, v.viewer.principal)
	if err != nil {
		return err
	}
	return v.to("/drills/" + id.String())
}

func (l *LMS) showDrill(v *visit) error {
	id, err := uuid.Parse(v.r.PathValue("campaign"))
	if err != nil {
		return notFound()
	}
	c, mails, err := l.store.campaign(v.ctx(), id)
	if errors.Is(err, store.ErrNotFound) {
		return notFound()
	}
	if err != nil {
		return err
	}
	people, err := l.scorer.People()
	if err != nil && !errors.As(err, &v.stale) {
		return lost(v.ctx(), err)
	}
	names := map[string]string{}
	for _, p := range people {
		names[p.ID] = p.Name
	}
	m := l.campaignViewOf(c)
	for _, x := range mails {
		row := drillPerson{mailing: x, Name: names[x.Person]}
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
	return l.render(v, "drill", "Drill: "+m.Lure.Subject, "/drills", m)
}

// alsoTeaches is what a person's lesson about phishing teaches besides: what a drill of theirs failed.
func alsoTeaches(ctx context.Context, tx pgx.Tx, person, module string) ([]activity.Verb, error) {
	if module != drillModule {
		return nil, nil
	}
	var clicked bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM training.mail WHERE person = $1 AND clicked IS NOT NULL)`, person).Scan(&clicked); err != nil {
		return nil, fmt.Errorf("read mails: %w", err)
	}
	if !clicked {
		return nil, nil
	}
	return []activity.Verb{activity.FailedAssessment}, nil
}

// ofDrill says whether a reason is about a drill, which the lesson about phishing is about as well.
func ofDrill(module string, r risk.Reason) bool {
	return module == drillModule && r.Verb == activity.FailedAssessment && strings.HasPrefix(r.Detail, drillPrefix)
}
