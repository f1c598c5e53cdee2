// Package dbkeeper keeps a PostgreSQL server's identity, roles and schemas.
//
// It runs next to the server, with the server's uid. It writes the server's key, certificate and trust bundle from its
// SVID, creates one role for each workload that the topology gives a schema, runs the migrations over the shared unix
// socket, and ends the connections of a workload that the topology no longer lists.
package dbkeeper

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/env"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/postgres"
	"example.org/security-training/services/topology"
)

// Keeper manages one server.
type Keeper struct {
	socket   string // the folder of the server's unix socket
	port     int
	database string
	tls      string // the folder for key, certificate and bundle
	log      *slog.Logger
}

// Prepare creates the database, its roles and its schemas for topo, on a server whose unix socket is in the folder
// socket. This is the work of a keeper without the identity, for tests.
func Prepare(ctx context.Context, socket string, port int, database string, topo *topology.Topology) error {
	k := &Keeper{socket: socket, port: port, database: database, log: slog.New(slog.DiscardHandler)}
	admin, err := k.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	if err := k.prepare(ctx, admin, topo); err != nil {
		return err
	}
	if err := k.migrate(ctx); err != nil {
		return err
	}
	_, err = k.roles(ctx, admin, topo)
	return err
}

// Run manages the server of PGHOST (the folder of its socket), DB_PORT and DB_NAME until ctx ends. It writes key,
// certificate and bundle to TLS_DIR.
func Run(ctx context.Context, lookup env.Lookup) error {
	r := env.Read(lookup)
	k := &Keeper{
		socket:   r.Required("PGHOST"),
		port:     r.Int("DB_PORT", 0),
		database: r.Optional("DB_NAME", "security_training"),
		tls:      r.Required("TLS_DIR"),
	}
	if err := r.Err(); err != nil {
		return err
	}
	node, err := mesh.FromEnv(ctx, lookup)
	if err != nil {
		return err
	}
	if k.log = node.Log(); k.port == 0 {
		k.port = node.Self().Port
	}
	ready := make(chan struct{})
	node.Ready(func(context.Context) error {
		select {
		case <-ready:
			return nil
		default:
			return errors.New("the database is not prepared yet")
		}
	})
	ctx, stop := context.WithCancelCause(ctx)
	go func() { stop(k.keep(ctx, node, func() { close(ready) })) }()
	return errors.Join(node.Serve(ctx), ignoreCanceled(context.Cause(ctx)))
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// keep prepares the server and then follows the identity and the topology.
func (k *Keeper) keep(ctx context.Context, node *mesh.Node, ready func()) error {
	admin, err := k.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer func() { admin.Close(context.WithoutCancel(ctx)) }()
	if err := k.prepare(ctx, admin, node.Topology()); err != nil {
		return err
	}
	if err := k.migrate(ctx); err != nil {
		return err
	}
	var identity uint64
	var topo *topology.Topology
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for first := true; ; first = false {
		id, err := node.Identity()
		if err == nil && id.Generation != identity {
			if err := k.present(ctx, admin, id); err != nil {
				return err
			}
			identity = id.Generation
		}
		if t := node.Topology(); t != topo {
			ended, err := k.roles(ctx, admin, t)
			if err != nil {
				return err
			}
			for _, role := range ended {
				node.Audit().Write(audit.Entry{Kind: "database", Outcome: string(topology.Refused), Reason: "not_listed",
					Peer: t.ID(role).String(), Detail: "connections ended"})
			}
			topo = t
		}
		if first && identity != 0 {
			ready()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if admin.IsClosed() || admin.Ping(ctx) != nil {
			admin.Close(ctx)
			if admin, err = k.connect(ctx, "postgres"); err != nil {
				return err
			}
			identity, topo = 0, nil // the server was restarted: do everything again
		}
	}
}

// connect waits for the server, since both are started at the same time.
func (k *Keeper) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	config, err := k.config(database)
	if err != nil {
		return nil, err
	}
	for {
		conn, err := pgx.ConnectConfig(ctx, config)
		if err == nil {
			return conn, nil
		}
		k.log.Debug("waiting for the server", "error", err.Error())
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to the server at %s: %w (%w)", k.socket, err, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (k *Keeper) config(database string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig("sslmode=disable") // a unix socket, where the server checks the uid
	if err != nil {
		return nil, fmt.Errorf("connect to the server: %w", err)
	}
	config.Host, config.Port, config.Database, config.User = k.socket, uint16(k.port), database, "postgres"
	return config, nil
}

// prepare creates the database, the owner of all tables and the group roles that migrations grant privileges to.
func (k *Keeper) prepare(ctx context.Context, admin *pgx.Conn, topo *topology.Topology) error {
	groups := []string{"owner", "audit_writer"}
	for _, w := range topo.Workloads {
		for _, s := range w.Database {
			groups = append(groups, s+"_writer")
		}
	}
	for _, g := range groups {
		if _, err := ensureRole(ctx, admin, g); err != nil {
			return err
		}
	}
	var exists bool
	if err := admin.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)",
		k.database).Scan(&exists); err != nil {
		return fmt.Errorf("prepare database: %w", err)
	}
	if exists {
		return nil
	}
	for _, statement := range []string{
		"CREATE DATABASE " + quote(k.database) +
			" OWNER owner TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'",
		"REVOKE ALL ON DATABASE " + quote(k.database) + " FROM PUBLIC",
	} {
		if _, err := admin.Exec(ctx, statement); err != nil {
			return fmt.Errorf("prepare database: %w", err)
		}
	}
	return nil
}

