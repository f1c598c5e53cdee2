// Package lmsapi defines the routes of the learning system for other workloads, and the bodies of their requests and
// answers. Bodies that the conductor shares with the console are in package exercise, events in package activity.
package lmsapi

import (
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/topology"
)

// Routes of the learning system. The topology says who may call which.
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

// LinkOrder is the body of POST /v1/links: a person's id, or the role "instructor" or "admin". For a person the role is
// empty, "learner", or "manager", which requires that the person has reports.
type LinkOrder struct {
	Person string `json:"person,omitempty"`
	Role   string `json:"role,omitempty"`
}

// Link is the answer of POST /v1/links.
type Link struct {
	Path    string    `json:"path"` // on the people's port, with the token
	Person  string    `json:"person,omitempty"`
	Role    string    `json:"role"` // learner, manager, instructor or admin
	Expires time.Time `json:"expires"`
}

// Revocation is the body and the answer of POST /v1/revocations. From the answer on, every client certificate of this
// name and role whose validity begins at Before or earlier is refused.
type Revocation struct {
	Name   string    `json:"name"`
	Role   string    `json:"role"`   // person, instructor or admin, as in the certificate
	Before time.Time `json:"before"` // by the issuer's clock
}

// TrainingRecords is the body of PUT /v1/training: records of earlier training, as events of source training that name
// a person.
type TrainingRecords struct {
	Events []activity.Event `json:"events"`
}

// ResetOrder is the body of POST /v1/reset. It deletes the exercises and the training records of the people, their
// cast; or, with All, everything, if Mark is the mark of the current results.
type ResetOrder struct {
	All       bool     `json:"all,omitempty"`
	Mark      string   `json:"mark,omitempty"`
	Exercises []string `json:"exercises,omitempty"`
	People    []string `json:"people,omitempty"`
}
