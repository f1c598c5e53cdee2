package riskscorer

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/postgres/pgtest"
	"example.org/security-training/services/topology"
)

// cluster is a real PostgreSQL, one for all tests of the package; each test has a database of its own.
var cluster pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &cluster)) }

// database makes a migrated database with the roles of the lab, and answers a pool for the scorer's.
func database(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return cluster.Database(t, topology.KindScorer)
}
