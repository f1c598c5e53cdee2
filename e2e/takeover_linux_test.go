package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/services/env"
	"example.org/security-training/services/env/needtest"
)

// asWorkload runs shell lines with the uid of a workload, as code in a compromised workload would.
func asWorkload(t *testing.T, uid int, script string) (string, error) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script) // also while t ends
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func needUIDs(t *testing.T) {
	t.Helper()
	if l.inCluster() {
		needtest.Lacks(t, needtest.Local, "workloads are pods, which have no folder of the machine")
	}
	if os.Geteuid() != 0 {
		needtest.Lacks(t, needtest.Root, "workloads have uids of their own only where root started the lab")
	}
}

// A compromised workload can do what it likes in its own folder. Root writes, reads or hands over no file for it, and
// the audits of the other workloads are signed as before.
func TestAWorkloadThatWasTakenOverReachesNothingOfRoots(t *testing.T) {
	needUIDs(t)
	const taken, other = "stub-gemini", "risk-scorer"
	var w lab.WorkloadStatus
	for _, x := range awaitHealthy(t).Workloads {
		if x.Name == taken {
			w = x
		}
	}
	f, own := l.StateDir(), l.StateDir().Of(taken)
	secret := filepath.Join(needtest.PrivateDir(t), "victim")
	for what, script := range map[string]string{
		"write in the folder of logs":       "echo x > " + f.WorkloadLog(taken),
		"read a log":                        "cat " + f.WorkloadLog(other),
		"replace its own key":               "touch " + f.Keys(taken).Path("x"),
		"read another's key":                "cat " + f.Keys(serving(t, generate)).Path("gemini.key"),
		"put a folder in the place of keys": "mv " + string(f.Keys(taken)) + " " + string(own),
		"read another's audit":              "cat " + f.WorkloadAudit(other),
	} {
		if out, err := asWorkload(t, w.UID, script); err == nil {
			t.Errorf("it could %s: %s", what, out)
		}
	}
	t.Cleanup(func() {
		if out, err := asWorkload(
			t,
			w.UID,
			"cd "+string(own)+"; rm -f log people-tls; if [ -e audit.was ]; then rm -f audit; mv audit.was audit; fi",
		); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	links := fmt.Sprintf(
		"cd %s && ln -s %s log && ln -s %s people-tls && mv audit audit.was && mkfifo audit",
		own,
		secret,
		filepath.Dir(secret),
	)
	if out, err := asWorkload(t, w.UID, links); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	signed := func(workload string) int {
		lines, _, err := l.Checkpoints()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(lines), `"workload":"`+workload+`"`)
	}
	for round := range 3 { // the signer looks once a second: it must not wait for the pipe's other end
		before := signed(other)
		if _, err := l.op.Clock(t.Context()); err != nil {
			t.Fatal(err)
		}
		await(
			t,
			20*time.Second,
			fmt.Sprintf("checkpoint %d of %s", round+1, other),
			func() bool { return signed(other) > before },
		)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := command(ctx, l.name, "audit", "verify").run()
	if err == nil || ctx.Err() != nil || !strings.Contains(out, taken) {
		t.Errorf("audit verify with a pipe in the place of a chain: %v\n%s", err, out)
	}
	bundle := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if out, err := command(ctx, l.name, "bundle", "--to", bundle).run(); err != nil {
		t.Errorf("bundle with a pipe in the place of a chain: %v\n%s", err, out)
	} else if missing := string(bundled(t, bundle)["missing.txt"]); !strings.Contains(missing, "audit/"+taken) {
		t.Errorf("the bundle does not tell of it: %s", missing)
	}
	if out, err := asWorkload(
		t,
		w.UID,
		"cd "+string(own)+" && rm audit && mv audit.was audit",
	); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// The script cannot do this: the supervisor ends every process of the uid, and so the script itself.
	if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, "its restart", func() bool {
		for _, x := range awaitHealthy(t).Workloads {
			if x.Name == taken {
				return x.PID != w.PID
			}
		}
		return false
	})
	if _, err := os.Lstat(secret); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("root wrote through the link: %v", err)
	}
	if fi, err := os.Stat(filepath.Dir(secret)); err != nil || fi.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the folder behind the link is not root's any more: %v", err)
	}
}

// A company of 500 comes up with the memory that its scorer has on Kubernetes. The next `up` does not skip its proof. A
// process that one of its workloads leaves behind ends with the lab.
func TestALargerCompanyComesUpIsProvenAndEndsWhole(t *testing.T) {
	if l.inCluster() {
		needtest.Lacks(t, needtest.Local, "the lab under test has the cluster's memory")
	}
	name := l.name + "-500"
	// Root may have a umask that hides files from other users, and workloads have other uids.
	up := command(t.Context(), name, "up", "--runtime", "local", "--people", "500", "--days", "2").cmd()
	up.Path, up.Args = "/bin/sh", append([]string{"sh", "-c", `umask 077; exec "$0" "$@"`}, up.Args...)
	text, err := up.CombinedOutput()
	out := string(text)
	t.Cleanup(func() {
		if out, err := command(context.Background(), name, "down").run(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := control.StateDirOf(env.Process, name)
	if err != nil {
		t.Fatal(err)
	}
	big, err := control.Find(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	st, err := big.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	uid := 0
	for _, w := range st.Workloads {
		if w.Name != "risk-scorer" {
			continue
		}
		uid = w.UID
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.PID))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "VmHWM:")
		var kilobytes int
		if _, err := fmt.Sscan(rest, &kilobytes); err != nil || kilobytes > 256<<10 {
			t.Errorf("the scorer took %d KiB, %v; its limit on Kubernetes is 256 MiB", kilobytes, err)
		}
		t.Logf("the scorer took %d MiB at most", kilobytes>>10)
	}
	if err := os.Remove(f.Path("proven")); err != nil {
		t.Fatal(err)
	}
	// the next `up` makes up for a missing proof, once
	for _, want := range []string{"a probe event is scored", "nothing to do"} {
		if out, err := command(t.Context(), name, "up").run(); err != nil || !strings.Contains(out, want) {
			t.Errorf("up again: %v, want %q\n%s", err, want, out)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	left, err := asWorkload(t, uid, "setsid sleep 600 </dev/null >/dev/null 2>&1 & echo $!")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(left))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("it has left nothing behind: %v", err)
	}
	if out, err := command(t.Context(), name, "down").run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("what a workload left behind outlives its lab: %s", stat)
	}
}
