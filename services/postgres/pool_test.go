package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/postgres"
	"example.org/security-training/services/topology"
)

// A server that ends a role's connections, or restarts, must not fail the request that comes next.
func TestAConnectionThatTheServerEndedIsNotUsedAgain(t *testing.T) {
	pool := server.Database(t, topology.KindScorer)
	admin, err := pgx.ConnectConfig(t.Context(), server.Config(t, pool.Config().ConnConfig.Database,
		"postgres").ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	const many = 3
	var held [many]*pgxpool.Conn
	for i := range held {
		if held[i], err = pool.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range held {
		c.Release()
	}
	var ended int
	if err := admin.QueryRow(t.Context(), `
		SELECT count(*) FROM pg_stat_activity, pg_terminate_backend(pid, 5000) gone
		WHERE datname = current_database() AND usename = $1 AND gone`,
		pool.Config().ConnConfig.User).Scan(&ended); err != nil || ended != many {
		t.Fatalf("%d connections ended, want %d: %v", ended, many, err)
	}
	for range many {
		if _, err := pool.Exec(t.Context(), "SELECT"); err != nil {
			t.Errorf("right after the server ended the pool's connections: %v", err)
		}
	}
}

// The server of these tests has no TLS, so that the pool of Open lends its rules to one that connects without.
func TestAWorkloadWhoseIdentityIsWithdrawnUsesNoOpenConnection(t *testing.T) {
	n := meshtest.Start(t, manifests.Topology())
	name := n.Topology.OfKind(topology.KindScorer)[0].Name
	node := n.Join(t, name)
	ctx, cancel := context.WithCancel(t.Context())
	opened, err := postgres.Open(ctx, node, env.Map(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); opened.Close() })
	config := server.Config(t, server.Database(t, topology.KindScorer).Config().ConnConfig.Database, name)
	config.AfterConnect, config.PrepareConn = opened.Config().AfterConnect, opened.Config().PrepareConn
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	backend := func() (pid int, err error) {
		err = pool.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid)
		return pid, err
	}
	first, err := backend()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := backend(); err != nil || again != first {
		t.Fatalf("connection %d after %d, %v; want the pool to keep one", again, first, err)
	}

	withdrawn := errors.New("withdrawn")
	n.Identity(name).Clear(withdrawn)
	for range 3 {
		if pid, err := backend(); !errors.Is(err, withdrawn) {
			t.Errorf("without an identity: connection %d, %v", pid, err)
		}
	}
	n.Identity(name).Set(n.Mint(t, name, time.Hour, nil), n.Bundles())
	if pid, err := backend(); err != nil || pid == first {
		t.Errorf("with an identity again: connection %d, %v; want one that it has opened itself", pid, err)
	}
}

func BenchmarkStatement(b *testing.B) {
	pool := server.Database(b, topology.KindScorer)
	for b.Loop() {
		if _, err := pool.Exec(b.Context(), "SELECT"); err != nil {
			b.Fatal(err)
		}
	}
}
