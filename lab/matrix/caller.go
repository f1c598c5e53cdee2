package matrix

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

// The names of callers that no topology lists.
const (
	Nobody    = "nobody"   // no certificate
	Stranger  = "stranger" // an ID of the trust domain that the topology does not list
	Foreign   = "foreign"  // an ID of another trust domain, signed by a CA of that domain
	Forged    = "forged"   // a listed ID, signed by another CA
	Expired   = "expired"  // a listed ID whose SVID has expired
	Plaintext = "plaintext"
	OldTLS    = "tls12"
)

// Strangers lists these callers in display order, each with the reason for which it is refused.
var Strangers = []struct{ Name, Reason string }{
	{Nobody, "no_certificate"}, {Stranger, "not_listed"}, {Foreign, "foreign_trust_domain"}, {Forged, "unknown_issuer"},
	{Expired, "expired"}, {Plaintext, "plaintext"}, {OldTLS, "tls_version"},
}

// PastMinter is a Lab whose CA also signs certificates for another time than now: their validity begins at now plus
// from, which may be negative.
type PastMinter interface {
	MintFrom(ctx context.Context, id spiffeid.ID, from, ttl time.Duration) (*x509svid.SVID, *x509bundle.Set, error)
}

// Impostor makes the credentials of the caller called who: a workload's own, or a stranger's. As is the workload that a
// forged or expired certificate names.
func Impostor(ctx context.Context, l lab.Lab, topo *topology.Topology, who, as string) (probe.Caller, error) {
	mint := func(id spiffeid.ID, ttl time.Duration) (probe.Caller, error) {
		svid, _, err := l.Mint(ctx, id, ttl)
		return probe.Caller{SVID: svid}, err
	}
	now := time.Now()
	switch who {
	case Nobody:
		return probe.Caller{}, nil
	case Plaintext:
		return probe.Caller{Manner: probe.Plaintext}, nil
	case OldTLS:
		c, err := mint(topo.ID(as), time.Hour)
		c.Manner = probe.TLS12
		return c, err
	case Stranger:
		return mint(spiffeid.RequireFromPath(topo.Domain(), "/mallory"), time.Hour)
	case Expired:
		past, ok := l.(PastMinter)
		if !ok {
			return probe.Caller{}, fmt.Errorf("make an expired caller: %T cannot mint for the past", l)
		}
		svid, _, err := past.MintFrom(ctx, topo.ID(as), -time.Hour, 30*time.Minute)
		return probe.Caller{SVID: svid}, err
	case Foreign, Forged:
		domain := topo.Domain()
		if who == Foreign {
			domain = spiffeid.RequireTrustDomainFromString("elsewhere.example.net")
		}
		ca, err := authority.New(domain, now, time.Hour)
		if err != nil {
			return probe.Caller{}, err
		}
		svid, err := ca.Issue(spiffeid.RequireFromPath(domain, "/"+as), now, time.Hour, nil)
		return probe.Caller{SVID: svid}, err
	}
	return mint(topo.ID(who), time.Hour)
}

// SomeCaller returns a workload that callee admits, for a forger to impersonate.
func SomeCaller(topo *topology.Topology, callee topology.Workload) string {
	for _, w := range topo.Workloads {
		if topo.Admits(w.Name, callee.Name) {
			return w.Name
		}
	}
	return callee.Name
}
