// Package lmsapi is what the learning system's routes for other workloads are called, and what they take and answer.
// The bodies that the conductor shares with the console are in package exercise, and events are in package activity.
package lmsapi

import (
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/topology"
)

// Routes of the learning system. Who may call which stands in the topology.
const (
	RouteLinks        topology.Route = "POST /v1/links"          // LinkOrder, answered by Link
	RouteRevocations  topology.Route = "POST /v1/revocations"    // Revocation, answered by Revocation
	RouteTraining     topology.Route = "PUT /v1/training"        // TrainingRecords
	RouteXAPI         topology.Route = "GET /v1/xapi"            // statements as xAPI has them
	RouteResults      topology.Route = "GET /v1/results"         // exercise.Results
	RouteReset                       = exercise.RouteReset       // ResetOrder
	RouteAudit                       = audit.RouteRows           // audit.Row, one a line
	RouteExercises    topology.Route = "GET /v1/exercises"       // a list of exercise.Exercise
	RoutePutExercise  topology.Route = "POST /v1/exercises"      // exercise.Exercise
	RouteOrders       topology.Route = "GET /v1/orders"          // exercise.Orders
	RouteReportOrder  topology.Route = "POST /v1/orders/{order}" // exercise.Report
	RoutePutScenarios topology.Route = "PUT /v1/scenarios"       // exercise.Scenarios
	RoutePostFeed     topology.Route = "POST /v1/feed"           // exercise.Feed
)

// LinkOrder is the body of POST /v1/links: a person's id, or the role "instructor" or "admin". With a person the role
// may be left out, or be "learner", or "manager" for somebody who must have reports.
type LinkOrder struct {
	Person string `json:"person,omitempty"`
	Role   string `json:"role,omitempty"`
}

// Link is what POST /v1/links answers.
type Link struct {
	Path    string    `json:"path"` // on the people's port; holds the token, which is told nowhere else
	Person  string    `json:"person,omitempty"`
	Role    string    `json:"role"` // learner, manager, instructor or admin
	Expires time.Time `json:"expires"`
}

// Revocation is the body and the answer of POST /v1/revocations: every client certificate of this name and role that
// begins at Before or earlier is refused from the answer on.
type Revocation struct {
	Name   string    `json:"name"`
	Role   string    `json:"role"`   // person, instructor or admin, as the certificate has it
	Before time.Time `json:"before"` // by the clock of who issues the certificates
}

// TrainingRecords is the body of PUT /v1/training: training records of before, as events of source training that name
// their person.
type TrainingRecords struct {
	Events []activity.Event `json:"events"`
}

// ResetOrder is the body of POST /v1/reset: these exercises, and what these people, their cast, were taught; or All,
// with the Mark of the results that were kept.
type ResetOrder struct {
	All       bool     `json:"all,omitempty"`
	Mark      string   `json:"mark,omitempty"`
	Exercises []string `json:"exercises,omitempty"`
	People    []string `json:"people,omitempty"`
}
