// Package spire controls the SPIRE server of a lab through the server's API: it mints SVIDs, withdraws and restores
// identities, and rotates the CA. The server may run on this machine or in a cluster.
package spire

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"

	"example.org/security-training/lab/control"
	"example.org/security-training/lab/workloadapi"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/registrar"
	"example.org/security-training/services/topology"
)

// Server is the private API of a SPIRE server, and the entries of the lab's workloads.
type Server struct {
	Conn    grpc.ClientConnInterface
	Topo    *topology.Topology
	Entries []*types.Entry // one for each workload that runs; its id is the workload's name

	mu    sync.Mutex
	svids map[string]*follower
}

// Register makes x.Entries the server's only entries.
func (x *Server) Register(ctx context.Context) error {
	_, err := registrar.Sync(ctx, x.Conn, nil, x.Entries)
	return err
}

// Bundle returns the X.509 authorities of the trust domain.
func (x *Server) Bundle(ctx context.Context) ([]*x509.Certificate, error) {
	b, err := bundlev1.NewBundleClient(x.Conn).GetBundle(ctx, &bundlev1.GetBundleRequest{})
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for _, a := range b.X509Authorities {
		c, err := x509.ParseCertificate(a.Asn1)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("the server has no bundle yet")
	}
	return out, nil
}