func (k *Keeper) migrate(ctx context.Context) error {
	config, err := k.config(k.database)
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*config)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, postgres.Migrations())
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	for _, r := range results {
		k.log.Info("migrated", "file", filepath.Base(r.Source.Path), "took", r.Duration.String())
	}
	return nil
}

// roles creates one role for each workload that the topology gives a schema, with exactly its groups. It returns the
// roles that lost all their groups and whose connections were ended.
func (k *Keeper) roles(ctx context.Context, admin *pgx.Conn, topo *topology.Topology) ([]string, error) {
	var ended []string
	for _, w := range topo.Workloads {
		var groups []string
		for _, s := range w.Database {
			groups = append(groups, s+"_writer")
		}
		if len(groups) > 0 {
			groups = append(groups, "audit_writer")
		}
		existed, err := roleExists(ctx, admin, w.Name)
		if err != nil {
			return ended, err
		}
		if w.Kind == topology.KindDatabase || (len(groups) == 0 && !existed) {
			continue
		}
		if _, err := ensureRole(ctx, admin, w.Name); err != nil {
			return ended, err
		}
		login := "LOGIN"
		if len(groups) == 0 {
			login = "NOLOGIN"
		}
		statements := []string{"ALTER ROLE " + quote(w.Name) + " " + login +
			" NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD NULL"}
		if login == "LOGIN" {
			statements = append(statements, "GRANT CONNECT ON DATABASE "+quote(k.database)+" TO "+quote(w.Name))
		}
		has, err := memberships(ctx, admin, w.Name)
		if err != nil {
			return ended, err
		}
		for _, g := range groups {
			if !slices.Contains(has, g) {
				statements = append(statements, "GRANT "+quote(g)+" TO "+quote(w.Name))
			}
		}
		for _, g := range has {
			if !slices.Contains(groups, g) {
				statements = append(statements, "REVOKE "+quote(g)+" FROM "+quote(w.Name))
			}
		}
		if _, err := admin.Exec(ctx, strings.Join(statements, "; ")); err != nil {
			return ended, fmt.Errorf("keep role %s: %w", w.Name, err)
		}
		if len(groups) == 0 {
			if _, err := admin.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1",
				w.Name); err != nil {
				return ended, fmt.Errorf("end connections of %s: %w", w.Name, err)
			}
			ended = append(ended, w.Name)
		}
	}
	return ended, nil
}

func memberships(ctx context.Context, admin *pgx.Conn, role string) ([]string, error) {
	rows, err := admin.Query(ctx, `
		SELECT g.rolname::text FROM pg_auth_members m
		JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
		WHERE r.rolname = $1`, role)
	if err != nil {
		return nil, fmt.Errorf("read memberships of %s: %w", role, err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read memberships of %s: %w", role, err)
	}
	return out, nil
}

func roleExists(ctx context.Context, admin *pgx.Conn, name string) (bool, error) {
	var exists bool
	if err := admin.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)",
		name).Scan(&exists); err != nil {
		return false, fmt.Errorf("look for role %s: %w", name, err)
	}
	return exists, nil
}

// ensureRole creates a role without login if it does not exist, and says whether it did.
func ensureRole(ctx context.Context, admin *pgx.Conn, name string) (bool, error) {
	exists, err := roleExists(ctx, admin, name)
	if err != nil || exists {
		return false, err
	}
	if _, err := admin.Exec(ctx, "CREATE ROLE "+quote(name)+" NOLOGIN"); err != nil {
		return false, fmt.Errorf("make role %s: %w", name, err)
	}
	return true, nil
}

// quote quotes an identifier, since SQL has no parameters for identifiers.
func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// present writes the server's certificate, key and bundle, and makes the server reload them. Open sessions stay: their
// clients end them after half of their identity's lifetime.
func (k *Keeper) present(ctx context.Context, admin *pgx.Conn, id *mesh.Identity) error {
	cert, key, err := id.SVID.Marshal()
	if err != nil {
		return fmt.Errorf("present identity: %w", err)
	}
	bundle, ok := id.Bundles.Get(id.SVID.ID.TrustDomain())
	if !ok {
		return errors.New("present identity: the own trust domain has no bundle")
	}
	for name, content := range map[string][]byte{"server.key": key, "server.crt": cert,
		"bundle.crt": pemOf(bundle.X509Authorities())} {
		if err := replace(filepath.Join(k.tls, name), content); err != nil {
			return fmt.Errorf("present identity: %w", err)
		}
	}
	for _, setting := range [][2]string{
		{"ssl_cert_file", filepath.Join(k.tls, "server.crt")},
		{"ssl_key_file", filepath.Join(k.tls, "server.key")},
		{"ssl_ca_file", filepath.Join(k.tls, "bundle.crt")},
		{"ssl_min_protocol_version", "TLSv1.3"},
		{"ssl", "on"},
	} {
		if _, err := admin.Exec(ctx, "ALTER SYSTEM SET "+quote(setting[0])+" = "+literal(setting[1])); err != nil {
			return fmt.Errorf("present identity: set %s: %w", setting[0], err)
		}
	}
	if _, err := admin.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return fmt.Errorf("present identity: reload: %w", err)
	}
	k.log.Info("the server presents a new identity", "id", id.SVID.ID.String(), "expires", id.NotAfter().UTC())
	return nil
}

// literal quotes a value for ALTER SYSTEM, which has no parameters. The values are paths of this program.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func pemOf(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// replace writes a file for its owner only, in one step, so that the server never reads half a key.
func replace(path string, content []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
