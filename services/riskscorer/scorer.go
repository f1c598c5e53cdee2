// Package riskscorer is the service that turns people's activity into risk. It takes events from the collectors and the
// learning system, finds the person behind an account, stores event, score and audit row in one transaction, and
// answers who is at which risk and why. It also keeps the roster and the lab's clock.
//
// All its state is in PostgreSQL, so several replicas may run. A replica caches people's events to avoid reading them
// again.
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
	pool      *pgxpool.Pool
	profile   *risk.Profile
	shadow    *risk.Profile                  // scores the same events for comparison; nil for none
	ids       func(topology.Workload) string // a caller's SPIFFE ID
	refused   func(audit.Entry)              // writes a refusal to the decision log
	log       *slog.Logger
	slots     chan struct{} // one for each batch in progress
	cache     *cache
	standings *standings
}

// Batches processed concurrently, and how long one waits for a slot before it is answered 429.
const (
	batchesAtOnce = 4
	slotWithin    = 5 * time.Second
)

// New returns a Scorer that scores by profile. decisions may be nil: then refusals are not logged.
func New(pool *pgxpool.Pool, profile *risk.Profile, trustDomain string, decisions *audit.Log,
	log *slog.Logger) *Scorer {
	s := &Scorer{
		pool: pool, profile: profile, log: log, slots: make(chan struct{}, batchesAtOnce),
		ids:     func(w topology.Workload) string { return "spiffe://" + trustDomain + "/" + w.Name },
		refused: func(audit.Entry) {},
		cache:   newCache(cacheBytes),
	}
	s.standings = newStandings(s)
	if decisions != nil {
		s.refused = decisions.Write
	}
	return s
}

// Shadow adds a second profile that scores the same events, to show where it differs. Call it before the first batch.
func (s *Scorer) Shadow(p *risk.Profile) { s.shadow = p }

// profiles are the profiles that score each batch, the scorer's own first.
func (s *Scorer) profiles() []*risk.Profile {
	if s.shadow == nil || s.shadow == s.profile {
		return []*risk.Profile{s.profile}
	}
	return []*risk.Profile{s.profile, s.shadow}
}

// softLimit is the soft memory limit in bytes, unless GOMEMLIMIT sets one.
const softLimit = 200 << 20

// Run joins the mesh and serves until ctx ends. RISK_PROFILE names the profile, RISK_SHADOW a second one to compare
// with.
func Run(ctx context.Context, lookup env.Lookup) error {
	r := env.Read(lookup)
	name, second := r.Optional("RISK_PROFILE", risk.Default), r.Optional("RISK_SHADOW", "")
	if r.Optional("GOMEMLIMIT", "") == "" { // otherwise the runtime has read it
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
	if second != "" {
		if shadow, err = risk.ProfileByName(second); err != nil {
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
	go s.standings.keepFresh(ctx)
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

// unavailable turns a failed connection to the database into a 503 with Retry-After, and logs the cause. Other errors
// stay as they are.
func (s *Scorer) unavailable(err error) error {
	var answered *httpjson.Error
	if err == nil || errors.As(err, &answered) || !transient(err) {
		return err
	}
	s.log.Warn("the database is unavailable", "error", err)
	return httpjson.Errorf(http.StatusServiceUnavailable, "database_away", "the database does not answer; try again").
		After(time.Second)
}

// transient says whether the same statement may succeed when it is tried again.
func transient(err error) bool {
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) {
		switch refusal.Code[:2] {
		case "08", "25", "40", "53", "57", "58": // connection, transaction state, rollback, resources, operator, system
			return true
		}
		return false
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded)
}
