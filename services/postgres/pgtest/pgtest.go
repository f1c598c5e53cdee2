// Package pgtest provides a real PostgreSQL for tests: one server for each test binary, on a unix socket, and a
// separate database for each test, prepared by the same code as a lab's.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/manifests"
	"example.org/security-training/services/dbkeeper"
	"example.org/security-training/services/postgres"
	"example.org/security-training/services/topology"
)

// Server is one running PostgreSQL. It trusts its socket: authentication is tested elsewhere, and privileges are not
// affected.
type Server struct {
	folder, bin string
	owner       *syscall.Credential // set if the tests run as root, since the server refuses to
	next        atomic.Int64
	once        sync.Once
	first       error // of creating the database that the others are copies of
}

const port = 5432

// Main starts *s, runs the tests and stops it; it is for TestMain, which exits with what it returns.
func Main(m *testing.M, s *Server) int {
	err := s.open()
	if err != nil {
		fmt.Fprintln(os.Stderr, "start PostgreSQL for the tests:", err)
		return 1
	}
	code := m.Run()
	if err := errors.Join(s.Stop(), os.RemoveAll(s.folder)); err != nil {
		fmt.Fprintln(os.Stderr, "stop PostgreSQL:", err)
		return max(code, 1)
	}
	return code
}

func (s *Server) open() error {
	if path, err := exec.LookPath("initdb"); err == nil {
		s.bin = filepath.Dir(path)
	} else if found, err := filepath.Glob("/usr/lib/postgresql/*/bin"); err == nil && len(found) > 0 {
		s.bin = slices.Max(found)
	} else {
		return errors.New("no initdb on PATH or under /usr/lib/postgresql: sudo apt-get install -y postgresql")
	}
	var err error
	if s.folder, err = os.MkdirTemp("", "pgtest"); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			if u, err = user.Lookup("nobody"); err != nil {
				return err
			}
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		s.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.folder, int(uid), int(gid)); err != nil {
			return err
		}
	}
	if err := s.run("initdb", "-D", s.data(), "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8",
		"--locale=C"); err != nil {
		return err
	}
	return s.Start()
}

func (s *Server) data() string { return filepath.Join(s.folder, "data") }

// Start starts the server, and returns when it answers.
func (s *Server) Start() error {
	options := fmt.Sprintf("-c listen_addresses='' -c unix_socket_directories=%s -c fsync=off", s.folder)
	return s.run("pg_ctl", "-D", s.data(), "-o", options, "-l", filepath.Join(s.folder, "log"), "-w", "start")
}

// Stop ends the server at once, like a power failure.
func (s *Server) Stop() error {
	return s.run("pg_ctl", "-D", s.data(), "-m", "immediate", "-w", "stop")
}

func (s *Server) run(name string, args ...string) error {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir, cmd.SysProcAttr = s.folder, &syscall.SysProcAttr{Credential: s.owner}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// Config is how role signs in to database.
func (s *Server) Config(t testing.TB, database, role string) *pgxpool.Config {
	t.Helper()
	config, err := pgxpool.ParseConfig("sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cc := config.ConnConfig
	cc.Host, cc.Port, cc.Database, cc.User = s.folder, port, database, role
	cc.RuntimeParams = map[string]string{"timezone": "UTC"}
	config.MaxConns, config.HealthCheckPeriod = 8, 50*time.Millisecond
	postgres.LiveOnly(config)
	return config
}

// prepared is the database with all migrations and no rows; the others are copies of it.
const prepared = "prepared"

// copy creates a copy of the prepared database, which takes a fifth of the time of the migrations, and grants the
// privileges on the database, which a copy does not inherit.
func (s *Server) copy(ctx context.Context, name string, topo *topology.Topology) error {
	s.once.Do(func() { s.first = dbkeeper.Prepare(ctx, s.folder, port, prepared, topo) })
	if s.first != nil {
		return s.first
	}
	admin, err := pgx.Connect(ctx,
		fmt.Sprintf("sslmode=disable host=%s port=%d dbname=postgres user=postgres", s.folder, port))
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name+" OWNER owner TEMPLATE "+prepared); err != nil {
		return err
	}
	_, err = admin.Exec(ctx,
		"UPDATE pg_database SET datacl = (SELECT datacl FROM pg_database WHERE datname = $1) WHERE datname = $2",
		prepared, name)
	return err
}

// Database creates a database with all roles and migrations of the lab, and a pool for the only workload of a kind.
func (s *Server) Database(t testing.TB, kind string) *pgxpool.Pool {
	t.Helper()
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	rows := topo.OfKind(kind)
	if len(rows) != 1 {
		t.Fatalf("topology has %d workloads of kind %s", len(rows), kind)
	}
	name := fmt.Sprintf("test%d", s.next.Add(1))
	ctx := context.Background()
	if err := s.copy(ctx, name, topo); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, s.Config(t, name, rows[0].Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}
