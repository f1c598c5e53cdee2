package collector

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/env"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/source"
)

// Run is the program. Its settings are those of mesh.FromEnv, DATA_DIR (the spool's folder), SOURCE_SECRET_FILE (HMAC
// key, SSWS or HEC token) and, optionally, SPOOL_LIMIT (entries that may wait). It returns when ctx ends; everything
// accepted is on disk then.
func Run(ctx context.Context, lookup env.Lookup) error {
	r := env.Read(lookup)
	folder := r.Required("DATA_DIR")
	secret := r.Secret("SOURCE_SECRET_FILE")
	limit := r.Int("SPOOL_LIMIT", 1_000_000)
	if err := r.Err(); err != nil {
		return err
	}
	if limit <= 0 {
		return fmt.Errorf("read settings: SPOOL_LIMIT: %d is not positive", limit)
	}
	node, err := mesh.FromEnv(ctx, lookup)
	if err != nil {
		return err
	}
	return Serve(ctx, node, folder, secret, uint64(limit))
}

// Serve runs the collector of node's row until ctx ends. Its spool is in folder.
func Serve(ctx context.Context, node *mesh.Node, folder string, secret []byte, limit uint64) (err error) {
	row, err := source.Find(activity.Source(node.Self().Source))
	if err != nil {
		return err
	}
	spool, err := openSpool(filepath.Join(folder, "spool.db"), row, limit)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spool.Close()) }()
	scorer, err := node.Serving(scorerapi.RouteEvents)
	if err != nil {
		return err
	}

	c := newCollector(row, secret, spool, func(ctx context.Context, e audit.Entry) {
		if caller := mesh.Caller(ctx).Name; caller != "" {
			e.Peer, e.Serial = node.Topology().ID(caller).String(), mesh.CallerSerial(ctx)
		}
		node.Audit().Write(e)
	})
	for _, p := range row.Pushed {
		node.Handle(p.Route, c.accept(p))
	}
	node.Handle(collectorapi.RouteSpool, c.serveCounts)
	node.Ready(spool.ready)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return node.Serve(ctx) })
	g.Go(func() error { return newForwarder(spool, scorer.Post, node.Log()).run(ctx) })
	if row.Polled != nil {
		vendor, err := node.Serving(row.Polled.Route)
		if err != nil {
			return err
		}
		// Okta allows 120 polls of its log a minute.
		p := &poller{
			collector: c, poll: *row.Polled, client: vendor.HTTP(), log: node.Log(),
			every: 500 * time.Millisecond, longest: 5 * time.Second,
		}
		g.Go(func() error { return p.run(ctx) })
	}
	return g.Wait()
}
