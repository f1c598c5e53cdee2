package audited_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/manifests"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/topology"
)

// one makes rows for Write.
func one(rows ...audited.Row) func(pgx.Tx) ([]audited.Row, error) {
	return func(pgx.Tx) ([]audited.Row, error) { return rows, nil }
}

// A writer that was taken over can add to its chain, and can change or remove nothing of any.
func TestNoWriterMayChangeWhatTheAuditHolds(t *testing.T) {
	for _, kind := range []string{topology.KindDashboard, topology.KindScorer} {
		pool := server.Database(t, kind)
		if _, err := audited.Write(t.Context(), pool, one(audited.Row{Kind: "a"}, audited.Row{Kind: "b"})); err != nil {
			t.Fatal(err)
		}
		role := pool.Config().ConnConfig.User
		for _, statement := range []string{
			`UPDATE audit.entry SET kind = 'c'`, `UPDATE audit.entry SET kind = kind WHERE false`,
			`DELETE FROM audit.entry`, `DELETE FROM audit.entry WHERE false`, `TRUNCATE audit.entry`,
			`INSERT INTO audit.entry SELECT * FROM audit.own`, `SELECT * FROM audit.entry`,
			`UPDATE audit.tip SET seq = 0`, `DELETE FROM audit.tip`, `TRUNCATE audit.tip`, `SELECT * FROM audit.tip`,
			`INSERT INTO audit.tip VALUES ('x', 0, '')`,
			`UPDATE audit.own SET kind = 'c'`, `DELETE FROM audit.own`, `INSERT INTO audit.own SELECT * FROM audit.own`,
			`ALTER TABLE audit.entry ADD COLUMN x text`, `DROP TABLE audit.entry`, `DROP VIEW audit.own`,
			`CREATE TABLE audit.x ()`, `GRANT DELETE ON audit.entry TO ` + pgx.Identifier{role}.Sanitize(),
			`CREATE OR REPLACE FUNCTION audit.append(entries jsonb) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'`,
			`SET ROLE owner`, `SET SESSION AUTHORIZATION postgres`,
		} {
			_, err := pool.Exec(t.Context(), statement)
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code != "42501" { // insufficient_privilege
				t.Errorf("%s: %s: %v, want that it is refused", role, statement, err)
			}
		}
		rows, err := audited.Collect(audited.Export(t.Context(), pool, 0, 0))
		if err != nil || len(rows) != 2 || rows[0].Kind != "a" || rows[1].Kind != "b" {
			t.Errorf("%s: the chain is %+v, %v", role, rows, err)
		}
	}
}

// Of two writers in one database each sees its own chain, by each way to read it.
func TestAWriterReadsNoRowOfAnother(t *testing.T) {
	lms := server.Database(t, topology.KindDashboard)
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	config := server.Config(t, lms.Config().ConnConfig.Database, topo.OfKind(topology.KindScorer)[0].Name)
	scorer, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer scorer.Close()
	for _, pool := range []*pgxpool.Pool{lms, scorer} {
		mine := audited.Row{Kind: pool.Config().ConnConfig.User, Person: "mira", Event: "git:1"}
		if _, err := audited.Write(t.Context(), pool, one(mine)); err != nil {
			t.Fatal(err)
		}
	}
	for _, pool := range []*pgxpool.Pool{lms, scorer} {
		role := pool.Config().ConnConfig.User
		for name, query := range map[string]string{
			"own":             `SELECT chain || ' ' || kind FROM audit.own`,
			"newest":          `SELECT chain || ' ' || kind FROM audit.newest(0, '', 10)`,
			"story of event":  `SELECT chain || ' ' || kind FROM audit.story('git:1', '', '-infinity', 'infinity', 10)`,
			"story of person": `SELECT chain || ' ' || kind FROM audit.story('', 'mira', '-infinity', 'infinity', 10)`,
		} {
			rows, err := pool.Query(t.Context(), query)
			if err != nil {
				t.Fatal(err)
			}
			got, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil || len(got) != 1 || got[0] != role+" "+role {
				t.Errorf("%s reads by %s %v, %v; want its own row alone", role, name, got, err)
			}
		}
	}
}
