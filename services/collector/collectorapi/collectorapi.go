// Package collectorapi is what a collector's route for other workloads is called, and what it answers. The routes for
// vendors are in package source.
package collectorapi

import (
	"example.org/security-training/services/activity"
	"example.org/security-training/services/topology"
)

// RouteSpool answers with a Spool.
const RouteSpool topology.Route = "GET /v1/spool"

// Spool is the state of a collector's spool.
type Spool struct {
	Counts
	Watermark uint64            `json:"watermark"` // the highest sequence up to which every entry came to its end
	Awaiting  int               `json:"awaiting"`  // records that wait for another to say whose they are
	Refused   map[string]uint64 `json:"refused"`   // since the start, by reason
	Dead      []DeadLetter      `json:"dead"`      // the newest ten
}

// Counts are a spool's counters: what was accepted is spooled, stored, duplicate, dead-lettered or rejected, always.
type Counts struct {
	Accepted     uint64 `json:"accepted"`
	Spooled      uint64 `json:"spooled"`
	Stored       uint64 `json:"stored"`
	Duplicate    uint64 `json:"duplicate"`
	DeadLettered uint64 `json:"dead_lettered"`
	Rejected     uint64 `json:"rejected"`
	// GivenUp is why events were rejected or dead-lettered: how many by reason, without what a reason says behind a colon.
	GivenUp     map[string]uint64 `json:"given_up,omitempty"`
	Seq         uint64            `json:"seq"`        // of the newest entry
	Deliveries  uint64            `json:"deliveries"` // that were new
	Redelivered uint64            `json:"redelivered"`
}

// DeadLetter is an event that failed too often, and why.
type DeadLetter struct {
	Seq    uint64          `json:"seq"`
	Reason string          `json:"reason"`
	Event  *activity.Event `json:"event,omitempty"`
}
