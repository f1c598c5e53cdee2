// Package collectorapi holds the collector's route for other workloads and its answer. The routes for vendors are in
// package source.
package collectorapi

import (
	"example.org/security-training/services/activity"
	"example.org/security-training/services/topology"
)

// RouteSpool answers a Spool.
const RouteSpool topology.Route = "GET /v1/spool"

// Spool is the state of a collector's spool.
type Spool struct {
	Counts
	Watermark uint64            `json:"watermark"` // up to this sequence number, every entry is final
	Awaiting  int               `json:"awaiting"`  // records that wait for another record that names their person
	Refused   map[string]uint64 `json:"refused"`   // since the start, by reason
	Dead      []DeadLetter      `json:"dead"`      // the newest ten
}

// Counts are a spool's counters. Every accepted entry is spooled, stored, duplicate, dead-lettered or rejected.
type Counts struct {
	Accepted     uint64 `json:"accepted"`
	Spooled      uint64 `json:"spooled"`
	Stored       uint64 `json:"stored"`
	Duplicate    uint64 `json:"duplicate"`
	DeadLettered uint64 `json:"dead_lettered"`
	Rejected     uint64 `json:"rejected"`
	// GivenUp counts rejected and dead-lettered events by reason; the reason ends at its first colon.
	GivenUp     map[string]uint64 `json:"given_up,omitempty"`
	Seq         uint64            `json:"seq"`        // of the newest entry
	Deliveries  uint64            `json:"deliveries"` // new ones
	Redelivered uint64            `json:"redelivered"`
}

// DeadLetter is an event that was given up, with the reason.
type DeadLetter struct {
	Seq    uint64          `json:"seq"`
	Reason string          `json:"reason"`
	Event  *activity.Event `json:"event,omitempty"`
}
