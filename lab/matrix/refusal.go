package matrix

import (
	"context"
	"fmt"
	"slices"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
	"example.org/security-training/services/wait"
)

// Refusal waits for the entry of callee's audit that says why it refused a caller. It finds the entry by the serial
// number of the caller's certificate. A caller without a certificate has none: then it is the first such refusal since
// began.
func Refusal(
	ctx context.Context,
	l lab.Lab,
	callee string,
	who probe.Caller,
	outcome topology.Outcome,
	began time.Time,
) (audit.Entry, error) {
	serial := ""
	if who.SVID != nil {
		serial = fmt.Sprintf("%x", who.SVID.Certificates[0].SerialNumber)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		entries, err := lab.Entries(ctx, l, callee)
		if err != nil {
			return audit.Entry{}, err
		}
		i := slices.IndexFunc(entries, func(e audit.Entry) bool {
			return e.Outcome == string(outcome) && !e.At.Before(began) && (e.Serial == serial || e.Serial == "")
		})
		if i >= 0 {
			return entries[i], nil
		}
		if err := wait.For(ctx, 10*time.Millisecond); err != nil {
			return audit.Entry{}, fmt.Errorf("%s refused the caller, and its audit does not say why", callee)
		}
	}
}
