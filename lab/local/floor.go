package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

// Floor does only what no lab can come up without, to compare `lab up` with. It copies the database's template, starts
// the database's server, and starts each workload's program once; the program ends at once because it has no settings.
// It returns how many programs it started and how long all of that took, and leaves nothing behind.
func (r *Runtime) Floor(ctx context.Context) (programs int, took time.Duration, err error) {
	fail := func(err error) (int, time.Duration, error) { return 0, 0, fmt.Errorf("measure the floor: %w", err) }
	who, err := databaseAccount()
	if err != nil {
		return fail(err)
	}
	bin, err := findPostgres(r.Lookup)
	if err != nil {
		return fail(err)
	}
	from, err := template(ctx, bin, who, r.Lookup)
	if err != nil {
		return fail(err)
	}
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		return fail(err)
	}
	dir, err := os.MkdirTemp("", "lab-floor-")
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	run := filepath.Join(dir, "run")
	if err := errors.Join(os.Chmod(dir, 0o711), makeFolder(run, who)); err != nil {
		return fail(err)
	}

	begin := time.Now()
	if err := copyTree(ctx, from, filepath.Join(dir, "data"), who); err != nil {
		return fail(err)
	}
	server := exec.Command(
		filepath.Join(bin, "postgres"),
		"-D",
		filepath.Join(dir, "data"),
		"-k",
		run,
		"-c",
		"listen_addresses=",
	)
	server.Dir, server.Env, server.SysProcAttr = "/", []string{"LC_ALL=C"}, credentials(who)
	if err := server.Start(); err != nil {
		return fail(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = server.Wait() // the signal decides how it ends; an early end shows as a missing socket
		close(ended)
	}()
	defer func() {
		// A server that is killed leaves its shared memory behind, so it is asked to end.
		if stop := server.Process.Signal(syscall.SIGINT); stop == nil {
			<-ended
		}
	}()
	if err := awaitServer(ctx, run, ended); err != nil {
		return fail(err)
	}
	for _, w := range topo.Workloads {
		if w.Binary == "" {
			continue
		}
		cmd := exec.CommandContext(ctx, filepath.Join(r.Binaries, w.Binary))
		cmd.Dir, cmd.Env = "/", []string{}
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			return fail(err)
		}
		programs++
	}
	took = time.Since(begin)
	return programs, took, ctx.Err()
}

// awaitServer waits until the server whose socket is in run answers a client. It does not matter whom the server
// admits.
func awaitServer(ctx context.Context, run string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := greet(ctx, run)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the database: %w", err)
		case <-ended:
			return errors.New("the database's server has ended")
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// startingUp is SQLSTATE cannot_connect_now.
const startingUp = "57P03"

func greet(ctx context.Context, run string) error {
	sockets, err := filepath.Glob(filepath.Join(run, ".s.PGSQL.*[0-9]")) // without the socket's lock file
	if err != nil || len(sockets) == 0 {
		return errors.New("no socket yet")
	}
	config, err := pgconn.ParseConfig("user=postgres database=postgres sslmode=disable connect_timeout=5")
	if err != nil {
		return err
	}
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", sockets[0])
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && refusal.Code != startingUp {
		return nil
	}
	if err == nil {
		return conn.Close(ctx)
	}
	return err
}
