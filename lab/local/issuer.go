package local

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"example.org/security-training/lab/control"
	"example.org/security-training/lab/workloadapi"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/topology"
)

// issuer issues identities to the lab's processes: either the lab itself or SPIRE.
type issuer interface {
	// name is the issuer's name in a status.
	name() string
	// serve returns when workloads may be started, or when ctx ends. The issuer then serves until the supervisor's
	// process ends, which is after the workloads. Later errors are sent to failed.
	serve(ctx context.Context, s *Supervisor, failed chan<- error) error
	// Start calls start, which starts a process and returns its PID. The process gets the identity of the workload
	// called name.
	Start(name string, start func() (pid int, err error)) error
	// Ended tells the issuer that a process has ended.
	Ended(pid int)
	// Issued returns the newest SVID of each workload that holds one.
	Issued() map[string]workloadapi.Issued
	// Mint signs an SVID for any ID of the trust domain, valid from at for ttl. It also returns the domain's
	// authorities.
	Mint(ctx context.Context, id spiffeid.ID, at time.Time, ttl time.Duration) (*x509svid.SVID, []*x509.Certificate, error)
	// order carries out an operator's order.
	order(ctx context.Context, o control.Order) error
}

func (s *Supervisor) newIssuer() (issuer, error) {
	if s.settings.Identity == identitySPIRE {
		return newSPIRE(s)
	}
	cas, err := loadCAs(s.folder.cas(), s.topo)
	if err != nil {
		return nil, err
	}
	i, err := workloadapi.New(
		s.topo.Domain(),
		cas,
		func(cas []*authority.CA) error { return saveCAs(s.folder.cas(), cas) },
	)
	if err != nil {
		return nil, err
	}
	return embedded{i}, nil
}

// embedded is the issuer that is part of the lab.
type embedded struct{ *workloadapi.Issuer }

func (embedded) name() string { return identityEmbedded }

func (e embedded) serve(ctx context.Context, s *Supervisor, failed chan<- error) error {
	database, err := databaseAccount()
	if err != nil {
		return err
	}
	own := func(uid int) bool {
		return uid == database.uid || s.settings.UIDs != 0 && uid >= s.settings.UIDs && uid < s.settings.UIDs+uidsPerLab
	}
	l, err := workloadapi.Listen(s.folder.api(), own, s.log)
	if err != nil {
		return err
	}
	go func() { failed <- e.Serve(context.WithoutCancel(ctx), l) }()
	return nil
}

func (e embedded) Mint(
	_ context.Context,
	id spiffeid.ID,
	at time.Time,
	ttl time.Duration,
) (*x509svid.SVID, []*x509.Certificate, error) {
	return e.Issuer.Mint(id, at, ttl)
}

func (e embedded) order(_ context.Context, o control.Order) error {
	switch {
	case o.TTL > 0 || o.CATTL > 0:
		e.SetTTL(o.TTL, o.CATTL)
		return nil
	case o.One != "":
		e.RotateOne(o.One)
		return nil
	case o.Withdraw != "":
		e.Withdraw(o.Withdraw)
		return nil
	case o.Restore != "":
		e.Restore(o.Restore)
		return nil
	}
	switch o.Rotate {
	case control.AllSVIDs:
		e.Rotate()
		return nil
	case control.CAPrepare:
		return e.PrepareCA()
	case control.CAActivate:
		return e.ActivateCA()
	case control.CARetire:
		return e.RetireCA()
	case "":
		return errors.New("the order is empty")
	}
	return fmt.Errorf(
		"rotate %q: want %s, %s, %s or %s",
		o.Rotate,
		control.AllSVIDs,
		control.CAPrepare,
		control.CAActivate,
		control.CARetire,
	)
}

func loadCAs(path string, topo *topology.Topology) ([]*authority.CA, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read CAs: %w", err)
	}
	var cas []*authority.CA
	for len(text) > 0 {
		_, afterCert := pem.Decode(text)
		block, rest := pem.Decode(afterCert)
		if block == nil {
			return nil, fmt.Errorf("read CAs %s: a certificate without a key", path)
		}
		ca, err := authority.FromPEM(topo.Domain(), text[:len(text)-len(rest)])
		if err != nil {
			return nil, err
		}
		cas, text = append(cas, ca), rest
	}
	return cas, nil
}

func saveCAs(path string, cas []*authority.CA) error {
	var text []byte
	for _, ca := range cas {
		p, err := ca.PEM()
		if err != nil {
			return err
		}
		text = append(text, p...)
	}
	return control.Replace(path, text, 0o600)
}
