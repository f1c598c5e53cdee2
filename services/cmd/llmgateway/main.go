// Command llmgateway serves lessons written by a model.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"example.org/security-training/services/env"
	"example.org/security-training/services/llmgateway"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := llmgateway.Run(ctx, env.Process); err != nil {
		fmt.Fprintln(os.Stderr, "llmgateway:", err)
		os.Exit(1)
	}
}
