// Package e2e brings a lab of its own up and proves that it behaves as promised, above all that it refuses. Nothing in
// it is faked: real processes, real PostgreSQL, real certificates, on a loopback address of the lab's own.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/local"
	"example.org/security-training/lab/operator"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/env"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/topology"
)

// canary stands for an API key: it has the form of a Gemini key, but is invented. Only one process may hold it.
const canary = "AIzaSyCANARY-e2e-0123456789abcdefghijk"

// under is the lab under test.
type under struct {
	*control.Lab
	name    string
	runtime string // local, or what LAB_RUNTIME says
	bin     string // the folder of the programs
	topo    *topology.Topology
	op      *operator.Operator
	st      lab.Status
}

var l under

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // workloads of other uids run from it
		return 1, err
	}
	l.bin = filepath.Join(dir, "bin")
	start := time.Now()
	if err := build(l.bin); err != nil {
		return 1, err
	}
	built := time.Since(start)
	l.name = fmt.Sprintf("e2e-%d", os.Getpid())
	if v, ok := env.Process("LAB_RUNTIME"); ok && v != "" {
		l.runtime = v
	} else {
		l.runtime = local.RuntimeName
	}
	if l.inCluster() && os.Geteuid() != 0 {
		return 1, errors.New(
			"the pods' processes are other users', and the tests look into them: sudo env PATH=$PATH make e2e-kind",
		)
	}
	key := filepath.Join(dir, "gemini.key")
	if err := os.WriteFile(key, []byte(canary), 0o600); err != nil {
		return 1, err
	}
	start = time.Now()
	out, err := command(
		ctx,
		l.name,
		"up",
		"--days",
		"10",
		"--runtime",
		l.runtime,
	).withEnv("GEMINI_API_KEY_FILE="+key, "LLM_BACKEND=stub").
		run()
	defer func() {
		if down, downErr := command(context.Background(), l.name, "down").run(); downErr != nil {
			err = errors.Join(err, fmt.Errorf("down: %w\n%s", downErr, down))
		}
	}()
	if err != nil {
		return 1, fmt.Errorf("up: %w\n%s", err, out)
	}
	defer func() { // before the lab goes, if there is something to find out; an `up` that fails makes one by itself
		if code == 0 && err == nil {
			return
		}
		if path, bundleErr := keepBundle(); bundleErr != nil {
			err = errors.Join(err, bundleErr)
		} else {
			fmt.Println("e2e: bundle:", path)
		}
	}()
	if err := l.open(ctx); err != nil {
		return 1, err
	}
	fmt.Printf(
		"e2e: runtime %s, identity %s, %s; built in %.1f s, up in %.1f s\n",
		l.st.Runtime,
		l.st.Identity,
		l.st.Isolated,
		built.Seconds(),
		time.Since(start).Seconds(),
	)
	if required, err := needtest.Required(env.Process); err != nil {
		return 1, err
	} else if required[needtest.SPIRE] && l.st.Identity != "spire" {
		return 1, fmt.Errorf("LAB_REQUIRE has spire, and identity is %s: LAB_SPIRE_DIR=…", l.st.Identity)
	} else if required[needtest.Kind] && !l.inCluster() {
		return 1, errors.New("LAB_REQUIRE has kind, and the lab under test is of local processes: LAB_RUNTIME=kind")
	}
	defer stopChromium()
	watch := watchSockets(ctx)
	code = m.Run()
	return code, watch.verdict()
}

// keepBundle packs a support bundle of the lab under test into LAB_ARTIFACTS, or else into the folder of bundles.
func keepBundle() (string, error) {
	out, err := command(context.Background(), l.name, "bundle").stdout()
	if err != nil {
		return "", fmt.Errorf("bundle: %w", err)
	}
	return strings.TrimSpace(out), nil
}

