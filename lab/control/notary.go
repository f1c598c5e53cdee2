package control

import (
	"context"
	"fmt"
	"math"
	"os"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/topology"
)

// openChain opens a chain for reading. A workload can write anything into its chain, so the notary limits what it
// reads.
func openChain(path string) (*os.File, error) { return OpenUntrusted(path, math.MaxInt64) }

// sign looks at every chain once a second, and signs the end of each one that has grown, with a key that no workload
// can read. If a chain does not extend what was signed before, sign does not sign it and records that in the
// supervisor's own chain.
func (s *Server) sign(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	chains := map[string]audit.Chain{supervisorChain: func() (*os.File, error) { return openChain(s.Folder.audit()) }}
	for _, w := range s.Topo.Workloads {
		if w.Kind != topology.KindOperator {
			chains[w.Name] = func() (*os.File, error) { return openChain(s.Folder.WorkloadAudit(w.Name)) }
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		unfit, err := s.notary.Sign(time.Now(), chains)
		if err != nil {
			s.Log.Error("sign checkpoints", "error", err.Error())
		}
		for _, u := range unfit {
			s.Log.Error("sign checkpoints",
				"chain", u.Workload, "after", u.Seq, "kind", string(u.Kind), "error", u.What)
			s.audit.Write(audit.Entry{
				Kind: "unsigned", Outcome: string(topology.Refused), Reason: string(u.Kind),
				Detail: fmt.Sprintf("the chain of %s is signed up to %d and no further: %s", u.Workload, u.Seq, u.What),
			})
		}
	}
}
