// Package wait waits for a time to pass.
package wait

import (
	"context"
	"time"
)

// For returns nil after d, or the cause of ctx's end as soon as ctx ends.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
