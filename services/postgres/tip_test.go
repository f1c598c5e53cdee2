package postgres_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/postgres"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/topology"
)

// The end of a writer's rows stands in its chain of decisions, which is signed from outside: without it rows could be
// cut off in the database.
func TestAWriterReportsTheEndOfItsRowsInItsChainOfDecisions(t *testing.T) {
	pool := server.Database(t, topology.KindDashboard)
	path := filepath.Join(t.TempDir(), "audit")
	chain, err := audit.Open(path, "lms")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); postgres.ReportTip(ctx, pool, chain) }()
	defer func() {
		stop()
		<-done
		if err := chain.Close(); err != nil {
			t.Error(err)
		}
	}()
	for range 2 { // a later end is reported as well
		rows := func(pgx.Tx) ([]audited.Row, error) {
			return []audited.Row{{Kind: "one"}, {Kind: "two"}}, nil
		}
		if _, err := audited.Write(t.Context(), pool, rows); err != nil {
			t.Fatal(err)
		}
		want := ""
		query := `SELECT seq || ' ' || hash FROM audit.own ORDER BY seq DESC LIMIT 1`
		if err := pool.QueryRow(t.Context(), query).Scan(&want); err != nil {
			t.Fatal(err)
		}
		look, deadline := time.NewTicker(10*time.Millisecond), time.After(time.Minute)
		for reported := false; !reported; {
			select {
			case <-look.C:
			case <-deadline:
				t.Fatalf("the end %q was not reported within a minute", want)
			}
			last, err := audit.Tip(path)
			if err != nil {
				t.Fatal(err)
			}
			reported = last.Kind == audit.KindTip && last.Detail == want
		}
		look.Stop()
	}
}
