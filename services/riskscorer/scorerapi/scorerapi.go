// Package scorerapi holds the risk scorer's routes and their bodies. People and scores are in package risk, events in
// package activity.
package scorerapi

import (
	"fmt"
	"strings"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
)

// Routes of the risk scorer. The topology says who may call which.
const (
	// NDJSON: activity.Entry, answered by activity.Receipt
	RouteEvents       topology.Route = "POST /v1/events"
	RoutePeople       topology.Route = "GET /v1/people"               // a list of risk.Standing
	RoutePutPeople    topology.Route = "PUT /v1/people"               // a list of risk.Person; answer: RosterAnswer
	RouteRisk         topology.Route = "GET /v1/people/{person}/risk" // Rescored
	RouteOrganisation topology.Route = "GET /v1/organisation"         // risk.Organisation
	RouteWatermarks   topology.Route = "GET /v1/watermarks"           // Progress
	RouteClock        topology.Route = "GET /v1/clock"                // risk.Clock
	RoutePutClock     topology.Route = "PUT /v1/clock"                // ClockChange
	RouteAudit                       = audit.RouteRows                // NDJSON of audit.Row
	RouteReset                       = exercise.RouteReset            // ResetOrder; answer: ResetAnswer
)

// RosterAnswer says what PUT /v1/people did.
type RosterAnswer struct {
	People     int   `json:"people"`     // of the request
	Attributed int64 `json:"attributed"` // events of unknown accounts that now have an owner
}

// ClockChange is the body of PUT /v1/clock. A field that is left out does not change.
type ClockChange struct {
	Now  time.Time `json:"now,omitzero"`
	Pace float64   `json:"pace,omitzero"`
}

// ResetOrder is the body of POST /v1/reset, with exactly one of its fields: delete everything after a position of the
// event log (0 for all), or only these people. GET /v1/watermarks gives the position after the history has arrived.
type ResetOrder struct {
	After  *int64   `json:"after,omitempty"`
	People []string `json:"people,omitempty"`
}

// ResetAnswer says how much was deleted.
type ResetAnswer struct {
	Events int64 `json:"events"`
	People int64 `json:"people"`
}

// Rescored is the answer of GET /v1/people/{person}/risk: the assessment and, for a past position of the log, the score
// that was stored at it by the same profile, if there is one.
type Rescored struct {
	risk.Assessment
	Stored *StoredScore `json:"stored,omitempty"`
}

// StoredScore is a score as it was stored when events arrived. Scoring its person by its profile, at its time and as of
// its position, gives the same score.
type StoredScore struct {
	At       time.Time  `json:"at"`
	Position int64      `json:"position"`
	Profile  string     `json:"profile"`
	Version  int        `json:"version"`
	Role     risk.Role  `json:"role"`
	Score    risk.Score `json:"score"`
	Level    risk.Level `json:"level"`
}

// Watermark is how far one collector's events have arrived.
type Watermark struct {
	Collector string    `json:"collector"`
	Seq       uint64    `json:"seq"` // up to this number, all entries of its spool are final
	At        time.Time `json:"at"`  // wall clock
}

// Progress is the answer of GET /v1/watermarks.
type Progress struct {
	Position    int64       `json:"position"` // of the event log
	Watermarks  []Watermark `json:"watermarks"`
	Events      int64       `json:"events"`
	Late        int64       `json:"late"`
	DeadLetters int64       `json:"dead_letters"`
	Unknown     []Account   `json:"unknown"` // accounts without an owner
}

// Account is a vendor account without an owner.
type Account struct {
	Account string    `json:"account"`
	Events  int64     `json:"events"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

// Kinds of the scorer's audit rows. The detail of each is the JSON of the type named.
const (
	KindAssessment = "assessment"  // Assessed
	KindDeadLetter = "dead_letter" // Unfit
	KindRejected   = "rejected"    // Unfit
	KindClock      = "clock"       // risk.Clock
	KindReset      = "reset"       // Forgotten
	KindRoster     = "roster"      // Enrolled
)

// Assessed is a person's score after new events. Scoring the person by the profile, at that time and as of that
// position, gives the same score.
type Assessed struct {
	Profile  string     `json:"profile"`
	Score    risk.Score `json:"score"`
	Level    risk.Level `json:"level"`
	Position int64      `json:"position"` // of the event log
	At       time.Time  `json:"at"`       // lab time
	Events   []string   `json:"events"`   // the new ones
}

// String is one line for people.
func (a Assessed) String() string {
	return fmt.Sprintf(
		"%s by %s: %s at position %d, %s; events %s",
		a.Score, a.Profile, a.Level, a.Position, a.At.Format(time.RFC3339Nano), strings.Join(a.Events, " "),
	)
}

// Unfit says why an event was not stored.
type Unfit struct {
	Reason string `json:"reason"`
}

// Enrolled says what PUT /v1/people changed. A request that changes nothing has no row.
type Enrolled struct {
	Added      int      `json:"added"`      // people who were not in the roster
	Changed    []string `json:"changed"`    // ids of people of whom something is different now
	Attributed int64    `json:"attributed"` // events of unknown accounts that now have an owner
}

// Forgotten says what a reset deleted: what came after a position, or what belonged to people.
type Forgotten struct {
	After *int64 `json:"after,omitempty"`
	ResetAnswer
}
