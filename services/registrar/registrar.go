// Package registrar registers the workloads of the topology with a SPIRE server: one entry for each row, and no others.
package registrar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// Entries are the entries of topo's workloads: one for each row that runs something. The row's name is the entry's id,
// so that nothing is registered twice, and its DNS name, which becomes the certificate's common name. The lifetime of
// an SVID is the server's default.
func Entries(topo *topology.Topology, parent *types.SPIFFEID,
	selectors func(topology.Workload) []*types.Selector) []*types.Entry {
	var out []*types.Entry
	for _, w := range topo.Workloads {
		if w.Kind == topology.KindOperator {
			continue
		}
		out = append(out, &types.Entry{
			Id:        w.Name,
			SpiffeId:  &types.SPIFFEID{TrustDomain: topo.TrustDomain, Path: "/" + w.Name},
			ParentId:  parent,
			Selectors: selectors(w),
			DnsNames:  []string{w.Name},
		})
	}
	return out
}

// Node is the alias of all nodes of a cluster, which is the parent of all entries. It is stable, while an agent's ID
// contains the UID of its node.
func Node(topo *topology.Topology, cluster string) *types.Entry {
	return &types.Entry{
		Id:        "k8s-node",
		SpiffeId:  &types.SPIFFEID{TrustDomain: topo.TrustDomain, Path: "/k8s-node"},
		ParentId:  &types.SPIFFEID{TrustDomain: topo.TrustDomain, Path: "/spire/server"},
		Selectors: []*types.Selector{{Type: "k8s_psat", Value: "cluster:" + cluster}},
	}
}

// PodSelectors are the k8s attestor's selectors of the chart's pods: namespace, service account and container.
func PodSelectors(namespace string) func(topology.Workload) []*types.Selector {
	return func(w topology.Workload) []*types.Selector {
		return []*types.Selector{
			{Type: "k8s", Value: "ns:" + namespace},
			{Type: "k8s", Value: "sa:" + w.Name + "-sa"},
			{Type: "k8s", Value: "container-name:" + w.Name},
		}
	}
}

// Dial opens a connection to the server's private API.
type Dial func(ctx context.Context, _ string) (net.Conn, error)

// Server is the location of the private API: a container of a pod, and the command in it that connects its standard
// streams to the API's socket.
type Server struct {
	Namespace, Pod, Container string
	Command                   []string
}

// Run registers the workloads of TOPOLOGY_FILE, which run as pods of NAMESPACE on the nodes of CLUSTER_NAME, with the
// SPIRE server in container SPIRE_CONTAINER of SPIRE_POD. The program BRIDGE there connects to the API at SPIRE_SOCKET.
// Run repeats until it succeeds or REGISTER_WITHIN has passed, since the server may still be starting.
func Run(ctx context.Context, lookup env.Lookup, dial func(Server) Dial) error {
	r := env.Read(lookup)
	file, cluster, within := r.Required("TOPOLOGY_FILE"), r.Required("CLUSTER_NAME"), r.Duration("REGISTER_WITHIN",
		10*time.Minute)
	at := Server{
		Namespace: r.Required("NAMESPACE"), Pod: r.Required("SPIRE_POD"), Container: r.Required("SPIRE_CONTAINER"),
		Command: []string{r.Required("BRIDGE"), "connect", r.Required("SPIRE_SOCKET")},
	}
	if err := r.Err(); err != nil {
		return err
	}
	topo, err := topology.FromFile(file)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	alias := Node(topo, cluster)
	entries := Entries(topo, alias.SpiffeId, PodSelectors(at.Namespace))
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return again(ctx, log, time.Second, func(ctx context.Context) error {
		return once(ctx, log, dial(at), alias, entries)
	})
}

// again calls f until it succeeds or ctx ends, with a pause between.
func again(ctx context.Context, log *slog.Logger, pause time.Duration, f func(context.Context) error) error {
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		log.Info("not registered yet", "why", err.Error())
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

func once(ctx context.Context, log *slog.Logger, dial Dial, alias *types.Entry, entries []*types.Entry) error {
	// The connection is protected by the API server's TLS, and by the pod's socket, which others cannot open.
	conn, err := grpc.NewClient("passthrough:///spire-server", grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("register workloads: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := Sync(ctx, conn, alias, entries)
	if err != nil {
		return err
	}
	log.Info("workloads registered", "entries", len(entries), "created", names(c.Created), "updated", names(c.Updated),
		"deleted", names(c.Deleted))
	return nil
}

// names is never nil, so that an empty list reads as one.
func names(list []string) []string { return append([]string{}, list...) }
