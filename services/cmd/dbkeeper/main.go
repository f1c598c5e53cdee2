// Command dbkeeper keeps a PostgreSQL server's identity, roles and schemas.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"example.org/security-training/services/dbkeeper"
	"example.org/security-training/services/env"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := dbkeeper.Run(ctx, env.Process); err != nil {
		fmt.Fprintln(os.Stderr, "dbkeeper:", err)
		os.Exit(1)
	}
}
