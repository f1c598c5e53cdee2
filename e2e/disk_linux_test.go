package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/local"
	"example.org/security-training/services/env/needtest"
)

// smallDisk mounts a file system of the given size in bytes, which can hold the labs' folder.
func smallDisk(t *testing.T, size uint64) string {
	t.Helper()
	if os.Geteuid() != 0 {
		needtest.Lacks(t, needtest.Root, "only root can mount a small disk")
	}
	dir := filepath.Join(needtest.PrivateDir(t), "disk")
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0711,size="+strconv.FormatUint(size, 10)); err != nil {
		needtest.Lacks(t, needtest.Root, "nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// `up` refuses a disk that is too small before it makes anything. If a disk fills up later, the error names the full
// disk as the cause.
func TestADiskThatIsTooSmallOrFillsUpIsSaidToBeTheCause(t *testing.T) {
	needtest.Unhurried(t, "a disk must be full for a while, and a lab comes up twice")
	programs := uint64(0)
	for _, w := range l.topo.Workloads {
		if w.Binary != "" {
			fi, err := os.Stat(filepath.Join(l.bin, w.Binary))
			if err != nil {
				t.Fatal(err)
			}
			programs += uint64(fi.Size())
		}
	}
	home := smallDisk(t, programs+local.RoomFor(5, 1).Disk+32<<20)
	name := l.name + "-d"
	verb := func(args ...string) (string, int) {
		t.Helper()
		began := time.Now()
		out, err := command(t.Context(), name, args...).withEnv("LAB_HOME="+home, "LAB_ARTIFACTS="+t.TempDir()).run()
		t.Logf("lab %v: %v after %.1f s", args, err, time.Since(began).Seconds())
		return out, code(err)
	}
	out, got := verb("up", "--runtime", "local", "--people", "5000", "--days", "90")
	if got != lab.ExitPrecondition || !strings.Contains(out, "5000 people and 90 days of history take") ||
		!strings.Contains(out, "of disk below "+home) ||
		!strings.Contains(out, "lab up --people ") {
		t.Errorf("too large a company: exit code %d\n%s", got, out)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Errorf("what is left of it: %v, %v", left, err)
	}
	if out, got := verb("up", "--runtime", "local", "--people", "5", "--days", "1"); got != 0 {
		t.Fatalf("a small company: exit code %d\n%s", got, out)
	}
	defer func() {
		if out, got := verb("down"); got != 0 {
			t.Errorf("down: exit code %d\n%s", got, out)
		}
	}()
	filler := filepath.Join(home, "filler")
	fill(t, filler)
	cause := func(args ...string) {
		t.Helper()
		if out, got := verb(
			args...); got != lab.ExitPrecondition || !strings.Contains(out, "the disk is full") ||
			!strings.Contains(out, "df -h") {
			t.Errorf(
				"lab %v on a full disk: exit code %d, want %d and the cause\n%s",
				args,
				got,
				lab.ExitPrecondition,
				out,
			)
		}
	}
	cause("play", "leaked-secret")
	if err := syscall.Kill(supervisorOf(t, control.StateDir(filepath.Join(home, name))), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(
		t,
		10*time.Second,
		"the end of every process",
		func() bool { return len(pidsNaming(t, filepath.Join(home, name))) == 0 },
	)
	fill(t, filler)
	cause("up")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if out, got := verb("up"); got != 0 {
		t.Errorf("once there is room again: exit code %d\n%s", got, out)
	}
}

// fill writes a file until its disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	defer f.Close()
	for _, block := range [][]byte{make([]byte, 1<<20), make([]byte, 4<<10), make([]byte, 1)} {
		for err == nil {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
}

// The disk and memory that `up` requires before it begins are close to what a lab uses: not less disk than that, and
// not more memory.
func TestTheRoomThatUpLooksForIsWhatALabTakes(t *testing.T) {
	if l.inCluster() {
		needtest.Lacks(t, needtest.Local, "a cluster's room is the cluster's")
	}
	need := local.RoomFor(l.st.Spec.People, l.st.Spec.Days)
	disk := uint64(0)
	err := filepath.WalkDir(string(l.StateDir()), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it is gone again
		}
		if d.IsDir() && path == l.StateDir().Path("bin") {
			return fs.SkipDir
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			disk += uint64(fi.Sys().(*syscall.Stat_t).Blocks) * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("disk: %d MiB are looked for, %d MiB are taken", need.Disk>>20, disk>>20)
	if disk < need.Disk/3 {
		t.Errorf("%d MiB of disk are looked for, and a lab takes %d", need.Disk>>20, disk>>20)
	}
	memory := uint64(0)
	for _, pid := range pidsNaming(t, string(l.StateDir())) {
		memory += residentOf(t, pid)
	}
	t.Logf("memory: %d MiB are looked for, %d MiB are taken", need.Memory>>20, memory>>20)
	if need.Memory > memory || need.Memory < memory/6 {
		t.Errorf("%d MiB of memory are looked for, and a lab takes %d", need.Memory>>20, memory>>20)
	}
}

// residentOf is the resident memory of a process in bytes, 0 if the process has ended.
func residentOf(t *testing.T, pid int) uint64 {
	t.Helper()
	text, err := procFile(pid, "smaps_rollup")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return 0
	}
	if err != nil {
		needtest.Lacks(t, needtest.Memory, "%v", err)
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); words[0] == "Pss:" {
			n, err := strconv.ParseUint(words[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	return 0
}
