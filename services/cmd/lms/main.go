// Command lms serves the learning system: pages for people, and a few routes for the instructor's command line.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"example.org/security-training/services/env"
	"example.org/security-training/services/lms"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := lms.Run(ctx, env.Process); err != nil {
		fmt.Fprintln(os.Stderr, "lms:", err)
		os.Exit(1)
	}
}
