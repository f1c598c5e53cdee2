package dbkeeper_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.org/security-training/manifests"
	"example.org/security-training/services/dbkeeper"
	"example.org/security-training/services/topology"
)

// What topology gives a workload no more is taken from its role: a schema while it keeps others, and with the last one
// also its connections and its right to sign in.
func TestARoleLosesWhatTopologyNoLongerGivesIt(t *testing.T) {
	const name = "keeper"
	at := system.Config(t, "postgres", "postgres").ConnConfig
	prepare := func(database string) {
		t.Helper()
		text := string(manifests.Topology())
		const all = "database: [people, risk]"
		if !strings.Contains(text, all) {
			t.Fatal("the scorer has other schemas: change this test")
		}
		topo, err := topology.FromYAML([]byte(strings.Replace(text, all, database, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := dbkeeper.Prepare(t.Context(), at.Host, int(at.Port), name, topo); err != nil {
			t.Fatal(err)
		}
	}
	const both = "database: [people, risk]"
	prepare(both)
	defer prepare(both) // roles are the whole server's
	connect := func() (*pgx.Conn, error) {
		return pgx.ConnectConfig(t.Context(), system.Config(t, name, "risk-scorer").ConnConfig)
	}
	c, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	reads := func(table string) string {
		t.Helper()
		_, err := c.Exec(t.Context(), "SELECT FROM "+table)
		var refused *pgconn.PgError
		if errors.As(err, &refused) {
			return refused.Code
		} else if err != nil {
			t.Fatal(err)
		}
		return ""
	}
	for _, step := range []struct{ database, people, risk, own string }{
		{both, "", "", ""},
		{"database: [people]", "", "42501", ""},
		{both, "", "", ""},
	} {
		prepare(step.database)
		people, risk, own := reads("people.person"), reads("risk.event"), reads("audit.own")
		if people != step.people || risk != step.risk || own != step.own {
			t.Errorf("with %s: people %q, risk %q, audit %q", step.database, people, risk, own)
		}
	}
	prepare("database: []")
	if err := c.Ping(t.Context()); err == nil {
		t.Error("a connection outlives the last right of its role")
	}
	var refused *pgconn.PgError
	if again, err := connect(); !errors.As(err, &refused) || refused.Code != "28000" {
		t.Errorf("who has no schema signs in: %v, %v", again, err)
	}
}
