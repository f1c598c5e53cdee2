// Package riskscorer is the service that turns what people did into risk: it takes events from collectors and the
// learning system, finds the person behind an account, stores event, score and audit row in one transaction, and answers
// who is at which risk and why. It also keeps the roster and the lab's clock.
//
// Everything that it knows is in PostgreSQL, so several replicas may run; a replica remembers people's events only to
// read them once.
package riskscorer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/env"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/postgres"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
)

// Scorer answers the routes of the risk scorer. Its methods are mesh handlers.
type Scorer struct {
	pool    *pgxpool.Pool
	profile *risk.Profile
	shadow  *risk.Profile                  // scores the same events beside it; nil for none
	ids     func(topology.Workload) string // a caller's SPIFFE ID
	refused func(audit.Entry)              // writes a refusal to the log of decisions
	log     *slog.Logger
	turns   chan struct{} // batches at work
	memory  *memory
	company *keeper
}

// Batches at work at once; a batch that gets no turn in time is answered 429.
const (
	batchesAtOnce = 4
	turnWithin    = 5 * time.Second
)

// New makes a Scorer that scores by profile. decisions may be nil where no log of decisions is kept.
func New(pool *pgxpool.Pool, profile *risk.Profile, trustDomain string, decisions *audit.Log, log *slog.Logger) *Scorer {
	s := &Scorer{
		pool: pool, profile: profile, log: log, turns: make(chan struct{}, batchesAtOnce),
		ids:     func(w topology.Workload) string { return "spiffe://" + trustDomain + "/" + w.Name },
		refused: func(audit.Entry) {},
		memory:  newMemory(mostRemembered), company: newKeeper(),
	}
	if decisions != nil {
		s.refused = decisions.Write
	}
	return s
}

// Shadow has another profile score the same events beside the scorer's own, to show where they differ. Call it before
// the first batch.
func (s *Scorer) Shadow(p *risk.Profile) { s.shadow = p }

// profiles are those that score each batch, the scorer's own first.
func (s *Scorer) profiles() []*risk.Profile {
	if s.shadow == nil || s.shadow == s.profile {
		return []*risk.Profile{s.profile}
	}
	return []*risk.Profile{s.profile, s.shadow}
}

// softLimit is the memory at which garbage is collected more often, in bytes, where GOMEMLIMIT does not say.
const softLimit = 200 << 20

// Run joins the mesh and serves until ctx ends. RISK_PROFILE names the profile, RISK_SHADOW another one beside it.
func Run(ctx context.Context, lookup env.Lookup) error {
	r := env.Read(lookup)
	name, beside := r.Optional("RISK_PROFILE", risk.Default), r.Optional("RISK_SHADOW", "")
	if r.Optional("GOMEMLIMIT", "") == "" { // else the runtime has read it
		debug.SetMemoryLimit(softLimit)
	}
	if err := r.Err(); err != nil {
		return err
	}
	profile, err := risk.ProfileByName(name)
	if err != nil {
		return err
	}
	var shadow *risk.Profile
	if beside != "" {
		if shadow, err = risk.ProfileByName(beside); err != nil {
			return err
		}
	}
	node, err := mesh.FromEnv(ctx, lookup)
	if err != nil {
		return err
	}
	pool, err := postgres.Open(ctx, node, lookup)
	if err != nil {
		return err
	}
	defer pool.Close()
	s := New(pool, profile, node.Topology().TrustDomain, node.Audit(), node.Log())
	s.Shadow(shadow)
	s.Register(node)
	go s.keepCompany(ctx)
	return node.Serve(ctx)
}

// Register adds every route to the node.
func (s *Scorer) Register(node *mesh.Node) {
	node.Handle(scorerapi.RouteEvents, s.Events)
	node.Handle(scorerapi.RoutePeople, s.People)
	node.Handle(scorerapi.RoutePutPeople, s.PutPeople)
	node.Handle(scorerapi.RouteRisk, s.Risk)
	node.Handle(scorerapi.RouteOrganisation, s.Organisation)
	node.Handle(scorerapi.RouteWatermarks, s.Watermarks)
	node.Handle(scorerapi.RouteClock, s.Clock)
	node.Handle(scorerapi.RoutePutClock, s.PutClock)
	node.Handle(scorerapi.RouteAudit, s.Audit)
	node.Handle(scorerapi.RouteReset, s.Reset)
}

// away turns the error of a database that is not there, or not there any more, into a 503 with Retry-After, and logs what
// it was. An error of a statement stays what it is.
func (s *Scorer) away(err error) error {
	var answered *httpjson.Error
	if err == nil || errors.As(err, &answered) || !gone(err) {
		return err
	}
	s.log.Warn("the database is away", "error", err)
	return httpjson.Errorf(http.StatusServiceUnavailable, "database_away", "the database does not answer; try again").After(time.Second)
}

// gone says whether trying the same thing again may do.
func gone(err error) bool {
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) {
		switch refusal.Code[:2] {
		case "08", "25", "40", "53", "57", "58": // connection, transaction gone, rolled back, resources, operator, system
			return true
		}
		return false
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded)
}
