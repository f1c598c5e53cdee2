// Package registrar tells a SPIRE server whom it may issue identities to: one entry for each row of the topology, and no other.
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

// Entries is what a SPIRE server should know of topo's workloads: one entry for each row that runs something, with the row's
// name as its id, so that nothing is registered twice, and as its DNS name, which becomes the certificate's common name.
// The life of an SVID is left to the server.
func Entries(topo *topology.Topology, parent *types.SPIFFEID, selectors func(topology.Workload) []*types.Selector) []*types.Entry {
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

// Node is the alias of all nodes of a cluster, the stable parent of all entries: an agent's own ID ends in its node's UID.
func Node(topo *topology.Topology, cluster string) *types.Entry {
	return &types.Entry{
		Id:        "k8s-node",
		SpiffeId:  &types.SPIFFEID{TrustDomain: topo.TrustDomain, Path: "/k8s-node"},
		ParentId:  &types.SPIFFEID{TrustDomain: topo.TrustDomain, Path: "/spire/server"},
		Selectors: []*types.Selector{{Type: "k8s_psat", Value: "cluster:" + cluster}},
	}
}

// PodSelectors is how the k8s attestor tells the chart's pods apart: namespace, service account and container.
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

// Server is where the private API is found: a container of a pod, and the command in it that joins its standard streams to the
// API's socket.
type Server struct {
	Namespace, Pod, Container string
	Command                   []string
}

// Run registers the workloads of TOPOLOGY_FILE, running as pods of NAMESPACE on the nodes of CLUSTER_NAME, with the SPIRE server
// in SPIRE_POD's container SPIRE_CONTAINER, whose program BRIDGE reaches the API at SPIRE_SOCKET. It tries again until it has
// done so or REGISTER_WITHIN is over, since everything starts at once.
func Run(ctx context.Context, lookup env.Lookup, dial func(Server) Dial) error {
	r := env.Read(lookup)
	file, cluster, within := r.Required("TOPOLOGY_FILE"), r.Required("CLUSTER_NAME"), r.Duration("REGISTER_WITHIN", 10*time.Minute)
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
	// The way there is the API server's TLS and the pod's own socket, which nobody else can open.
	conn, err := grpc.NewClient("passthrough:///spire-server", grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
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
	log.Info("workloads registered", "entries", len(entries), "created", names(c.Created), "updated", names(c.Updated), "deleted", names(c.Deleted))
	return nil
}

// names is never nil, so that an empty list reads as one.
func names(list []string) []string { return append([]string{}, list...) }
