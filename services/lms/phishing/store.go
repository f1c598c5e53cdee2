package phishing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/postgres/audited"
)

// Store is the tables of campaigns and their mails.
type Store struct{ *store.Store }

// Message is one mail to one person.
type Message struct {
	ID, Campaign                         uuid.UUID
	Person, LureID                       string
	Sent                                 time.Time
	Opened, Clicked, Submitted, Reported *time.Time
}

const mailColumns = `id, campaign, person, lure, sent, opened, clicked, submitted, reported`

func scanMail(row pgx.Row) (Message, error) {
	var m Message
	err := row.Scan(
		(*[16]byte)(&m.ID),
		(*[16]byte)(&m.Campaign),
		&m.Person,
		&m.LureID,
		&m.Sent,
		&m.Opened,
		&m.Clicked,
		&m.Submitted,
		&m.Reported,
	)
	return m, err
}

// mail reads one person's mail; errGone if there is none of theirs.
func (s *Store) mail(ctx context.Context, id uuid.UUID, person string) (Message, error) {
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

func (s *Store) mails(ctx context.Context, query string, args ...any) ([]Message, error) {
	rows, err := s.Pool.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read mails: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Message, error) { return scanMail(row) })
	if err != nil {
		return nil, fmt.Errorf("read mails: %w", err)
	}
	return all, nil
}

const mailsShown = 100

func (s *Store) mailsOf(ctx context.Context, person string) ([]Message, error) {
	return s.mails(
		ctx,
		`SELECT `+mailColumns+` FROM training.mail WHERE person = $1 ORDER BY sent DESC, id LIMIT $2`,
		person,
		mailsShown,
	)
}

// mailSteps are what can happen to a mail after it was sent: column, audit kind, and what it means to the scorer.
var mailSteps = map[string]struct {
	update string // answers when the mail was clicked
	kind   string
	event  string // last part of the event's id; empty: it is no event
}{
	mailOpened: {
		`UPDATE training.mail SET opened = $2 WHERE id = $1 AND opened IS NULL RETURNING clicked`,
		"drill.opened",
		"",
	},
	mailClicked: {
		`UPDATE training.mail SET clicked = $2 WHERE id = $1 AND clicked IS NULL RETURNING clicked`,
		"drill.clicked",
		"clicked",
	},
	mailSubmitted: {
		`UPDATE training.mail SET submitted = $2, clicked = coalesce(clicked, $2) WHERE id = $1 AND submitted IS NULL RETURNING clicked`,
		"drill.submitted",
		"submitted",
	},
	mailReported: {
		`UPDATE training.mail SET reported = $2 WHERE id = $1 AND reported IS NULL RETURNING clicked`,
		"drill.reported",
		"reported",
	},
}

// happened records that a step was taken, the first time; mail, event and audit rows commit together. At is lab time.
func (s *Store) happened(ctx context.Context, m Message, x Template, step string, at time.Time) error {
	how := mailSteps[step]
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
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
		return []audited.Row{audited.Note(how.kind, m.Person, id, struct {
			Campaign uuid.UUID `json:"campaign"`
			Mail     uuid.UUID `json:"mail"`
			Lure     string    `json:"lure"`
			Happened string    `json:"happened"`
		}{m.Campaign, m.ID, x.ID, step})}, nil
	})
}

// drillEvent is what a step means to the scorer.
func drillEvent(m Message, x Template, step string, at time.Time) activity.Event {
	failed, passed := 0.0, 1.0
	e := activity.Event{
		ID: "training:drill-" + m.ID.String() + "-" + mailSteps[step].event, At: at, Person: m.Person, Source: activity.Training,
		Verb: activity.FailedAssessment, Module: drillModule, Score: &failed, Detail: drillPrefix + "clicked the link in “" + x.Subject + "”",
	}
	switch step {
	case mailSubmitted:
		e.Detail = drillPrefix + "typed something into the form behind “" + x.Subject + "”"
	case mailReported:
		e.Verb, e.Module, e.Score, e.Detail = activity.TrainingPassed, words.DrillReported, &passed, drillPrefix+"reported “"+x.Subject+"”"
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
	err := row.Scan(
		(*[16]byte)(&c.ID),
		&c.LureID,
		&c.Team,
		&c.Begun,
		&c.Sent,
		&c.Opened,
		&c.Clicked,
		&c.Submitted,
		&c.Reported,
	)
	return c, err
}

func (s *Store) campaigns(ctx context.Context) ([]campaign, error) {
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

func (s *Store) campaign(ctx context.Context, id uuid.UUID) (campaign, []Message, error) {
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

// beginCampaign sends a lure, and an ordinary mail beside it, to people, who each have one mailbox page here.
func (s *Store) beginCampaign(
	ctx context.Context,
	x, beside Template,
	team string,
	people []string,
	at time.Time,
	by site.Principal,
) (uuid.UUID, error) {
	id := uuid.New()
	return id, s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		if _, err := tx.Exec(ctx, `INSERT INTO training.campaign (id, lure, team, begun) VALUES ($1, $2, $3, $4)`, [16]byte(id), x.ID, team, at); err != nil {
			return nil, fmt.Errorf("store campaign: %w", err)
		}
		for _, kind := range []string{x.ID, beside.ID} {
			if _, err := tx.Exec(ctx, `INSERT INTO training.mail (campaign, person, lure, sent) SELECT $1, person, $2, $3 FROM unnest($4::text[]) AS p (person)`, [16]byte(id), kind, at, people); err != nil {
				return nil, fmt.Errorf("store mails: %w", err)
			}
		}
		return []audited.Row{audited.Note("drill.begun", "", "", struct {
			Campaign uuid.UUID      `json:"campaign"`
			Lure     string         `json:"lure"`
			Team     string         `json:"team"`
			People   int            `json:"people"`
			By       site.Principal `json:"by"`
		}{id, x.ID, team, len(people), by})}, nil
	})
}

// AlsoTeaches is what a person's lesson about phishing teaches besides: what a drill of theirs failed.
func AlsoTeaches(ctx context.Context, tx pgx.Tx, person, module string) ([]activity.Verb, error) {
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

// DrillResults are all mails with what was done with them, in the order in which they were sent.
func (s *Store) DrillResults(ctx context.Context) ([]exercise.DrillResult, error) {
	rows, err := s.Pool.Query(ctx, `SELECT person, campaign::text, lure, sent, opened, clicked, submitted, reported
		FROM training.mail ORDER BY sent, id`)
	if err != nil {
		return nil, fmt.Errorf("read mails: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (exercise.DrillResult, error) {
		var d exercise.DrillResult
		var opened, clicked, submitted, reported *time.Time
		err := row.Scan(&d.Person, &d.Drill, &d.Lure, &d.Sent, &opened, &clicked, &submitted, &reported)
		d.Sent = d.Sent.UTC()
		for to, at := range map[*time.Time]*time.Time{&d.Opened: opened, &d.Clicked: clicked, &d.Submitted: submitted, &d.Reported: reported} {
			if at != nil {
				*to = at.UTC()
			}
		}
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("read mails: %w", err)
	}
	return list, nil
}
