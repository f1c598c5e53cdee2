package bench

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"sigs.k8s.io/yaml"

	"example.org/security-training/lab/control"
	"example.org/security-training/manifests"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/mesh/bare"
	"example.org/security-training/services/topology"
)

const (
	host   = "127.0.0.1"
	caller = "caller"
	callee = "callee"
	// life is the lifetime of a benchmark's certificates. It is longer than any run, so that renewals are not measured.
	life = 24 * time.Hour
	// atOnce is the number of callers at the same time, on both sides of a comparison.
	atOnce = 8
)

// quiet is a log that discards everything.
var quiet = slog.New(slog.DiscardHandler)

// pair is a mesh of two members in this process, with real sockets, TLS and files. Its topology has free ports and one
// of the lab's own routes.
type pair struct {
	dir    string
	topo   *topology.Topology
	route  topology.Route
	svids  map[string]*x509svid.SVID
	trusts *x509bundle.Bundle
	nodes  map[string]*mesh.Node
	stop   context.CancelFunc
	served chan error
	read   int // up to where the callee's chain was read, in bytes
}

// newPair makes a pair. The callee answers with h.
func newPair(ctx context.Context, h mesh.HandlerFunc) (p *pair, err error) {
	p = &pair{svids: map[string]*x509svid.SVID{}, nodes: map[string]*mesh.Node{}}
	if p.dir, err = os.MkdirTemp("", "lab-bench-"); err != nil {
		return nil, fmt.Errorf("make a mesh of two: %w", err)
	}
	ctx, p.stop = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make a mesh of two: %w", err), p.close())
		}
	}()
	file, err := p.write()
	if err != nil {
		return nil, err
	}
	ca, err := authority.New(p.topo.Domain(), time.Now(), life)
	if err != nil {
		return nil, err
	}
	p.trusts = x509bundle.FromX509Authorities(p.topo.Domain(), []*x509.Certificate{ca.Cert})
	for _, name := range []string{caller, callee} {
		if p.svids[name], err = ca.Issue(p.topo.ID(name), time.Now(), life, nil); err != nil {
			return nil, err
		}
		held := &mesh.Held{}
		held.Set(p.svids[name], x509bundle.NewSet(p.trusts))
		if p.nodes[name], err = mesh.Join(
			ctx, name, mesh.Config{TopologyFile: file, AuditFile: p.auditFile(name), Host: host, Identities: held, Log: quiet},
		); err != nil {
			return nil, err
		}
	}
	p.nodes[callee].Handle(p.route, h)
	p.served = make(chan error, 1)
	go func() { p.served <- p.nodes[callee].Serve(ctx) }()
	return p, p.await(ctx)
}

// write writes the pair's topology. The callee has the kind whose nodes count connections one by one.
func (p *pair) write() (file string, err error) {
	real, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		return "", err
	}
	p.route = real.OfKind(topology.KindGateway)[0].Routes()[0]
	row := topology.Workload{
		Name:   callee,
		Kind:   topology.KindDatabase,
		Binary: callee,
		Serves: map[topology.Route]topology.Callers{p.route: {caller}},
	}
	for _, port := range []*int{&row.Port, &row.Health} {
		if *port, err = control.FreePort(host); err != nil {
			return "", err
		}
	}
	text, err := yaml.Marshal(
		&topology.Topology{
			TrustDomain: real.TrustDomain,
			Workloads:   []topology.Workload{{Name: caller, Kind: topology.KindOperator}, row},
		},
	)
	if err != nil {
		return "", err
	}
	if p.topo, err = topology.FromYAML(text); err != nil {
		return "", err
	}
	file = filepath.Join(p.dir, "topology.yaml")
	return file, os.WriteFile(file, text, 0o600)
}

func (p *pair) auditFile(name string) string { return filepath.Join(p.dir, name+".audit") }

func (p *pair) addr() string {
	row, _ := p.topo.Workload(callee)
	return net.JoinHostPort(host, strconv.Itoa(row.Port))
}

// byMesh makes new connections as the mesh does.
func (p *pair) byMesh() bare.Caller {
	return bare.CallByMesh(p.addr(), p.topo.ID(callee), p.nodes[caller])
}

// await waits until the callee admits the caller.
func (p *pair) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		err := p.byMesh().Knock(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case err := <-p.served:
			p.served <- err
			return fmt.Errorf("it does not serve: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// decided waits until the callee's chain has n more decisions, verifies it, and returns how many there are of each
// outcome.
func (p *pair) decided(ctx context.Context, n int) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		text, err := os.ReadFile(p.auditFile(callee))
		if err != nil {
			return nil, err
		}
		whole := text[:bytes.LastIndexByte(text, '\n')+1]
		entries, err := audit.Read(bytes.NewReader(whole[p.read:]))
		if err != nil {
			return nil, err
		}
		outcomes, all := map[string]int{}, 0
		for _, e := range entries {
			if e.Kind == "decision" {
				outcomes[e.Outcome]++
				all++
			}
		}
		if all >= n {
			p.read = len(whole)
			_, err := audit.Verify(bytes.NewReader(whole), callee, nil)
			return outcomes, err
		}
		select {
		case <-ctx.Done():
			return outcomes, nil // the caller checks the number
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// close ends the pair and removes its files.
func (p *pair) close() error {
	p.stop()
	var err error
	if p.served != nil {
		err = <-p.served
	}
	for _, n := range p.nodes {
		err = errors.Join(err, n.Audit().Close())
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}

// drain reads a body to its end, because a connection is kept only then.
func drain(r io.ReadCloser) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, 1<<20))
	return b, errors.Join(err, r.Close())
}
