package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"example.org/security-training/services/postgres"
	"example.org/security-training/services/postgres/pgtest"
	"example.org/security-training/services/topology"
)

var server pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &server)) }

// rowsEach is how many rows a table gets before a migration, so that one that takes away some is noticed as well.
const rowsEach = 3

// values are SQL expressions for columns of which not any value of their type will do; %d is the row's number, from 1.
// A migration that adds a constraint adds to these what the rows of before must satisfy; null where a state demands it.
var values = map[string][rowsEach]string{
	"people.clock.one":                  {"true"},
	"training.certificate_key.key":      {"sha256('1')"},
	"training.link.role":                {"'person'", "'instructor'", "'person'"},
	"training.lesson.state":             {"'ready'", "'passed'", "'writing'"},
	"training.lesson.lesson":            {`'{"a":1}'`, `'{"a":2}'`, "NULL"},
	"training.revoked_certificate.role": {"'person'", "'instructor'", "'admin'"},
	"training.console_order.state":      {"'waiting'", "'taken'", "'done'"},
	"training.mail.submitted":           {"NULL", "now()", "NULL"},
	"training.mail.clicked":             {"NULL", "now()", "now()"},
}

// single are the tables that hold one row at most.
var single = []string{"people.clock", "training.certificate_key"}

// ofType are SQL expressions for columns of a type.
var ofType = map[string]string{
	"text": "'x%d'", "bigint": "%d", "integer": "%d", "boolean": "%d = 1", "double precision": "%d / 4.0",
	"date":                     "DATE '2026-01-01' + %d",
	"timestamp with time zone": "TIMESTAMPTZ '2026-01-01 12:00:00.123456Z' + interval '%d h'",
	"uuid":                     "('00000000-0000-0000-0000-' || lpad('%d', 12, '0'))::uuid",
	"jsonb":                    `'{"n": %d}'`, "bytea": "decode('0%d', 'hex')", "ARRAY": "'{%d}'",
}

// column is one that a row is inserted into.
type column struct {
	Table, Name, Type string
	Parent            *string // the table that the column refers to
	ParentColumn      *string
}

func columns(ctx context.Context, c *pgx.Conn) ([]column, error) {
	rows, err := c.Query(ctx, `
		SELECT c.table_schema || '.' || c.table_name, c.column_name, c.data_type, f.parent, f.parent_column
		FROM information_schema.columns c
		JOIN information_schema.tables t USING (table_schema, table_name)
		LEFT JOIN (
			SELECT k.conrelid, a.attname, k.confrelid::regclass::text AS parent, b.attname AS parent_column
			FROM pg_constraint k
			JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
			JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = k.confkey[1]
			WHERE k.contype = 'f'
		) f ON f.conrelid = (quote_ident(c.table_schema) || '.' || quote_ident(c.table_name))::regclass
			AND f.attname = c.column_name
		WHERE c.table_schema IN ('audit', 'people', 'risk', 'training') AND t.table_type = 'BASE TABLE'
			AND c.is_identity = 'NO' AND c.is_generated = 'NEVER'
		ORDER BY 1, c.ordinal_position`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[column])
}

// fill puts rows into every table, those that others refer to first.
func fill(ctx context.Context, c *pgx.Conn) error {
	all, err := columns(ctx, c)
	if err != nil {
		return err
	}
	tables := map[string][]column{}
	for _, col := range all {
		tables[col.Table] = append(tables[col.Table], col)
	}
	for len(tables) > 0 {
		before := len(tables)
		for _, table := range slices.Sorted(maps.Keys(tables)) {
			waits := slices.ContainsFunc(tables[table], func(col column) bool {
				return col.Parent != nil &&
					tables[*col.Parent] != nil
			})
			if waits {
				continue
			}
			n := rowsEach
			if slices.Contains(single, table) {
				n = 1
			}
			for i := range n {
				if err := insert(ctx, c, table, tables[table], i); err != nil {
					return err
				}
			}
			delete(tables, table)
		}
		if len(tables) == before {
			return fmt.Errorf("tables refer to each other in a ring: %v", slices.Sorted(maps.Keys(tables)))
		}
	}
	return nil
}

