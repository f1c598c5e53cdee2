package dbkeeper_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/moby/moby/api/types/container"
	"github.com/pressly/goose/v3"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/log"
	"github.com/testcontainers/testcontainers-go/wait"
	"sigs.k8s.io/yaml"

	"example.org/security-training/manifests"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/dbkeeper"
	"example.org/security-training/services/env"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/postgres"
	"example.org/security-training/services/postgres/pgtest"
	"example.org/security-training/services/topology"
)

// system is the server that every other test of the store runs on: the machine's own.
var system pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &system)) }

const database = "security_training"

// server is a PostgreSQL that answers somewhere.
type server struct {
	host string
	port int
}

func (s server) connect(t *testing.T, role string) *pgx.Conn {
	t.Helper()
	config, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	config.Host, config.Port, config.Database, config.User = s.host, uint16(s.port), database, role
	config.RuntimeParams["timezone"] = "UTC"
	c, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

// prepare does what a keeper does when it starts.
func (s server) prepare(t *testing.T, topo *topology.Topology) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := dbkeeper.Prepare(ctx, s.host, s.port, database, topo); err != nil {
		t.Fatal(err)
	}
}

// TestTheStoreIsTheSameOnEveryVersionOfPostgreSQL prepares a server of each version that an image is there for, and
// holds it against the machine's own. No image is pulled.
func TestTheStoreIsTheSameOnEveryVersionOfPostgreSQL(t *testing.T) {
	needtest.Engine(t)
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	// The library's reaper is a container, too, and would be pulled. What start starts ends by itself.
	t.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
	repository := repository(t)
	majors := []int{15, 16, 17, 18}
	own, _ := env.Process("LAB_POSTGRES_IMAGE")
	ownMajor := 0
	if own != "" {
		t.Run("own-image", func(t *testing.T) { ownMajor = major(t, needtest.LocalImage(t, own)) })
		if ownMajor != 0 && !slices.Contains(majors, ownMajor) {
			majors = append(majors, ownMajor)
		}
	}
	for _, major := range majors {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			image := fmt.Sprintf("%s:%d", repository, major)
			if major == ownMajor {
				image = own
			}
			s := start(t, needtest.LocalImage(t, image), topo.OfKind(topology.KindDatabase)[0].Port)
			s.prepare(t, topo)
			admin := s.connect(t, "postgres")
			if got := one[int](t, admin, "SELECT current_setting('server_version_num')::int / 10000"); got != major {
				t.Fatalf("the image has version %d", got)
			}
			everyMigrationIsApplied(t, admin)
			preparingAgainChangesNothing(t, s, admin, topo)
			rightsAreThoseOfTheSystem(t, admin, topo)
			rolesReachTheirSchemas(t, admin, topo)
			auditIsChained(t, s, admin, topo)
		})
	}
}

// repository is where the chart has PostgreSQL from.
func repository(t *testing.T) string {
	t.Helper()
	text, err := fs.ReadFile(manifests.Chart(), "values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		Postgres struct{ Image struct{ Repository string } }
	}
	if err := yaml.Unmarshal(text, &values); err != nil || values.Postgres.Image.Repository == "" {
		t.Fatalf("read the chart's values: no repository of PostgreSQL, %v", err)
	}
	return values.Postgres.Image.Repository
}

// major asks the server in an image, because a tag need not say it.
func major(t *testing.T, image string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", "run", "--rm", "--network", "none", "--entrypoint", "postgres", image,
		"--version")
	out, err := cmd.Output()
	found := regexp.MustCompile(`\(PostgreSQL\) (\d+)`).FindSubmatch(out)
	if err != nil || found == nil {
		t.Fatalf("ask %s for its version: %s %v", image, out, err)
	}
	n, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// start starts a server of image with the chart's settings, on port within. It lives no longer than the test; if the
