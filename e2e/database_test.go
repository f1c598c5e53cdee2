package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"example.org/security-training/services/mesh"
	"example.org/security-training/services/topology"
)

// connect signs in to the database as role, with the identity of name.
func connect(t *testing.T, name, role string) (*pgx.Conn, error) {
	t.Helper()
	return connectWith(t, member(t, name), role)
}

func connectWith(t *testing.T, node *mesh.Node, role string) (*pgx.Conn, error) {
	t.Helper()
	config, err := pgx.ParseConfig("sslmode=verify-full")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(addr(t, named(t, topology.KindDatabase, "")))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	config.Host, config.Port, config.Database, config.User = host, uint16(n), "security_training", role
	config.TLSConfig, config.Fallbacks = node.Database(), nil
	ctx, cancel := context.WithTimeout(t.Context(), slack(5*time.Second, 30*time.Second))
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil {
		t.Cleanup(func() { conn.Close(context.Background()) })
	}
	return conn, err
}

// owners are the workloads to which topology gives a schema.
func owners() []topology.Workload {
	return slices.DeleteFunc(
		slices.Clone(l.topo.Workloads),
		func(w topology.Workload) bool { return len(w.Database) == 0 },
	)
}

func TestTheDatabaseKnowsRolesByCertificateAlone(t *testing.T) {
	for _, w := range owners() {
		if _, err := connect(t, w.Name, w.Name); err != nil {
			t.Errorf("%s with its own certificate: %v", w.Name, err)
		}
	}
	for _, other := range l.topo.Workloads {
		for _, w := range owners() {
			if other.Name == w.Name {
				continue
			}
			if _, err := connect(t, other.Name, w.Name); err == nil || !refusedBy(err, "28000") {
				t.Errorf("%s as role %s: %v, want certificate authentication failed", other.Name, w.Name, err)
			}
		}
		if len(other.Database) > 0 || other.Kind == topology.KindDatabase {
			continue
		}
		if _, err := connect(t, other.Name, other.Name); err == nil || !refusedBy(err, "28000") {
			t.Errorf("%s, which has no schema: %v, want no such role", other.Name, err)
		}
	}
	for _, role := range []string{"postgres", "owner"} {
		if _, err := connect(t, owners()[0].Name, role); err == nil || !refusedBy(err, "28000") {
			t.Errorf("as %s: %v, want a refusal", role, err)
		}
	}
}

