package mesh

import (
	"context"
	"os"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/topology"
)

// watchTopology reads the file again when it changes. A file with faults, or of another shape, is refused and audited;
// the old topology stays.
func (n *Node) watchTopology(ctx context.Context) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	seen, _ := os.Stat(n.cfg.TopologyFile)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := os.Stat(n.cfg.TopologyFile)
		if err != nil {
			continue // in the middle of a replacement
		}
		if seen != nil && os.SameFile(seen, now) && seen.ModTime().Equal(now.ModTime()) && seen.Size() == now.Size() {
			continue
		}
		seen = now
		n.reload()
	}
}

func (n *Node) reload() {
	next, err := topology.FromFile(n.cfg.TopologyFile)
	if err == nil {
		err = n.topology.Load().SameShape(next)
	}
	if err != nil {
		n.log.Error("the topology stays as it was", "refused", err.Error())
		n.audit.Write(audit.Entry{Kind: "reload", Outcome: string(topology.Refused), Reason: "bad_topology",
			Detail: err.Error()})
		return
	}
	n.topology.Store(next)
	n.log.Info("topology reloaded")
	n.audit.Write(audit.Entry{Kind: "reload", Outcome: string(topology.Allowed)})
}

// watchIdentity logs and audits each change of the identity.
func (n *Node) watchIdentity(ctx context.Context, last *Identity) {
	for {
		changed := n.own.Changed()
		if id, err := n.own.Current(); err != nil {
			if last != nil {
				n.log.Error("identity lost", "why", err.Error())
				n.audit.Write(audit.Entry{Kind: "identity", Outcome: string(topology.Refused), Reason: string(NoIdentity),
					Detail: err.Error()})
			}
			last = nil
		} else if last == nil || id.Generation != last.Generation {
			n.log.Info("spiffe identity renewed", "id", id.SVID.ID.String(), "serial", serialOf(id), "expires",
				id.NotAfter().UTC())
			n.audit.Write(audit.Entry{Kind: "identity", Peer: id.SVID.ID.String(), Serial: serialOf(id),
				Identity: auditIdentity(id)})
			last = id
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
