package phishing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/outbox"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/postgres/audited"
)

// Store is the tables of campaigns and messages.
type Store struct{ *store.Store }

// Message is a message to one person. The time of a step is nil until the person takes it.
type Message struct {
	ID, Campaign                         uuid.UUID
	Person, TemplateID                   string
	Sent                                 time.Time
	Opened, Clicked, Submitted, Reported *time.Time
}

const messageColumns = `id, campaign, person, lure, sent, opened, clicked, submitted, reported`

func scanMessage(row pgx.Row) (Message, error) {
	var m Message
	err := row.Scan(
		(*[16]byte)(&m.ID),
		(*[16]byte)(&m.Campaign),
		&m.Person,
		&m.TemplateID,
		&m.Sent,
		&m.Opened,
		&m.Clicked,
		&m.Submitted,
		&m.Reported,
	)
	return m, err
}

// message returns a person's message; store.ErrNotFound if there is none with this id for the person.
func (s *Store) message(ctx context.Context, id uuid.UUID, person string) (Message, error) {
	const query = `SELECT ` + messageColumns + ` FROM training.mail WHERE id = $1 AND person = $2`
	m, err := scanMessage(s.Pool.QueryRow(ctx, query, [16]byte(id), person))
	if errors.Is(err, pgx.ErrNoRows) {
		return m, store.ErrNotFound
	}
	if err != nil {
		return m, fmt.Errorf("read message: %w", err)
	}
	return m, nil
}

func (s *Store) messages(ctx context.Context, query string, args ...any) ([]Message, error) {
	rows, err := s.Pool.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Message, error) { return scanMessage(row) })
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	return all, nil
}

const messagesShown = 100 // in a mailbox, and of a campaign

// messagesOf returns a person's messages, the newest first.
func (s *Store) messagesOf(ctx context.Context, person string) ([]Message, error) {
	return s.messages(ctx, `SELECT `+messageColumns+` FROM training.mail
		WHERE person = $1 ORDER BY sent DESC, id LIMIT $2`, person, messagesShown)
}

// steps are the steps that a person can take: how each is stored, its audit kind and its event.
var steps = map[string]struct {
	update string // returns the time of the click
	kind   string // of the audit row
	event  string // last part of the event's id; empty: the step is no event
}{
	stepOpened: {
		`UPDATE training.mail SET opened = $2 WHERE id = $1 AND opened IS NULL RETURNING clicked`,
		"drill.opened",
		"",
	},
	stepClicked: {
		`UPDATE training.mail SET clicked = $2 WHERE id = $1 AND clicked IS NULL RETURNING clicked`,
		"drill.clicked",
		"clicked",
	},
	stepSubmitted: {
		`UPDATE training.mail SET submitted = $2, clicked = coalesce(clicked, $2)
			WHERE id = $1 AND submitted IS NULL RETURNING clicked`,
		"drill.submitted",
		"submitted",
	},
	stepReported: {
		`UPDATE training.mail SET reported = $2 WHERE id = $1 AND reported IS NULL RETURNING clicked`,
		"drill.reported",
		"reported",
	},
}

