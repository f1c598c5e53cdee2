// Package scorerapi is what the risk scorer's routes are called, and what they take and answer. What people and scores
// look like is in package risk, and events are in package activity.
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

// Routes of the risk scorer. Who may call which stands in the topology.
const (
	RouteEvents       topology.Route = "POST /v1/events"              // activity.Entry, answered by activity.Receipt, one a line
	RoutePeople       topology.Route = "GET /v1/people"               // a list of risk.Standing
	RoutePutPeople    topology.Route = "PUT /v1/people"               // a list of risk.Person, answered by RosterAnswer
	RouteRisk         topology.Route = "GET /v1/people/{person}/risk" // Rescored
	RouteOrganisation topology.Route = "GET /v1/organisation"         // risk.Organisation
	RouteWatermarks   topology.Route = "GET /v1/watermarks"           // Progress
	RouteClock        topology.Route = "GET /v1/clock"                // risk.Clock
	RoutePutClock     topology.Route = "PUT /v1/clock"                // ClockChange
	RouteAudit                       = audit.RouteRows                // audit.Row, one a line
	RouteReset                       = exercise.RouteReset            // ResetOrder, answered by ResetAnswer
)

// RosterAnswer says what PUT /v1/people did.
type RosterAnswer struct {
	People     int   `json:"people"`     // of the request
	Attributed int64 `json:"attributed"` // events of unknown accounts that became somebody's
}

// ClockChange is the body of PUT /v1/clock; what is left out stays.
type ClockChange struct {
	Now  time.Time `json:"now,omitzero"`
	Pace float64   `json:"pace,omitzero"`
}

// ResetOrder is the body of POST /v1/reset, with one of both: forget everything after a position of the event log, 0
// for all, or these people alone. The position to go back to is that of GET /v1/watermarks once history has arrived.
type ResetOrder struct {
	After  *int64   `json:"after,omitempty"`
	People []string `json:"people,omitempty"`
}

// ResetAnswer says what was forgotten.
type ResetAnswer struct {
	Events int64 `json:"events"`
	People int64 `json:"people"`
}

// Rescored is what GET /v1/people/{person}/risk answers: the assessment and, for a past one, the score that was stored
// at that position of the log under that profile, if one was.
type Rescored struct {
	risk.Assessment
	Stored *StoredScore `json:"stored,omitempty"`
}

// StoredScore is a score as it was stored when events arrived. Rescoring its person by its profile, at its time and as
// of its position, gives it again.
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
	Seq       uint64    `json:"seq"` // the highest of its spool that is final, and all before it
	At        time.Time `json:"at"`  // wall clock
}

// Progress is what GET /v1/watermarks answers.
type Progress struct {
	Position    int64       `json:"position"` // of the event log
	Watermarks  []Watermark `json:"watermarks"`
	Events      int64       `json:"events"`
	Late        int64       `json:"late"`
	DeadLetters int64       `json:"dead_letters"`
	Unknown     []Account   `json:"unknown"` // accounts that belong to nobody
}

// Account is a vendor account that belongs to nobody.
type Account struct {
	Account string    `json:"account"`
	Events  int64     `json:"events"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

// Kinds of the rows that the scorer writes to its audit; the detail of each is the JSON of the type named.
const (
	KindAssessment = "assessment"  // Assessed
	KindDeadLetter = "dead_letter" // Unfit
	KindRejected   = "rejected"    // Unfit
	KindClock      = "clock"       // risk.Clock
	KindReset      = "reset"       // Forgotten
)

// Assessed is a score that new events gave a person. Rescoring the person by the profile, at that time and as of that
// position, gives it again.
type Assessed struct {
	Profile  string     `json:"profile"`
	Score    risk.Score `json:"score"`
	Level    risk.Level `json:"level"`
	Position int64      `json:"position"` // of the event log
	At       time.Time  `json:"at"`       // lab time
	Events   []string   `json:"events"`   // that were new
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

// Forgotten is what a reset took away: what came after a position, or what was of people.
type Forgotten struct {
	After *int64 `json:"after,omitempty"`
	ResetAnswer
}
