// Package routine is what the people of a simulated company do, day by day: neutral acts, which synth/world
// turns into the payloads of each vendor.
package routine

import (
	"time"

	"example.org/security-training/services/activity"
)

// Act is one thing that one person did, before any vendor reported it. Its verb is the risk vocabulary's: an act of
// a risky verb leaves all the traces that the verb needs (git.secret_committed is a push, an alert and its location),
// an act of a harmless verb (git.commit, iam.sign_in, jira.updated …) leaves an ordinary record.
//
// Acts of source training are no vendor's: they go to the risk scorer as training events by way of Event.
type Act struct {
	// ID is stable and made from the seed: 24 hex digits, unique in a company. Vendors' own ids are derived from it.
	ID string `json:"id"`
	// At is when it happened, with the person's own offset.
	At     time.Time       `json:"at"`
	Person string          `json:"person"` // the roster's id
	Source activity.Source `json:"source"`
	Verb   activity.Verb   `json:"verb"`

	Repository string `json:"repository,omitempty"` // git: short name ("payments")
	Path       string `json:"path,omitempty"`       // git: the file ("config/prod.env")
	Ticket     string `json:"ticket,omitempty"`     // jira: issue key ("SEC-1042"); the same ticket is overdue and closed
	Resource   string `json:"resource,omitempty"`   // iam: what was reached ("s3://customer-exports"); jira.export_approved: what may be exported
	Bytes      int64  `json:"bytes,omitempty"`      // iam.data_export, git.large_file: size in bytes
	// Count is how often it happened in a row, seconds apart, each with records of its own; 0 means once. Month and Day
	// never set it; scenarios do ("times").
	Count int `json:"count,omitempty"`
	// Detail is one line for people: a commit message, a finding's title. It never holds a real secret.
	Detail string `json:"detail,omitempty"`

	Module  string          `json:"module,omitempty"`  // training
	Teaches []activity.Verb `json:"teaches,omitempty"` // training.passed
	Score   *float64        `json:"score,omitempty"`   // training.failed_assessment, training.passed: 0 to 1
}

// Event is the act as the risk scorer will come to know it, with the id given by the caller's rule for that vendor.
// It is exact for training acts, whose event is the act itself; tests use it for the others.
func (a Act) Event() activity.Event {
	return activity.Event{
		ID: string(a.Source) + ":" + a.ID, At: a.At, Person: a.Person, Source: a.Source, Verb: a.Verb, Detail: a.Detail,
		Module: a.Module, Teaches: a.Teaches, Score: a.Score, Ticket: a.Ticket, Resource: a.Resource, Bytes: a.Bytes,
	}
}
