package lms

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/postgres/pgtest"
	"example.org/security-training/services/topology"
)

// server is a real PostgreSQL, one for all tests of the package; each test has a database of its own.
var server pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &server)) }

// database makes a migrated database with the lab's roles, and answers a pool for the learning system's.
func database(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return server.Database(t, topology.KindDashboard)
}
