package e2e

import (
	"log/slog"
	"testing"
	"time"

	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/authority"
)

// impostorNode is a member that shows a certificate with name's ID, signed by a CA of its own, and trusts the lab's.
func impostorNode(t *testing.T, name string) (*mesh.Node, error) {
	t.Helper()
	_, bundles, err := l.Mint(t.Context(), l.topo.ID(name), time.Hour)
	if err != nil {
		return nil, err
	}
	ca, err := authority.New(l.topo.Domain(), time.Now(), time.Hour)
	if err != nil {
		return nil, err
	}
	svid, err := ca.Issue(l.topo.ID(name), time.Now(), time.Hour, nil)
	if err != nil {
		return nil, err
	}
	held := &mesh.Held{}
	held.Set(svid, bundles)
	cfg := l.Mesh()
	cfg.Identities, cfg.AuditFile, cfg.Log = held, t.TempDir()+"/audit", slog.New(slog.DiscardHandler)
	return mesh.Join(t.Context(), name, cfg)
}