func TestTheDatabaseSpeaksNothingButTLSAndAsksForNoPassword(t *testing.T) {
	host, port, err := net.SplitHostPort(addr(t, named(t, topology.KindDatabase, "")))
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{owners()[0].Name, "postgres"} {
		_, err = pgx.Connect(
			t.Context(),
			fmt.Sprintf("host=%s port=%s user=%s password=secret dbname=security_training sslmode=disable", host, port, role),
		)
		if err == nil || !refusedBy(err, "28000") {
			t.Errorf("%s in plaintext: %v, want no entry in pg_hba", role, err)
		}
	}
	conn, err := connect(t, owners()[0].Name, owners()[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	var version string
	if err := conn.QueryRow(
		t.Context(), "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
	).Scan(&version); err != nil ||
		version != "TLSv1.3" {
		t.Errorf("the connection speaks %q, %v; want TLSv1.3", version, err)
	}
}

func TestAForgedCertificateIsNoRole(t *testing.T) {
	id := owners()[0].Name
	forged, err := impostorNode(t, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connectWith(t, forged, id); err == nil {
		t.Error("a certificate of another CA with the right name signed in")
	}
	// A name that topology does not list has no role, even with a certificate of the lab's CA.
	_, _, err = l.Mint(t.Context(), spiffeid.RequireFromPath(l.topo.Domain(), "/mallory"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
}

// Role × table × verb: the grants are exactly those listed here. The test tries each statement instead of reading the
// catalogue.
func TestEachRoleMayDoExactlyWhatItsSchemasAllow(t *testing.T) {
	rows := map[string]map[string]string{} // role → table → verbs that succeed
	var tables []string
	for _, w := range owners() {
		conn, err := connect(t, w.Name, w.Name)
		if err != nil {
			t.Fatal(err)
		}
		if tables == nil {
			tables = listTables(t, conn)
		}
		rows[w.Name] = map[string]string{}
		for _, table := range tables {
			rows[w.Name][table] = verbsOn(t, conn, table)
		}
	}
	if len(tables) < 10 {
		t.Fatalf("only %d tables: this proves nothing", len(tables))
	}
	for role, grants := range rows {
		w, _ := l.topo.Workload(role)
		for table, verbs := range grants {
			schema, _, _ := strings.Cut(table, ".")
			switch {
			case schema == "audit" && verbs != "" && table != "audit.own":
				t.Errorf("%s may %s on %s: the audit is written by its function alone", role, verbs, table)
			case table == "audit.own" && verbs != "SELECT":
				t.Errorf("%s may %q on its own audit, want SELECT", role, verbs)
			case schema != "audit" && !slices.Contains(w.Database, schema) && verbs != "":
				t.Errorf("%s may %s on %s, which is not its own", role, verbs, table)
			case slices.Contains(w.Database, schema) && !strings.Contains(verbs, "SELECT"):
				t.Errorf("%s may not read its own %s", role, table)
			case strings.Contains(verbs, "TRUNCATE"):
				t.Errorf("%s may empty %s", role, table)
			}
		}
	}
}

func listTables(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	r, err := conn.Query(
		t.Context(),
		"SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE "+
			"c.relkind IN ('r', 'v') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' ORDER BY 1",
	)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(r, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

// verbsOn tries each verb on a table, in a transaction that is rolled back, and returns those that were not denied.
func verbsOn(t *testing.T, conn *pgx.Conn, table string) string {
	t.Helper()
	schema, name, _ := strings.Cut(table, ".")
	quoted := pgx.Identifier{schema, name}.Sanitize()
	var column string
	if err := conn.QueryRow(
		t.Context(),
		"SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = "+
			"c.relnamespace WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND a.attidentity = '' "+
			"ORDER BY a.attnum LIMIT 1",
		schema, name,
	).Scan(&column); err != nil {
		t.Fatal(err)
	}
	column = pgx.Identifier{column}.Sanitize()
	var may []string
	for _, try := range []struct{ verb, sql string }{
		{"SELECT", "SELECT FROM " + quoted + " LIMIT 1"},
		{"INSERT", "INSERT INTO " + quoted + " SELECT * FROM " + quoted + " WHERE false"},
		{"INSERT", "INSERT INTO " + quoted + " DEFAULT VALUES"},
		{"UPDATE", "UPDATE " + quoted + " SET " + column + " = " + column + " WHERE false"},
		{"DELETE", "DELETE FROM " + quoted + " WHERE false"},
		{"TRUNCATE", "TRUNCATE " + quoted},
	} {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.Exec(t.Context(), try.sql)
		// A violated constraint shows that the statement was permitted.
		var e *pgconn.PgError
		if (err == nil || errors.As(err, &e) && strings.HasPrefix(e.Code, "23")) && !slices.Contains(may, try.verb) {
			may = append(may, try.verb)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(may, " ")
}

// refusedBy says whether err is PostgreSQL's, with this code.
func refusedBy(err error, code string) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == code || code == "28000" && e.Code == "28P01")
}

func TestAWorkloadThatTopologyGivesNoSchemaAnyMoreLosesItsConnections(t *testing.T) {
	w := l.topo.OfKind(topology.KindDashboard)[0]
	conn, err := connect(t, w.Name, w.Name)
	if err != nil {
		t.Fatal(err)
	}
	restore := editTopology(t, fmt.Sprintf("database: [%s]", strings.Join(w.Database, ", ")), "database: []")
	await(t, slack(5*time.Second, 90*time.Second), "the open connection to be ended", func() bool {
		_, err := conn.Exec(t.Context(), "SELECT")
		return err != nil
	})
	if _, err := connect(t, w.Name, w.Name); err == nil || !refusedBy(err, "28000") {
		t.Errorf("signing in again: %v, want a refusal", err)
	}
	restore()
	await(t, slack(5*time.Second, 90*time.Second), w.Name+" to be let in again", func() bool {
		_, err := connect(t, w.Name, w.Name)
		return err == nil
	})
	awaitHealthy(t)
}
