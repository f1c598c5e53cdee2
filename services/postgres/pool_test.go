package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/topology"
)

// A server that ends a role's connections, or restarts, must not fail the request that comes next.
func TestAConnectionThatTheServerEndedIsNotUsedAgain(t *testing.T) {
	pool := server.Database(t, topology.KindScorer)
	admin, err := pgx.ConnectConfig(t.Context(), server.Config(t, pool.Config().ConnConfig.Database, "postgres").ConnConfig)
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
	if err := admin.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity, pg_terminate_backend(pid, 5000) gone WHERE datname = current_database() AND usename = $1 AND gone", pool.Config().ConnConfig.User).Scan(&ended); err != nil || ended != many {
		t.Fatalf("%d connections ended, want %d: %v", ended, many, err)
	}
	for range many {
		if _, err := pool.Exec(t.Context(), "SELECT"); err != nil {
			t.Errorf("right after the server ended the pool's connections: %v", err)
		}
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