func insert(ctx context.Context, c *pgx.Conn, table string, cols []column, i int) error {
	var names, exprs []string
	for _, col := range cols {
		expr, ok := ofType[col.Type]
		expr = strings.ReplaceAll(expr, "%d", fmt.Sprint(i+1))
		if own, special := values[table+"."+col.Name]; special {
			expr, ok = own[i], true
		} else if col.Parent != nil {
			expr, ok = fmt.Sprintf("(SELECT %s FROM %s ORDER BY 1 OFFSET %d LIMIT 1)", *col.ParentColumn, *col.Parent, i), true
		}
		if !ok {
			return fmt.Errorf("no value is known for %s.%s, a %s: add one to this test", table, col.Name, col.Type)
		}
		names, exprs = append(names, pgx.Identifier{col.Name}.Sanitize()), append(exprs, expr)
	}
	if _, err := c.Exec(ctx, "INSERT INTO "+table+" ("+strings.Join(names, ", ")+") VALUES ("+strings.Join(exprs,
		", ")+")"); err != nil {
		return fmt.Errorf("row %d of %s: %w (does it need a value of its own in this test?)", i+1, table, err)
	}
	return nil
}

// held is everything that a database holds: rows by table, each a map from column to text, and who may do what with
// which table.
type held struct {
	rows   map[string][]map[string]string
	rights []string
}

func read(ctx context.Context, c *pgx.Conn) (held, error) {
	h := held{rows: map[string][]map[string]string{}}
	rows, err := c.Query(ctx, `SELECT table_schema || '.' || table_name FROM information_schema.tables
		WHERE table_schema IN ('audit', 'people', 'risk', 'training') AND table_type = 'BASE TABLE'`)
	if err != nil {
		return h, err
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return h, err
	}
	for _, table := range tables {
		// Sorted by the row's text at first sight, which a new column at the end does not change the order of.
		rows, err := c.Query(ctx, `
			SELECT (SELECT jsonb_object_agg(key, coalesce(value, '<null>')) FROM jsonb_each_text(to_jsonb(t)))
			FROM `+table+" t ORDER BY t::text")
		if err != nil {
			return h, err
		}
		if h.rows[table], err = pgx.CollectRows(rows, pgx.RowTo[map[string]string]); err != nil {
			return h, err
		}
	}
	rows, err = c.Query(ctx, `
		SELECT grantee || ' ' || privilege_type || ' ' || table_schema || '.' || table_name
		FROM information_schema.role_table_grants
		WHERE table_schema IN ('audit', 'people', 'risk', 'training') ORDER BY 1`)
	if err != nil {
		return h, err
	}
	h.rights, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return h, err
}

// lost says what of before is not in after: a table, a row, a value, a privilege. Additions are allowed.
func lost(before, after held) []string {
	var out []string
	for _, table := range slices.Sorted(maps.Keys(before.rows)) {
		was, is := before.rows[table], after.rows[table]
		if len(is) < len(was) {
			out = append(out, fmt.Sprintf("%s has %d rows of %d", table, len(is), len(was)))
			continue
		}
		for _, row := range was {
			kept := slices.ContainsFunc(is, func(r map[string]string) bool {
				for name, v := range row {
					if now, ok := r[name]; !ok || now != v {
						return false
					}
				}
				return true
			})
			if !kept {
				out = append(out, fmt.Sprintf("%s lost or changed %v", table, row))
			}
		}
	}
	for _, right := range before.rights {
		if !slices.Contains(after.rights, right) {
			out = append(out, "a privilege is gone: "+right)
		}
	}
	return out
}

// database is one of a test's own, with goose for it.
type database struct {
	*goose.Provider
	conn *pgx.Conn
	pool *sql.DB
}

// scratch makes a database, a copy of another, for the migrations in files. It is to be closed before it is copied
// itself.
func scratch(t *testing.T, name, of string, files fs.FS) *database {
	t.Helper()
	ctx := t.Context()
	admin, err := pgx.ConnectConfig(ctx, server.Config(t, "postgres", "postgres").ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	// a test may run more than once
	for _, act := range []string{"DROP DATABASE IF EXISTS " + name, "CREATE DATABASE " + name + " OWNER owner TEMPLATE " +
		of} {
		if _, err := admin.Exec(ctx, act); err != nil {
			t.Fatal(err)
		}
	}
	d := &database{pool: stdlib.OpenDB(*server.Config(t, name, "postgres").ConnConfig)}
	if d.Provider, err = goose.NewProvider(goose.DialectPostgres, d.pool, files); err != nil {
		t.Fatal(err)
	}
	if d.conn, err = pgx.ConnectConfig(ctx, server.Config(t, name, "postgres").ConnConfig); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.close(t) })
	return d
}