// AwaitBundle waits until the server has authorities, and returns them.
func (x *Server) AwaitBundle(ctx context.Context) ([]*x509.Certificate, error) {
	for {
		b, err := x.Bundle(ctx)
		if err == nil {
			return b, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Mint signs an SVID for any ID of the trust domain, valid for ttl, and returns it with the authorities. SPIRE
// backdates every SVID by ten seconds and signs none for the future. For an SVID in the past, Mint signs a short one
// and waits until it has expired.
func (x *Server) Mint(
	ctx context.Context,
	id spiffeid.ID,
	at time.Time,
	ttl time.Duration,
) (*x509svid.SVID, []*x509.Certificate, error) {
	if id.TrustDomain().Name() != x.Topo.TrustDomain {
		return nil, nil, fmt.Errorf("mint %s: this CA speaks for %s alone", id, x.Topo.TrustDomain)
	}
	if at.After(time.Now().Add(time.Minute)) {
		return nil, nil, fmt.Errorf("mint %s: SPIRE signs for now, not for %s", id, at.Format(time.RFC3339))
	}
	past := at.Add(ttl).Before(time.Now())
	if past {
		ttl = time.Second
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(
		rand.Reader,
		&x509.CertificateRequest{URIs: []*url.URL{id.URL()}, DNSNames: []string{strings.TrimPrefix(id.Path(), "/")}},
		key,
	)
	if err != nil {
		return nil, nil, fmt.Errorf("mint %s: %w", id, err)
	}
	resp, err := x.mint(ctx, csr, ttl)
	if err != nil {
		return nil, nil, fmt.Errorf("mint %s: %w", id, err)
	}
	svid := &x509svid.SVID{ID: id, PrivateKey: key}
	for _, der := range resp.Svid.CertChain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, fmt.Errorf("mint %s: %w", id, err)
		}
		svid.Certificates = append(svid.Certificates, c)
	}
	if past {
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(time.Until(svid.Certificates[0].NotAfter.Add(10 * time.Millisecond))):
		}
	}
	authorities, err := x.Bundle(ctx)
	return svid, authorities, err
}

// mint has the server sign csr. If the ttl is a second, a busy server may find that the certificate has expired before
// it has checked it, and then it refuses: mint asks again with a longer ttl.
func (x *Server) mint(ctx context.Context, csr []byte, ttl time.Duration) (*svidv1.MintX509SVIDResponse, error) {
	for longest := 4 * ttl; ; ttl *= 2 {
		resp, err := svidv1.NewSVIDClient(x.Conn).
			MintX509SVID(ctx, &svidv1.MintX509SVIDRequest{Csr: csr, Ttl: int32((ttl + time.Second - 1) / time.Second)})
		if err == nil || ttl > longest || !strings.Contains(err.Error(), "already expired") {
			return resp, err
		}
	}
}

// Order carries out an operator's order.
func (x *Server) Order(ctx context.Context, o control.Order) error {
	switch {
	case o.CATTL > 0:
		return errors.New("the lifetime of SPIRE's CA is configured; rotate the CA instead")
	case o.TTL > 0:
		return x.update(ctx, func(e *types.Entry) { e.X509SvidTtl = int32(o.TTL / time.Second) })
	case o.One != "":
		return x.renew(ctx, o.One)
	case o.Withdraw != "":
		return x.withdraw(ctx, o.Withdraw)
	case o.Restore != "":
		return x.restore(ctx, o.Restore)
	}
	authorities := localauthorityv1.NewLocalAuthorityClient(x.Conn)
	switch o.Rotate {
	case control.AllSVIDs:
		return x.renew(ctx)
	case control.CAPrepare:
		_, err := authorities.PrepareX509Authority(ctx, &localauthorityv1.PrepareX509AuthorityRequest{})
		return err
	case control.CAActivate:
		return x.activate(ctx, authorities)
	case control.CARetire:
		return x.retire(ctx, authorities)
	}
	return errors.New("the order is empty")
}

// withdraw deletes a workload's entry. It is no error if the entry is not there.
func (x *Server) withdraw(ctx context.Context, workload string) error {
	if _, ok := x.entry(workload); !ok {
		return fmt.Errorf("withdraw %s: topology does not list it", workload)
	}
	registry := registrar.RegistryOf(x.Conn)
	there, err := registry.List(ctx)
	if err != nil || there[workload] == nil {
		return err
	}
	return registry.Delete(ctx, []string{workload})
}

// restore creates a withdrawn workload's entry again.
func (x *Server) restore(ctx context.Context, workload string) error {
	e, ok := x.entry(workload)
	if !ok {
		return fmt.Errorf("restore %s: topology does not list it", workload)
	}
	registry := registrar.RegistryOf(x.Conn)
	there, err := registry.List(ctx)
	if err != nil || there[workload] != nil {
		return err
	}
	return registry.Create(ctx, []*types.Entry{e})
}

func (x *Server) entry(workload string) (*types.Entry, bool) {
	i := slices.IndexFunc(x.Entries, func(e *types.Entry) bool { return e.Id == workload })
	if i < 0 {
		return nil, false
	}
	return x.Entries[i], true
}

// activate makes the server sign with the CA that was prepared, and renews the SVID of every workload.
func (x *Server) activate(ctx context.Context, authorities localauthorityv1.LocalAuthorityClient) error {
	state, err := authorities.GetX509AuthorityState(ctx, &localauthorityv1.GetX509AuthorityStateRequest{})
	if err != nil {
		return err
	}
	if _, err := authorities.ActivateX509Authority(
		ctx, &localauthorityv1.ActivateX509AuthorityRequest{AuthorityId: state.Prepared.GetAuthorityId()},
	); err != nil {
		return err
	}
	return x.renew(ctx)
}

// retire revokes the CA before the active one, once no agent or workload needs it any more.
func (x *Server) retire(ctx context.Context, authorities localauthorityv1.LocalAuthorityClient) error {
	state, err := authorities.GetX509AuthorityState(ctx, &localauthorityv1.GetX509AuthorityStateRequest{})
	if err != nil {
		return err
	}
	old := state.Old.GetAuthorityId()
	before, err := x.agents(ctx)
	if err != nil {
		return err
	}
	if _, err := authorities.TaintX509Authority(
		ctx, &localauthorityv1.TaintX509AuthorityRequest{AuthorityId: old},
	); err != nil {
		return err
	}
	if err := x.awaitAgents(ctx, before); err != nil {
		return err
	}
	_, err = authorities.RevokeX509Authority(ctx, &localauthorityv1.RevokeX509AuthorityRequest{AuthorityId: old})
	return err
}

// agents returns the serial numbers of the SVIDs that agents hold for themselves, by agent ID. It leaves out agents
// whose SVID has expired.
func (x *Server) agents(ctx context.Context) (map[string]string, error) {
	list, err := agentv1.NewAgentClient(x.Conn).ListAgents(ctx, &agentv1.ListAgentsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	out := map[string]string{}
	for _, a := range list.Agents {
		if time.Unix(a.X509SvidExpiresAt, 0).After(time.Now()) && !a.Banned {
			out[a.Id.GetTrustDomain()+a.Id.GetPath()] = a.X509SvidSerialNumber
		}
	}
	return out, nil
}

// awaitAgents waits until every agent holds another SVID than before. An agent fetches one when it learns that its CA
// is tainted. If that CA were revoked first, the agent could not reach the server again: its workloads would keep the
// SVIDs that they have, and get no others.
func (x *Server) awaitAgents(ctx context.Context, before map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, agentsRenewWithin)
	defer cancel()
	for {
		now, err := x.agents(ctx)
		if err != nil {
			return err
		}
		behind := slices.DeleteFunc(slices.Sorted(maps.Keys(before)), func(id string) bool { return now[id] != before[id] })
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf(
				"revoke the old CA: %s still holds an SVID of it, and would be locked out",
				strings.Join(behind, ", "),
			)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// agentsRenewWithin is how long agents may take to renew their own SVIDs after their CA was tainted.
const agentsRenewWithin = 30 * time.Second

// renew gives some workloads, or all, a new SVID: a new revision of an entry makes the agent ask for one.
func (x *Server) renew(ctx context.Context, workloads ...string) error {
	return x.update(ctx, func(e *types.Entry) { e.Hint = time.Now().Format("150405.000") }, workloads...)
}

// update changes the entries of some workloads, or of all.
func (x *Server) update(ctx context.Context, edit func(*types.Entry), workloads ...string) error {
	registry := registrar.RegistryOf(x.Conn)
	there, err := registry.List(ctx)
	if err != nil {
		return err
	}
	var entries []*types.Entry
	for _, w := range x.Topo.Workloads {
		if e := there[w.Name]; e != nil && (len(workloads) == 0 || slices.Contains(workloads, w.Name)) {
			edit(e)
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 {
		return fmt.Errorf("update entries: the server has none of %v", workloads)
	}
	return registry.Update(ctx, entries)
}

// Issued returns the newest SVID of each workload that holds one. The server keeps no such list, so Issued reads it
// from the workloads' audits.
func (x *Server) Issued(f control.StateDir) map[string]workloadapi.Issued {
	out := map[string]workloadapi.Issued{}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.svids == nil {
		x.svids = map[string]*follower{}
	}
	for _, w := range x.Topo.Workloads {
		if w.Kind == topology.KindOperator {
			continue
		}
		in := x.svids[w.Name]
		if in == nil {
			in = &follower{path: f.WorkloadAudit(w.Name)}
			x.svids[w.Name] = in
		}
		if i := in.read(); i.Serial != "" {
			out[w.Name] = i
		}
	}
	return out
}

// follower reads what was added to an audit since the last read.
type follower struct {
	path string
	at   int64
	last workloadapi.Issued
}

// mostAtOnce is how many bytes of an audit are read at a time. The workload writes the file, so it can be of any size.
const mostAtOnce = 16 << 20

func (f *follower) read() workloadapi.Issued {
	file, err := control.OpenUntrusted(f.path, control.LongestAudit)
	if err != nil {
		return workloadapi.Issued{}
	}
	defer file.Close()
	if _, err := file.Seek(f.at, io.SeekStart); err != nil {
		return f.last
	}
	r := bufio.NewReader(io.LimitReader(file, mostAtOnce))
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return f.last
		}
		f.at += int64(len(line))
		var e audit.Entry
		if json.Unmarshal(line, &e) != nil || (e.Kind != "start" && e.Kind != "identity") {
			continue
		}
		f.last = workloadapi.Issued{Serial: e.Serial}
		if e.Identity != nil {
			f.last.Expires = e.Identity.Until
		}
	}
}