// recordStep stores a step the first time that it is taken, at the lab's time. The message, the event and the audit row
// commit together.
func (s *Store) recordStep(ctx context.Context, m Message, x Template, step string, at time.Time) error {
	how := steps[step]
	return s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		err := tx.QueryRow(ctx, how.update, [16]byte(m.ID), at).Scan(&m.Clicked)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil // the step was taken before
		}
		if err != nil {
			return nil, fmt.Errorf("record %s: %w", step, err)
		}
		id := ""
		if how.event != "" && !x.Ordinary {
			e := eventOf(m, x, step, at)
			id = e.ID
			if err := outbox.Insert(ctx, tx, e); err != nil {
				return nil, err
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

// eventOf is the training event of a step. Clicking and submitting fail an assessment; reporting passes a module.
func eventOf(m Message, x Template, step string, at time.Time) activity.Event {
	failed, passed := 0.0, 1.0
	e := activity.Event{
		ID: "training:drill-" + m.ID.String() + "-" + steps[step].event, At: at, Person: m.Person,
		Source: activity.Training, Verb: activity.FailedAssessment, Module: phishingModule, Score: &failed,
		Detail: detailPrefix + "clicked the link in “" + x.Subject + "”",
	}
	switch step {
	case stepSubmitted:
		e.Detail = detailPrefix + "typed something into the form behind “" + x.Subject + "”"
	case stepReported:
		e.Verb, e.Module, e.Score = activity.TrainingPassed, words.ReportModule, &passed
		e.Detail = detailPrefix + "reported “" + x.Subject + "”"
		e.Teaches = []activity.Verb{activity.PhishingClick}
		if m.Clicked != nil {
			e.Teaches = append(e.Teaches, activity.FailedAssessment)
		}
	}
	return e
}

// campaign is a campaign with the number of people who took each step.
type campaign struct {
	ID                                         uuid.UUID
	TemplateID, Team                           string
	Begun                                      time.Time
	Sent, Opened, Clicked, Submitted, Reported int
}

const campaignColumns = `c.id, c.lure, c.team, c.begun,
		count(m.id), count(m.opened), count(m.clicked), count(m.submitted), count(m.reported)
	FROM training.campaign c LEFT JOIN training.mail m ON m.campaign = c.id AND m.lure = c.lure`

func scanCampaign(row pgx.CollectableRow) (campaign, error) {
	var c campaign
	err := row.Scan(
		(*[16]byte)(&c.ID),
		&c.TemplateID,
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

// campaigns returns the latest campaigns, the newest first.
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

// campaign returns a campaign and its messages, the furthest step first; store.ErrNotFound if there is none.
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
	all, err := s.messages(ctx, `SELECT `+messageColumns+` FROM training.mail WHERE campaign = $1 AND lure = $2
		ORDER BY coalesce(submitted, clicked, reported, opened) DESC NULLS LAST, person LIMIT $3`,
		[16]byte(id), c.TemplateID, messagesShown)
	return c, all, err
}

// beginCampaign sends the message x, and an ordinary message as well, to people at the lab's time.
func (s *Store) beginCampaign(
	ctx context.Context,
	x, ordinary Template,
	team string,
	people []string,
	at time.Time,
	by site.Principal,
) (uuid.UUID, error) {
	id := uuid.New()
	return id, s.Write(ctx, func(tx pgx.Tx) ([]audited.Row, error) {
		_, err := tx.Exec(ctx, `INSERT INTO training.campaign (id, lure, team, begun) VALUES ($1, $2, $3, $4)`,
			[16]byte(id), x.ID, team, at)
		if err != nil {
			return nil, fmt.Errorf("store campaign: %w", err)
		}
		for _, kind := range []string{x.ID, ordinary.ID} {
			_, err := tx.Exec(ctx, `INSERT INTO training.mail (campaign, person, lure, sent)
				SELECT $1, person, $2, $3 FROM unnest($4::text[]) AS p (person)`, [16]byte(id), kind, at, people)
			if err != nil {
				return nil, fmt.Errorf("store messages: %w", err)
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

// AlsoTeaches returns the verbs that passing a module teaches against in addition to the catalogue: a failed
// assessment, if the module is about phishing and the person has clicked in a campaign.
func AlsoTeaches(ctx context.Context, tx pgx.Tx, person, module string) ([]activity.Verb, error) {
	if module != phishingModule {
		return nil, nil
	}
	var clicked bool
	const query = `SELECT EXISTS (SELECT FROM training.mail WHERE person = $1 AND clicked IS NOT NULL)`
	if err := tx.QueryRow(ctx, query, person).Scan(&clicked); err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	if !clicked {
		return nil, nil
	}
	return []activity.Verb{activity.FailedAssessment}, nil
}

// Results returns all messages with their steps, in the order in which they were sent.
func (s *Store) Results(ctx context.Context) ([]exercise.DrillResult, error) {
	rows, err := s.Pool.Query(ctx, `SELECT person, campaign::text, lure, sent, opened, clicked, submitted, reported
		FROM training.mail ORDER BY sent, id`)
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (exercise.DrillResult, error) {
		var d exercise.DrillResult
		var opened, clicked, submitted, reported *time.Time
		err := row.Scan(&d.Person, &d.Drill, &d.Lure, &d.Sent, &opened, &clicked, &submitted, &reported)
		d.Sent = d.Sent.UTC()
		d.Opened, d.Clicked, d.Submitted, d.Reported = utc(opened), utc(clicked), utc(submitted), utc(reported)
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("read messages: %w", err)
	}
	return list, nil
}

// utc is a time in UTC; zero for nil.
func utc(at *time.Time) time.Time {
	if at == nil {
		return time.Time{}
	}
	return at.UTC()
}
