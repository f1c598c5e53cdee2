// Package activity is the vocabulary of people's activity: one Event for each act, in one form for all vendors.
//
// An Event crosses the wire as one JSON object; batches are NDJSON of Entry lines, answered by one Receipt per line.
package activity

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Source is the system that an event came from. Table lists them all.
type Source string

// Verb says what was done, as "source.what_happened".
type Verb string

// Event is one act of one person.
type Event struct {
	// ID consists of the source and the vendor's identifier ("git:commit/payments/3f2a…"), so that a redelivery has the
	// same id.
	ID string `json:"id"`
	// At is when it happened, RFC 3339 with the person's offset.
	At time.Time `json:"at"`
	// Person is the employee's id. Collectors leave it empty: the risk scorer finds the person behind Accounts.
	Person string `json:"person,omitempty"`
	// Accounts are vendor accounts as "system:name" ("github:mira-k", "email:mira@example.org", "jira:5b10a…",
	// "okta:mira@example.org", "aws:mira"), best first; the first one known to the roster names the person.
	Accounts []string `json:"accounts,omitempty"`
	Source   Source   `json:"source"`
	Verb     Verb     `json:"verb"`
	// Detail is one line for people ("payments: config/prod.env"); it never holds a secret.
	Detail string `json:"detail,omitempty"`

	Module   string   `json:"module,omitempty"`   // training: the module
	Teaches  []Verb   `json:"teaches,omitempty"`  // training.passed: the verbs that the module is about
	Score    *float64 `json:"score,omitempty"`    // training: share of right answers, 0 to 1
	Ticket   string   `json:"ticket,omitempty"`   // jira: the key
	Resource string   `json:"resource,omitempty"` // iam.data_export and jira.export_approved: what was exported
	Bytes    int64    `json:"bytes,omitempty"`    // iam.data_export: how much, in bytes
}

// Entry is one line of a batch: the collector's sequence number and the event. An entry of a record without an event
// only moves the watermark.
type Entry struct {
	Seq   uint64 `json:"seq"`
	Event *Event `json:"event,omitempty"`
}

// Status is the result of one Entry.
type Status string

// Results of an Entry. All of them are final: the spool may delete the entry.
const (
	Stored       Status = "stored"
	Duplicate    Status = "duplicate"
	DeadLettered Status = "dead_lettered"
	// Rejected is a refusal that a retry does not change (a foreign source, a time too far ahead); see Receipt.Reason.
	Rejected Status = "rejected"
)

// Reasons of receipts that are neither stored nor duplicate; a colon and more text may follow.
const (
	TooFarAhead    = "too_far_ahead"    // of the lab's clock
	InvalidEvent   = "invalid_event"    // see Event.Validate
	CannotBeStored = "cannot_be_stored" // it failed repeatedly
)

// Receipt answers one Entry, in the order of the batch.
type Receipt struct {
	Seq    uint64 `json:"seq"`
	ID     string `json:"id,omitempty"`
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"`
}

var (
	idPattern   = regexp.MustCompile(`^[a-z]+:[!-~]{1,250}$`)
	verbPattern = regexp.MustCompile(`^[a-z]+\.[a-z_]{1,40}$`)
)

// Validate returns all faults of an event, nil if there is none.
func (e Event) Validate() error {
	var faults []error
	if !idPattern.MatchString(e.ID) {
		faults = append(faults, fmt.Errorf("id %q: want source:vendor-id in printable ASCII", e.ID))
	}
	if e.At.IsZero() {
		faults = append(faults, errors.New("at: missing"))
	}
	if !e.Source.Listed() {
		faults = append(faults, fmt.Errorf("source %q: want one of %v", e.Source, Sources()))
	}
	if !e.Verb.WellFormed() {
		faults = append(faults, fmt.Errorf("verb %q: want source.what_happened", e.Verb))
	} else if s := e.Verb.Source(); s != e.Source {
		faults = append(faults, fmt.Errorf("verb %q is not of source %q", e.Verb, e.Source))
	}
	if e.Person == "" && len(e.Accounts) == 0 {
		faults = append(faults, errors.New("accounts: missing, and no person named"))
	}
	if e.Bytes < 0 {
		faults = append(faults, fmt.Errorf("bytes %d: negative", e.Bytes))
	}
	if e.Score != nil && !(*e.Score >= 0 && *e.Score <= 1) {
		faults = append(faults, fmt.Errorf("score %v: outside 0 to 1", *e.Score))
	}
	return errors.Join(faults...)
}

// WellFormed tells whether the verb is written as source.what_happened. Neither part need be listed.
func (v Verb) WellFormed() bool { return verbPattern.MatchString(string(v)) }

// Source is the part of the verb before the dot.
func (v Verb) Source() Source {
	for i, r := range v {
		if r == '.' {
			return Source(v[:i])
		}
	}
	return ""
}
