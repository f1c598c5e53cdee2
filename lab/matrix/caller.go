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

// Strangers are callers that no topology lists.
const (
	Nobody    = "nobody"   // no certificate
	Stranger  = "stranger" // an ID of the domain that is not listed
	Foreign   = "foreign"  // an ID of another domain, of a CA that speaks for it
	Forged    = "forged"   // a listed ID, signed by another CA
	Expired   = "expired"  // a listed ID whose life is over
	Plaintext = "plaintext"
	OldTLS    = "tls12"
)

// Strangers lists them in display order, each with why it is refused.
var Strangers = []struct{ Name, Reason string }{
	{Nobody, "no_certificate"}, {Stranger, "not_listed"}, {Foreign, "foreign_trust_domain"}, {Forged, "unknown_issuer"},
	{Expired, "expired"}, {Plaintext, "plaintext"}, {OldTLS, "tls_version"},
}

// PastMinter is a Lab whose CA signs certificates for any time: their life begins from after now, before it if
// negative.
type PastMinter interface {
	MintFrom(ctx context.Context, id spiffeid.ID, from, ttl time.Duration) (*x509svid.SVID, *x509bundle.Set, error)
}

// Impostor makes the credentials of a caller: a workload's own, or a stranger's. As names the workload that a forged or
// expired certificate claims to be.
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

// SomeCaller is a workload that callee admits: what a forger would claim to be.
func SomeCaller(topo *topology.Topology, callee topology.Workload) string {
	for _, w := range topo.Workloads {
		if topo.Admits(w.Name, callee.Name) {
			return w.Name
		}
	}
	return callee.Name
}
