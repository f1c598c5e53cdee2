// Command stubgemini serves a simulated Gemini API.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"example.org/security-training/services/env"
	"example.org/security-training/synth/stubgemini"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := stubgemini.Run(ctx, env.Process); err != nil {
		fmt.Fprintln(os.Stderr, "stubgemini:", err)
		os.Exit(1)
	}
}
