// Command riskscorer turns people's activity into risk.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"example.org/security-training/services/env"
	"example.org/security-training/services/riskscorer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := riskscorer.Run(ctx, env.Process); err != nil {
		fmt.Fprintln(os.Stderr, "riskscorer:", err)
		os.Exit(1)
	}
}