func (d *database) close(t *testing.T) {
	t.Helper()
	if err := errors.Join(d.conn.Close(context.WithoutCancel(t.Context())), d.pool.Close()); err != nil {
		t.Error(err)
	}
}

// step fills a database, migrates it and says what was lost.
func (d *database) step(ctx context.Context) ([]string, error) {
	if err := fill(ctx, d.conn); err != nil {
		return nil, err
	}
	before, err := read(ctx, d.conn)
	if err != nil {
		return nil, err
	}
	for table, rows := range before.rows {
		if len(rows) == 0 {
			return nil, fmt.Errorf("%s has no row to lose", table)
		}
	}
	if _, err := d.Up(ctx); err != nil {
		return nil, err
	}
	after, err := read(ctx, d.conn)
	if err != nil {
		return nil, err
	}
	return lost(before, after), nil
}

// came are the numbers of the migrations in the order in which databases got them, which is not to be had from the
// files: it is only ever added to, at its end. A database stands at any place of it.
var came = []int64{1, 10, 20, 21, 22, 23, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40}

// withdrawn is a migration that came once behind 32, where no database with 32 would take it: what it does is done by
// 36. There are databases that began with it.
const withdrawn = 24

// files are the migrations with these numbers, by name.
func files(t *testing.T, numbers []int64) fstest.MapFS {
	t.Helper()
	names, err := fs.Glob(postgres.Migrations(), "*")
	if err != nil {
		t.Fatal(err)
	}
	some := fstest.MapFS{}
	for _, name := range names {
		n, err := goose.NumericComponent(name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(numbers, n) {
			continue
		}
		text, err := fs.ReadFile(postgres.Migrations(), name)
		if err != nil {
			t.Fatal(err)
		}
		some[name] = &fstest.MapFile{Data: text}
	}
	return some
}

func TestEachMigrationKeepsWhatTheOnesBeforeItHeld(t *testing.T) {
	server.Database(t, topology.KindDashboard) // makes the roles
	base := "template0"
	for i, v := range came {
		until := files(t, came[:i+1])
		// The empty database of the migration before, with rows …
		if i > 0 {
			missing, err := scratch(t, fmt.Sprintf("filled_to_%d", came[i-1]), base, until).step(t.Context())
			if err != nil {
				t.Fatalf("migrate to %d: %v", v, err)
			}
			for _, m := range missing {
				t.Errorf("migrate to %d: %s", v, m)
			}
		}
		// … and without, for the next.
		name := fmt.Sprintf("migrated_to_%d", v)
		d := scratch(t, name, base, until)
		if _, err := d.Up(t.Context()); err != nil {
			t.Fatalf("migrate to %d: %v", v, err)
		}
		d.close(t)
		base = name
	}
	d := scratch(t, "twice", base, postgres.Migrations())
	if err := fill(t.Context(), d.conn); err != nil {
		t.Fatalf("rows after %s: %v", base, err)
	}
	before, err := read(t.Context(), d.conn)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.Up(t.Context()); err != nil || len(again) > 0 {
		t.Errorf("migrate twice: %d were applied again, %v", len(again), err)
	}
	after, err := read(t.Context(), d.conn)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, after, cmp.AllowUnexported(held{})); d != "" {
		t.Errorf("migrate twice: %s", d)
	}
}

