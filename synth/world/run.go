package world

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/env"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/source"
	"example.org/security-training/services/topology"
)

// Run is the program. Its settings are those of mesh.FromEnv, and SOURCE_SECRET_FILE, which it shares with the
// collector.
func Run(ctx context.Context, lookup env.Lookup) error {
	r := env.Read(lookup)
	secret := r.Secret("SOURCE_SECRET_FILE")
	if err := r.Err(); err != nil {
		return err
	}
	node, err := mesh.FromEnv(ctx, lookup)
	if err != nil {
		return err
	}
	return Serve(ctx, node, secret)
}

// Serve runs the vendor of node's row until ctx ends.
func Serve(ctx context.Context, node *mesh.Node, secret []byte) error {
	row, err := source.Find(activity.Source(node.Self().Source))
	if err != nil {
		return err
	}
	scorer, err := node.Serving(scorerapi.RouteClock)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w := newWorld(ctx, row, secret, sender(node), func(ctx context.Context) (risk.Clock, error) {
		var c risk.Clock
		resp, err := scorer.Get(ctx, scorerapi.RouteClock.Path())
		if err == nil {
			err = httpjson.ReadAnswer(resp, 1<<16, &c)
		}
		if err == nil && c.Now.IsZero() {
			err = fmt.Errorf("read the lab's clock: no time in the answer")
		}
		return c, err
	})
	defer w.group.Wait()
	defer stop()
	node.Handle(RoutePlays, w.servePost)
	node.Handle(RoutePlay, w.serveGet)
	node.Handle(RouteStopPlay, w.serveDelete)
	if row.Polled != nil && slices.Contains(node.Self().Routes(), row.Polled.Route) {
		node.Handle(row.Polled.Route, w.serveLog)
	}
	return node.Serve(ctx)
}

// sender sends to the workload that serves a route. It is looked up for each delivery, since the topology may change.
func sender(node *mesh.Node) sendFunc {
	return func(ctx context.Context, route topology.Route, h http.Header, body []byte) (*http.Response, error) {
		peer, err := node.Serving(route)
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, route.Method(), "https://"+peer.Name()+route.Path(),
			bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("deliver: %w", err)
		}
		req.Header = h.Clone()
		return peer.HTTP().Do(req)
	}
}