func (u *under) open(ctx context.Context) error {
	folder, err := control.StateDirOf(env.Process, u.name)
	if err != nil {
		return err
	}
	down := func(context.Context, *control.Lab) ([]string, error) {
		return nil, errors.New("it is for the command line to do that")
	}
	if u.Lab, err = control.Find(ctx, folder, down); err != nil {
		return err
	}
	if u.topo, err = topology.FromFile(u.Lab.Topology()); err != nil {
		return err
	}
	if u.st, err = u.Status(ctx); err != nil {
		return err
	}
	u.op, err = operator.Enter(ctx, u.Lab)
	return err
}

// inCluster says whether the lab under test runs on Kubernetes.
func (u *under) inCluster() bool { return u.runtime != local.RuntimeName }

// slack chooses a time limit: one for this machine, or a longer one for a cluster, where the kubelet, probes and
// volumes add delays.
func slack(here, cluster time.Duration) time.Duration {
	if l.inCluster() {
		return cluster
	}
	return here
}

func build(dir string) error {
	cmd := exec.Command(
		"go",
		"build",
		"-trimpath",
		"-ldflags=-s",
		"-o",
		dir+"/",
		"../services/cmd/...",
		"../synth/cmd/...",
		"../lab/cmd/...",
	)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// verb is one call of the command line.
type verb struct {
	ctx  context.Context
	args []string
	env  []string
}

func command(ctx context.Context, name string, args ...string) *verb {
	return &verb{ctx: ctx, args: append(args, "--name", name)}
}

func (v *verb) withEnv(e ...string) *verb {
	v.env = e
	return v
}

// run returns what was printed on both streams.
func (v *verb) run() (string, error) {
	var out bytes.Buffer
	cmd := v.cmd()
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// stdout returns what was printed on stdout alone.
func (v *verb) stdout() (string, error) {
	var out, errs bytes.Buffer
	cmd := v.cmd()
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, errs.String())
	}
	return out.String(), err
}

func (v *verb) cmd() *exec.Cmd {
	cmd := exec.CommandContext(v.ctx, filepath.Join(l.bin, "lab"), v.args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "GEMINI_") && !strings.HasPrefix(e, "LLM_") && !strings.HasPrefix(e, "OIDC_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	cmd.Env = append(cmd.Env, v.env...)
	return cmd
}

// code is the exit code of a verb that failed.
func code(err error) int {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return 0
}

// named finds the one workload of a kind and, if it is not empty, of a source.
func named(t testing.TB, kind, source string) string {
	t.Helper()
	for _, w := range l.topo.OfKind(kind) {
		if source == "" || w.Source == source {
			return w.Name
		}
	}
	t.Fatalf("topology has no %s %s", kind, source)
	return ""
}

// serving finds the one workload that serves route.
func serving(t testing.TB, route topology.Route) string {
	t.Helper()
	rows := l.topo.Serving(route)
	if len(rows) != 1 {
		t.Fatalf("%d workloads serve %s", len(rows), route)
	}
	return rows[0].Name
}

func addr(t testing.TB, workload string) string {
	t.Helper()
	a, err := l.Addr(t.Context(), workload)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// await asks cond every few milliseconds until it holds.
func await(t testing.TB, patience time.Duration, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// awaitAudit waits for an entry of a workload's chain that match accepts.
func awaitAudit(t testing.TB, workload, what string, match func(audit.Entry) bool) audit.Entry {
	t.Helper()
	return awaitAuditWithin(t, slack(5*time.Second, 20*time.Second), workload, what, match)
}

func awaitAuditWithin(
	t testing.TB,
	patience time.Duration,
	workload, what string,
	match func(audit.Entry) bool,
) audit.Entry {
	t.Helper()
	var found audit.Entry
	await(t, patience, "an audit entry of "+workload+": "+what, func() bool {
		entries, err := lab.Entries(t.Context(), l.Lab, workload)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if match(e) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// awaitHealthy waits until every workload is ready.
func awaitHealthy(t testing.TB) lab.Status {
	t.Helper()
	var st lab.Status
	await(t, slack(30*time.Second, 2*time.Minute), "a healthy lab", func() bool {
		var err error
		if st, err = l.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		return st.Healthy
	})
	return st
}
