package lms

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/postgres/pgtest"
	"example.org/security-training/services/topology"
)

// server is a PostgreSQL server for all tests of the package. Each test has its own database.
var server pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &server)) }

// database makes a migrated database with the lab's roles, and returns a pool with the role of the learning system.
func database(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return server.Database(t, topology.KindDashboard)
}