// TestADatabaseWithWhatWasWithdrawnEndsLikeAnyOther begins, with rows, at each place where a database can have it;
// functions and who may call them are compared as well.
func TestADatabaseWithWhatWasWithdrawnEndsLikeAnyOther(t *testing.T) {
	server.Database(t, topology.KindDashboard)
	histories := map[string]fstest.MapFS{"from_32": files(t, came[:slices.Index(came, 32)+1])}
	for _, last := range []int64{32, 33, 34, 35} {
		old := files(t, came[:slices.Index(came, last)+1])
		for _, f := range files(t, []int64{36}) {
			old[fmt.Sprintf("%05d_withdrawn.sql", withdrawn)] = &fstest.MapFile{Data: []byte(strings.ReplaceAll(string(f.Data),
				"CREATE OR REPLACE ", "CREATE "))}
		}
		histories[fmt.Sprintf("from_%d_with_%d", last, withdrawn)] = old
	}
	var want []string
	for _, name := range slices.Sorted(maps.Keys(histories)) {
		d := scratch(t, name, "template0", histories[name])
		if _, err := d.Up(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d.close(t)
		now := scratch(t, name+"_now", name, postgres.Migrations())
		missing, err := now.step(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, m := range missing {
			t.Errorf("%s: %s", name, m)
		}
		rows, err := now.conn.Query(t.Context(), `
			SELECT 'function ' || oid::regprocedure || ' of ' || proowner::regrole || ' for ' || 
				coalesce(proacl::text, 'all') || prosrc FROM pg_proc
				WHERE pronamespace::regnamespace::text IN ('audit', 'people', 'risk', 'training')
			UNION ALL SELECT 'column ' || table_schema || '.' || table_name || '.' || column_name || ' ' || data_type
				FROM information_schema.columns WHERE table_schema IN ('audit', 'people', 'risk', 'training')
			UNION ALL SELECT 'table ' || oid::regclass || ' for ' || coalesce(relacl::text, 'none')
				FROM pg_class WHERE relnamespace::regnamespace::text IN ('audit', 'people', 'risk', 'training')
			UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname IN ('audit', 'people', 'risk', 'training')
			ORDER BY 1`)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		if d := cmp.Diff(want, got); d != "" || len(got) < 50 {
			t.Errorf("%s ends with %d objects otherwise than the first (-first +this)\n%s", name, len(got), d)
		}
		now.close(t)
	}
}

func TestAMigrationThatLosesSomethingIsNoticed(t *testing.T) {
	server.Database(t, topology.KindDashboard)
	next := came[len(came)-1] + 1
	whole := scratch(t, "whole", "template0", postgres.Migrations())
	if _, err := whole.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole.close(t)
	for i, x := range []struct{ statement, want string }{
		{"ALTER TABLE training.lesson ADD COLUMN more text NOT NULL DEFAULT 'x'", ""},
		{"TRUNCATE training.outbox", "training.outbox has 0 rows of 3"},
		{"DELETE FROM risk.event WHERE position = 2", "risk.event has 2 rows of 3"},
		{"DROP TABLE training.feed", "training.feed has 0 rows of 3"},
		{"ALTER TABLE people.person DROP COLUMN zone", "people.person lost or changed"},
		{"ALTER TABLE training.hint RENAME cost TO price", "training.hint lost or changed"},
		{"UPDATE people.account SET account = upper(account)", "people.account lost or changed"},
		{"ALTER TABLE training.completion ALTER at TYPE timestamptz(0)", "training.completion lost or changed"},
		{"REVOKE INSERT ON training.session FROM training_writer", "training_writer INSERT training.session"},
	} {
		files := files(t, came)
		files[fmt.Sprintf("%05d_next.sql", next)] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + x.statement + ";\n")}
		missing, err := scratch(t, fmt.Sprintf("loss_%d", i), "whole", files).step(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", x.statement, err)
		}
		if got := strings.Join(missing, "; "); (got == "") != (x.want == "") || !strings.Contains(got, x.want) {
			t.Errorf("%s: %q, want %q", x.statement, got, x.want)
		}
	}
}

func TestMigrationsAreNumberedInOrderAndGoForwardOnly(t *testing.T) {
	names, err := fs.Glob(postgres.Migrations(), "*")
	if err != nil || len(names) == 0 {
		t.Fatalf("migrations: %v, %v", names, err)
	}
	if !slices.IsSorted(came) {
		t.Errorf("%v: a database that has a higher one takes none below it: give a new migration the highest number", came)
	}
	pattern := regexp.MustCompile(`^(\d{5})_[a-z_]+\.sql$`)
	var numbers []int64
	for _, name := range names {
		m := pattern.FindStringSubmatch(name)
		if m == nil {
			t.Errorf("%s: want five digits, a name in lower case, .sql", name)
			continue
		}
		n, err := goose.NumericComponent(name)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
		text, err := fs.ReadFile(postgres.Migrations(), name)
		if err != nil {
			t.Fatal(err)
		}
		if up := strings.Count(string(text), "-- +goose Up\n"); up != 1 {
			t.Errorf("%s has %d sections Up, want 1", name, up)
		}
		if regexp.MustCompile(`(?i)\+goose\s+down`).Match(text) {
			t.Errorf("%s has a section Down: a database goes forward only", name)
		}
	}
	if d := cmp.Diff(came, numbers); d != "" {
		t.Errorf("what came is not what is here: a new migration goes to the end of came (-came +files)\n%s", d)
	}
}
