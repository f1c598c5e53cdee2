// Package routine generates the activity of a simulated company's people, day by day, as vendor-neutral acts.
// synth/world turns them into the payloads of each vendor.
package routine

import (
	"time"

	"example.org/security-training/services/activity"
)

// Act is one act of one person, before any vendor reports it. Its verb is from the vocabulary of risk: an act of a
// risky verb makes all records that the verb needs (git.secret_committed is a push, an alert and its location), and an
// act of a harmless verb (git.commit, iam.sign_in, jira.updated …) makes an ordinary record.
//
// Acts of source training have no vendor: they are sent to the risk scorer as training events; see Event.
type Act struct {
	// ID is derived from the seed: 24 hex digits, unique in a company. Vendors' ids are derived from it.
	ID string `json:"id"`
	// At is when it happened, with the person's offset.
	At     time.Time       `json:"at"`
	Person string          `json:"person"` // the roster's id
	Source activity.Source `json:"source"`
	Verb   activity.Verb   `json:"verb"`

	Repository string `json:"repository,omitempty"` // git: short name ("payments")
	Path       string `json:"path,omitempty"`       // git: the file ("config/prod.env")
	Ticket     string `json:"ticket,omitempty"`     // jira: issue key ("SEC-1042"); the same ticket is overdue and closed
	// iam: what was reached ("s3://customer-exports"); jira.export_approved: what may be exported
	Resource string `json:"resource,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"` // iam.data_export, git.large_file: size in bytes
	// Count is how often it happened in a row, seconds apart, each time with its own records; 0 means once. Month and Day
	// do not set it; scenarios do ("times").
	Count int `json:"count,omitempty"`
	// Detail is one line for people: a commit message, a finding's title. It never holds a real secret.
	Detail string `json:"detail,omitempty"`

	Module  string          `json:"module,omitempty"`  // training
	Teaches []activity.Verb `json:"teaches,omitempty"` // training.passed
	Score   *float64        `json:"score,omitempty"`   // training.failed_assessment, training.passed: 0 to 1
}

// Event is the act as an event for the risk scorer; the caller gives the id. It is exact for training acts; for others
// it is used by tests.
func (a Act) Event() activity.Event {
	return activity.Event{
		ID: string(a.Source) + ":" + a.ID, At: a.At, Person: a.Person, Source: a.Source, Verb: a.Verb, Detail: a.Detail,
		Module: a.Module, Teaches: a.Teaches, Score: a.Score, Ticket: a.Ticket, Resource: a.Resource, Bytes: a.Bytes,
	}
}
