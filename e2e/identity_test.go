package e2e

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// fetchIdentity asks the Workload API for an identity as this process, which no lab has started.
func fetchIdentity(ctx context.Context, socket string) error {
	_, err := workloadapi.FetchX509SVID(ctx, workloadapi.WithAddr("unix://"+socket))
	return err
}
