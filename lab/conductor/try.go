package conductor

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/matrix"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

func differs(t *exercise.Tried) error {
	if t.Running != "" {
		return fmt.Errorf("%s: the policy was edited, and decides %s instead of %s", t.Measured, t.Running, t.Expected)
	}
	if t.Measured != t.Expected {
		return fmt.Errorf("%s, where %s was expected", t.Measured, t.Expected)
	}
	return nil
}

// try makes one call and reports what each of the two sides saw.
func (c *conductor) try(ctx context.Context, o exercise.Order) (*exercise.Tried, error) {
	topo, err := lab.PolicyInForce(c.target)
	if err != nil {
		return nil, err
	}
	callee, ok := topo.Workload(o.Callee)
	if !ok {
		return nil, fmt.Errorf("topology lists no %s", o.Callee)
	}
	who, err := matrix.Impostor(ctx, c.target, topo, o.Caller, matrix.SomeCaller(topo, callee))
	if err != nil {
		return nil, err
	}
	addr, err := c.target.Addr(ctx, o.Callee)
	if err != nil {
		return nil, err
	}
	t := &exercise.Tried{Expected: c.original.Decide(o.Caller, o.Callee, o.Route)}
	if is := topo.Decide(o.Caller, o.Callee, o.Route); is != t.Expected {
		t.Running = is
	}
	if who.SVID != nil {
		t.Shown = fmt.Sprintf("%s, serial number %x", who.SVID.ID, who.SVID.Certificates[0].SerialNumber)
	}
	began := time.Now()
	r := probe.Once(ctx, addr, who, o.Route)
	t.Measured, t.Status, t.Reason = r.Outcome, r.Status, r.Reason
	switch {
	case r.Status == http.StatusUnsupportedMediaType:
		t.Saw = "was let in: the answer is 415, because a probe carries nothing that the route takes"
	case r.Status != 0:
		t.Saw = fmt.Sprintf("got the answer %d", r.Status)
		if r.Reason != "" {
			t.Saw += " with the reason " + r.Reason
		}
	case r.Err != nil:
		t.Saw = "got no session: " + r.Err.Error()
	default:
		t.Saw = "got no session"
	}
	if r.Outcome == topology.Forbidden || r.Outcome == topology.Refused {
		e, err := matrix.Refusal(ctx, c.target, o.Callee, who, r.Outcome, began)
		if err != nil {
			return nil, err
		}
		t.Reason = e.Reason
		t.Wrote = fmt.Sprintf("%s of %s, entry %d of its chain", e.Kind, e.At.Format("15:04:05.000"), e.Seq)
		if e.Peer != "" {
			t.Wrote += ", caller " + e.Peer
		}
		if e.Detail != "" {
			t.Wrote += ": " + e.Detail
		}
	}
	return t, nil
}

func (c *conductor) serial(ctx context.Context, workload string) (string, error) {
	st, err := c.target.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, w := range st.Workloads {
		if w.Name == workload {
			return w.Serial, nil
		}
	}
	return "", fmt.Errorf("there is no %s", workload)
}