// test is killed, no longer than ten minutes.
func start(t *testing.T, image string, port int) server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// By its ID: an ID cannot be pulled.
	id, err := exec.CommandContext(ctx, "docker", "image", "inspect", "--format", "{{.Id}}", image).Output()
	if err != nil {
		t.Fatal(err)
	}
	const path = "/etc/postgresql.conf"
	// In the file, because an image's own arguments come before ours: while it makes its database, it listens on a socket
	// alone.
	settings := string(manifests.PostgresSettings()) + "\nlisten_addresses = '*'\nfsync = off\n"
	out := &output{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server said:\n%s", out)
		}
	})
	c, err := testcontainers.Run(ctx, strings.TrimSpace(string(id)),
		testcontainers.WithLogger(log.TestLogger(t)),
		testcontainers.WithEnv(map[string]string{"POSTGRES_HOST_AUTH_METHOD": "trust", "PGPORT": strconv.Itoa(port)}),
		testcontainers.WithExposedPorts(strconv.Itoa(port)+"/tcp"),
		testcontainers.WithFiles(testcontainers.ContainerFile{Reader: strings.NewReader(settings), ContainerFilePath: path,
			FileMode: 0o644}),
		testcontainers.WithEntrypoint("timeout", "600", "docker-entrypoint.sh"),
		testcontainers.WithCmd("postgres", "-c", "config_file="+path),
		testcontainers.WithHostConfigModifier(func(h *container.HostConfig) { h.AutoRemove = true }),
		testcontainers.WithLogConsumers(out),
		testcontainers.WithWaitStrategy(wait.ForExec([]string{"pg_isready", "-h", "127.0.0.1", "-U",
			"postgres"}).WithStartupTimeout(90*time.Second)),
	)
	testcontainers.CleanupContainer(t, c, testcontainers.StopTimeout(0))
	if err != nil {
		t.Fatal(err)
	}
	at, err := c.Endpoint(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	host, mapped, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(mapped)
	if err != nil {
		t.Fatal(err)
	}
	return server{host, n}
}

// output keeps what a server says: its container is gone with it.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

