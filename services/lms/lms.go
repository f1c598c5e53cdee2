// Package lms is the learning system. It shows people their risk and the reasons for it, teaches them in lessons about
// their acts, grades the quizzes, and reports the results to the risk scorer, which lowers the score.
//
// Pages are rendered on the server and work without JavaScript. Text from other systems is never markup. Access is
// decided at each request by the session and the current roster: a learner sees their own pages, a manager those of the
// team, an instructor all.
package lms

import (
	"context"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"time"
	_ "time/tzdata"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/env"
	"example.org/security-training/services/llmgateway/gatewayapi"
	"example.org/security-training/services/lms/auditlog"
	"example.org/security-training/services/lms/auth"
	"example.org/security-training/services/lms/console"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/lms/outbox"
	"example.org/security-training/services/lms/phishing"
	"example.org/security-training/services/lms/report"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/lms/training"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/postgres"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
)

// Config is what an LMS needs.
type Config struct {
	Pool            *pgxpool.Pool
	Scorer          riskclient.Call
	Gateway         riskclient.Call
	Refusals        func(audit.Entry)         // receives every refusal on the people's port
	UnknownRefusals func(string, audit.Entry) // receives those of unknown users, with remote address; nil: Refusals does
	Topology        func() *topology.Topology // the topology in force, for the console; nil: none is shown
	Home            string                    // IRI of this system in exported statements; empty: "urn:security-training"
	Provider        *auth.Provider            // OpenID provider; nil: none
	DevDir          string                    // where pages are read from at each request; empty: those built in

	// Certificate returns the verified client certificate of a request; nil: mesh.PersonOf.
	Certificate func(*http.Request) (mesh.Certificate, bool)

	Log *slog.Logger
	Now func() time.Time // the wall clock; nil: time.Now
}

// LMS is a learning system: pages for people, and routes for other workloads. Its methods are safe for concurrent use.
type LMS struct {
	cfg      Config
	db       *store.Store
	scorer   *riskclient.Client
	auth     *auth.Auth
	site     *site.Site
	outbox   *outbox.Outbox
	phishing *phishing.Campaigns
	training *training.Training
	report   *report.Reports
	auditlog *auditlog.Log
	console  *console.Console
}

// New returns an LMS. Deliver must run for training events to reach the risk scorer.
func New(cfg Config) (*LMS, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Home == "" {
		cfg.Home = "urn:security-training"
	}
	l := &LMS{
		cfg: cfg, db: &store.Store{Pool: cfg.Pool},
	}
	l.scorer = riskclient.New(cfg.Scorer, cfg.Now)
	l.auth = auth.New(auth.Config{Provider: cfg.Provider, Now: cfg.Now, Log: cfg.Log}, l.db, l.scorer)
	var err error
	if l.site, err = site.New(site.Config{
		Recognise: l.auth.Recognise, Refusals: cfg.Refusals, UnknownRefusals: cfg.UnknownRefusals,
		Certificate: cfg.Certificate, Words: []template.FuncMap{console.Words()}, Log: cfg.Log, Dir: cfg.DevDir,
	}); err != nil {
		return nil, err
	}
	l.auth.Serve(l.site)
	l.outbox = outbox.New(l.db, l.scorer, cfg.Log)
	if l.phishing, err = phishing.New(l.db, l.scorer, l.site, l.outbox); err != nil {
		return nil, err
	}
	l.training = training.New(
		training.Config{Gateway: cfg.Gateway, Home: cfg.Home, Now: cfg.Now, Log: cfg.Log},
		l.db, l.scorer, l.site, l.outbox, l.phishing,
	)
	l.report = report.New(
		report.Config{Now: cfg.Now, Log: cfg.Log}, l.db, l.scorer, l.site, l.training,
	)
	l.auditlog = auditlog.New(l.db, l.site)
	l.console = console.New(console.Config{Topology: cfg.Topology, Now: cfg.Now}, l.db, l.auditlog.Store, l.site)
	l.db.Wrote = l.console.Wrote
	return l, nil
}

// Run joins the mesh and serves until ctx ends.
func Run(ctx context.Context, lookup env.Lookup) error {
	node, err := mesh.FromEnv(ctx, lookup)
	if err != nil {
		return err
	}
	pool, err := postgres.Open(ctx, node, lookup)
	if err != nil {
		return err
	}
	defer pool.Close()
	scorer, err := node.Serving(scorerapi.RouteEvents)
	if err != nil {
		return err
	}
	gateway, err := node.Serving(gatewayapi.RouteGenerate)
	if err != nil {
		return err
	}
	provider, err := auth.ProviderFromEnv(lookup, node.Egress())
	if err != nil {
		return err
	}
	if provider != nil {
		if back, err := url.Parse(provider.Redirect); err == nil {
			node.AdmitHost(back.Hostname())
		}
	}
	dev, err := site.DevDir(lookup)
	if err != nil {
		return err
	}
	l, err := New(Config{
		Pool: pool, Scorer: scorer.Do, Gateway: gateway.Do,
		Refusals: node.Audit().Write, UnknownRefusals: node.TurnAway, Topology: node.Topology,
		Home: "https://" + node.Topology().TrustDomain, Provider: provider, Log: node.Log(), DevDir: dev,
	})
	if err != nil {
		return err
	}
	l.Register(node)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return node.Serve(ctx) })
	g.Go(func() error { return l.Deliver(ctx) })
	return g.Wait()
}

// Register registers the routes at the node, and the pages on its people's port.
func (l *LMS) Register(node *mesh.Node) {
	for route, answer := range map[topology.Route]mesh.HandlerFunc{
		lmsapi.RouteLinks:       l.auth.PostLink,
		lmsapi.RouteExercises:   l.console.GetExercises,
		lmsapi.RoutePutExercise: l.console.PostExercise,
		lmsapi.RouteXAPI:        l.training.GetXAPI,
		lmsapi.RouteAudit:       l.auditlog.GetAudit,
		lmsapi.RouteResults:     l.training.GetResults,
		lmsapi.RouteReset:       l.PostReset,
		lmsapi.RouteRevocations: l.auth.PostRevocation,
		lmsapi.RouteTraining:    l.training.PutTraining,

		lmsapi.RouteOrders:       l.console.GetOrders,
		lmsapi.RouteReportOrder:  l.console.PostOrder,
		lmsapi.RoutePutScenarios: l.console.PutScenarios,
		lmsapi.RoutePostFeed:     l.console.PostFeed,
	} {
		node.Handle(route, func(w http.ResponseWriter, r *http.Request) error { return site.Typed(answer(w, r)) })
	}
	node.HandlePeople(l.Pages())
}

// Deliver delivers training events to the risk scorer until ctx ends, and deletes expired sessions and links.
func (l *LMS) Deliver(ctx context.Context) error {
	go l.sweep(ctx)
	defer context.AfterFunc(ctx, l.console.End)() // ends requests that wait, which would delay the end of the process
	return l.outbox.Run(ctx)
}

// sweep deletes expired sessions and links from time to time.
func (l *LMS) sweep(ctx context.Context) {
	tick := time.NewTicker(5 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := l.auth.Store.Sweep(ctx); err != nil && ctx.Err() == nil {
			l.cfg.Log.Warn("delete expired sessions", "error", err.Error())
		}
	}
}
