// Package operator calls the workloads of a lab as the instructor does: over mutual TLS, with an identity that the
// lab's own CA minted, and only on the routes that the policy gives to the instructor.
package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/topology"
)

// Operator is a member of the lab's mesh that serves nothing: the person at the command line.
type Operator struct {
	Node  *mesh.Node
	held  *mesh.Held
	renew func(context.Context) error
}

// Renew mints a new identity and fetches the current bundles at once. Without it both are renewed at half-life, which
// is too late after the CA was rotated.
func (o *Operator) Renew(ctx context.Context) error { return o.renew(ctx) }

// Inside is a Lab whose mesh can be reached directly from this machine.
type Inside interface {
	// Mesh returns where the topology is, and the host at which workloads are reached.
	Mesh() mesh.Config
}

// Enter joins the mesh of l as its operator until ctx ends. Until then it renews its identity at half-life.
func Enter(ctx context.Context, l lab.Lab) (*Operator, error) {
	inside, ok := l.(Inside)
	if !ok {
		return nil, fmt.Errorf("enter the lab: %T cannot be reached from here", l)
	}
	cfg := inside.Mesh()
	topo, err := topology.FromFile(cfg.TopologyFile)
	if err != nil {
		return nil, err
	}
	rows := topo.OfKind(topology.KindOperator)
	if len(rows) == 0 {
		return nil, fmt.Errorf("enter the lab: topology lists no operator")
	}
	o := &Operator{held: &mesh.Held{}}
	o.renew = func(ctx context.Context) error {
		svid, bundles, err := l.Mint(ctx, topo.ID(rows[0].Name), operatorLife)
		if err != nil {
			return fmt.Errorf("enter the lab: %w", err)
		}
		o.held.Set(svid, bundles)
		return nil
	}
	if err := o.renew(ctx); err != nil {
		return nil, err
	}
	go o.keepRenewing(ctx)
	cfg.Identities, cfg.AuditFile, cfg.Log = o.held, os.DevNull, slog.New(slog.NewTextHandler(io.Discard, nil))
	if o.Node, err = mesh.Join(ctx, rows[0].Name, cfg); err != nil {
		return nil, err
	}
	return o, nil
}

// operatorLife is how long an operator's identity is valid. renewAgain is the wait after a renewal that failed.
const (
	operatorLife = 10 * time.Minute
	renewAgain   = 2 * time.Second
)

// keepRenewing renews the identity at half-life. If the issuer does not answer, for example in a cluster that was
// stopped, it keeps the identity while that is valid, and asks again.
func (o *Operator) keepRenewing(ctx context.Context) {
	pause := operatorLife / 2
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = operatorLife / 2
		if err := o.renew(ctx); err != nil {
			pause = renewAgain
			if held, none := o.held.Current(); none == nil && time.Now().After(held.NotAfter()) {
				o.held.Clear(err)
			}
		}
	}
}

// patience is how long Call repeats a request that is answered with 503.
const patience = 10 * time.Second

// Call sends in as JSON to a workload, and reads the answer into out; either may be nil. It repeats a request that is
// answered with 503 and a time to retry after, for up to ten seconds. Every route of the lab that answers so did
// nothing, or does the same thing when it is asked again. So a restart of the database does not end an exercise.
func (o *Operator) Call(ctx context.Context, workload, method, path string, in, out any) error {
	limit := time.Now().Add(patience)
	for {
		err := o.call(ctx, workload, method, path, in, out)
		var later *httpjson.Error
		if err == nil || !errors.As(err, &later) || later.Status != http.StatusServiceUnavailable || later.RetryAfter <= 0 ||
			time.Now().Add(later.RetryAfter).After(limit) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(later.RetryAfter):
		}
	}
}

func (o *Operator) call(ctx context.Context, workload, method, path string, in, out any) error {
	var body []byte
	contentType := ""
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body, contentType = b, "application/json"
	}
	resp, err := o.Node.Peer(workload).Do(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	if err := httpjson.ReadAnswer(resp, 64<<20, out); err != nil {
		return fmt.Errorf("%s %s of %s: %w", method, path, workload, err)
	}
	return nil
}

// Serving returns the name of the one workload that serves route.
func (o *Operator) Serving(route topology.Route) (string, error) {
	c, err := o.Node.Serving(route)
	if err != nil {
		return "", err
	}
	return c.Name(), nil
}

// Ask is Call for the one workload that serves route. The route's path must have no placeholders.
func (o *Operator) Ask(ctx context.Context, route topology.Route, in, out any) error {
	name, err := o.Serving(route)
	if err != nil {
		return err
	}
	return o.Call(ctx, name, route.Method(), route.Path(), in, out)
}

// IsConflict says whether err is a peer's answer 409.
func IsConflict(err error) bool {
	return err != nil && httpjson.FromError(err).Status == http.StatusConflict
}

// IsNotFound says whether err is a peer's answer 404.
func IsNotFound(err error) bool {
	return err != nil && httpjson.FromError(err).Status == http.StatusNotFound
}