// Accept implements testcontainers.LogConsumer.
func (o *output) Accept(l testcontainers.Log) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(l.Content)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func one[T any](t *testing.T, c *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func list[T any](t *testing.T, c *pgx.Conn, to pgx.RowToFunc[T], sql string, args ...any) []T {
	t.Helper()
	rows, err := c.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, to)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func everyMigrationIsApplied(t *testing.T, admin *pgx.Conn) {
	t.Helper()
	names, err := fs.Glob(postgres.Migrations(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	var want []int64
	for _, name := range names {
		n, err := goose.NumericComponent(name)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, n)
	}
	got := list(t, admin, pgx.RowTo[int64],
		"SELECT version_id FROM goose_db_version WHERE is_applied AND version_id > 0 ORDER BY version_id")
	if d := cmp.Diff(want, got); d != "" || len(want) < 10 {
		t.Errorf("applied are (-files +applied)\n%s", d)
	}
}

// preparingAgainChangesNothing holds that a keeper's restart rewrites no row of a catalogue, except for the roles'
// attributes, which it sets to what they are.
func preparingAgainChangesNothing(t *testing.T, s server, admin *pgx.Conn, topo *topology.Topology) {
	t.Helper()
	state := func() []string {
		return slices.Concat(rights(t, admin), list(t, admin, pgx.RowTo[string], `
			SELECT 'migration ' || version_id || ' at ' || tstamp FROM goose_db_version
			UNION ALL SELECT 'role ' || rolname || ' ' || rolcanlogin || ' ' || rolinherit || ' ' || rolcreatedb ||
				' ' || rolcreaterole FROM pg_roles
			UNION ALL SELECT 'relation ' || oid::regclass || ' ' || xmin FROM pg_class
				WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('audit', 'people', 'risk', 'training'))
			UNION ALL SELECT 'member ' || roleid::regrole || ' ' || member::regrole || ' ' || xmin FROM pg_auth_members
			ORDER BY 1`))
	}
	before := state()
	s.prepare(t, topo)
	if d := cmp.Diff(before, state()); d != "" {
		t.Errorf("prepared again (-before +after)\n%s", d)
	}
}

// rights are who may do what with which object, by the server's own judgement, inherited rights included. The verbs are
// listed, because MAINTAIN is one of newer servers only.
func rights(t *testing.T, admin *pgx.Conn) []string {
	t.Helper()
	return list(t, admin, pgx.RowTo[string], `
		WITH role AS (SELECT oid, rolname FROM pg_roles WHERE NOT rolsuper AND rolname NOT LIKE 'pg\_%'),
		space AS (SELECT oid, nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema')
		SELECT rolname || ' ' || verb || ' database' 
		FROM role, unnest(ARRAY['CONNECT', 'CREATE', 'TEMPORARY']) verb
		WHERE has_database_privilege(role.oid, current_database(), verb)
		UNION ALL
		SELECT rolname || ' ' || verb || ' ' || nspname 
		FROM role, space, unnest(ARRAY['USAGE', 'CREATE']) verb
		WHERE has_schema_privilege(role.oid, space.oid, verb)
		UNION ALL
		SELECT rolname || ' ' || verb || ' ' || nspname || '.' || relname
		FROM role, space, pg_class c,
			unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) verb
		WHERE c.relnamespace = space.oid AND relkind IN ('r', 'p', 'v', 'm') AND has_table_privilege(role.oid, c.oid, verb)
		UNION ALL
		SELECT rolname || ' ' || verb || ' ' || nspname || '.' || relname
		FROM role, space, pg_class c, unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) verb
		WHERE c.relnamespace = space.oid AND relkind = 'S' AND has_sequence_privilege(role.oid, c.oid, verb)
		UNION ALL
		SELECT rolname || ' EXECUTE ' || f.oid::regprocedure ||
			CASE WHEN prosecdef THEN ' as ' || proowner::regrole ELSE '' END
		FROM role, space, pg_proc f
		WHERE f.pronamespace = space.oid AND has_function_privilege(role.oid, f.oid, 'EXECUTE')
		UNION ALL
		SELECT member::regrole || ' is a ' || roleid::regrole FROM pg_auth_members WHERE member IN (SELECT oid FROM role)
		ORDER BY 1`)
}

func rightsAreThoseOfTheSystem(t *testing.T, admin *pgx.Conn, topo *topology.Topology) {
	t.Helper()
	cc := system.Config(t, database, "postgres").ConnConfig
	here := server{cc.Host, int(cc.Port)}
	here.prepare(t, topo)
	want := rights(t, here.connect(t, "postgres"))
	if d := cmp.Diff(want, rights(t, admin)); d != "" || len(want) < 100 {
		t.Errorf("%d rights are on the system's server (-there +here)\n%s", len(want), d)
	}
}

func rolesReachTheirSchemas(t *testing.T, admin *pgx.Conn, topo *topology.Topology) {
	t.Helper()
	tried := 0
	for _, w := range topo.Workloads {
		if len(w.Database) == 0 {
			continue
		}
		tried++
		got := list(t, admin, pgx.RowTo[string], `SELECT nspname::text FROM pg_namespace
			WHERE nspname IN ('audit', 'people', 'risk', 'training')
				AND has_schema_privilege($1::name, oid, 'USAGE') ORDER BY 1`, w.Name)
		if d := cmp.Diff(slices.Sorted(slices.Values(append([]string{"audit"}, w.Database...))), got); d != "" {
			t.Errorf("%s reaches (-topology +server)\n%s", w.Name, d)
		}
	}
	if tried == 0 {
		t.Error("the topology gives no workload a schema: this proves nothing")
	}
}

func auditIsChained(t *testing.T, s server, admin *pgx.Conn, topo *topology.Topology) {
	t.Helper()
	role := topo.OfKind(topology.KindDashboard)[0].Name
	writer := s.connect(t, role)
	for n := range int64(2) {
		got := one[int64](t, writer,
			`SELECT audit.append('[{"kind": "test", "person": "p1", "event": "e1", "detail": "grün\nund mehr"}]')`)
		if got != n+1 {
			t.Fatalf("appended as entry %d, want %d", got, n+1)
		}
	}
	rows := list(t, admin, pgx.RowToStructByPos[audit.Row],
		"SELECT chain, seq, at, kind, person, event, detail, prev, hash FROM audit.entry ORDER BY seq")
	if len(rows) != 2 {
		t.Fatalf("the audit has %d entries", len(rows))
	}
	prev := ""
	for i, e := range rows {
		want := audit.Row{Chain: role, Seq: int64(i + 1), At: e.At, Kind: "test", Person: "p1", Event: "e1",
			Detail: "grün\nund mehr", Prev: prev}
		want.Hash = want.Sum()
		if d := cmp.Diff(want, e); d != "" {
			t.Errorf("entry %d (-want +got)\n%s", i+1, d)
		}
		prev = e.Hash
	}
	// The function is the one way: it has its owner's right, not the writer's.
	_, err := writer.Exec(t.Context(), "INSERT INTO audit.entry SELECT * FROM audit.own LIMIT 0")
	if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "42501" {
		t.Errorf("written past the function: %v, want insufficient privilege", err)
	}
}
