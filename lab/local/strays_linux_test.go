package local

import (
	"bufio"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"example.org/security-training/lab/control"
	"example.org/security-training/services/env/needtest"
)

// leaves starts a shell as the account who. The shell leaves a process behind, in a session of its own and without a
// parent, whose number leaves returns.
func leaves(t *testing.T, who account, environment ...string) int {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "setsid sh -c 'echo $$; exec sleep 600' & read _")
	cmd.Dir, cmd.Env = "/", append([]string{"PATH=/usr/bin:/bin"}, environment...)
	cmd.SysProcAttr = credentials(who)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	if _, err := io.WriteString(in, "end\n"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), "already closed") {
		t.Fatal(err)
	}
	if !running(pid) {
		t.Fatal("it has left nothing behind: this proves nothing")
	}
	return pid
}

// labWith makes a lab's folder with settings. Its workloads have the uids from first on.
func labWith(t *testing.T, first int) folder {
	t.Helper()
	f := folder{control.StateDir(t.TempDir())}
	if err := f.Write(settings{UIDs: first}); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWhatAWorkloadLeftBehindIsEndedByItsMark(t *testing.T) {
	f, other := labWith(t, 0), labWith(t, 0)
	own := account{uid: os.Geteuid(), gid: os.Getegid()}
	ours, theirs := leaves(t, own, mark+"="+string(f.StateDir)), leaves(t, own, mark+"="+string(other.StateDir))
	if err := endStrays(f); err != nil {
		t.Fatal(err)
	}
	if running(ours) {
		t.Error("it lives on")
	}
	if !running(theirs) {
		t.Error("another lab's was ended, too")
	}
}

func TestWhatAWorkloadLeftBehindIsEndedByItsUID(t *testing.T) {
	if os.Geteuid() != 0 {
		needtest.Lacks(t, needtest.Root, "only root can start a process of another uid")
	}
	const first = 2_100_000_000 / uidsPerLab * uidsPerLab
	last := account{uid: first + uidsPerLab - 1, gid: first}
	survivor, next := leaves(t, last), leaves(t, account{uid: first + uidsPerLab, gid: first})
	uids, err := freeUIDs("127.0.0.7", t.TempDir())
	if err != nil || uids%uidsPerLab != 0 {
		t.Fatalf("%d, %v", uids, err)
	}
	if err := endStrays(labWith(t, first)); err != nil {
		t.Fatal(err)
	}
	if running(survivor) {
		t.Error("it lives on")
	}
	if !running(next) {
		t.Error("a process of the next lab's uid was ended, too")
	}
}

func TestUIDsOfALivingProcessAndOfAnotherLabAreNotGivenAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		needtest.Lacks(t, needtest.Root, "only root can start a process of another uid")
	}
	const host = "127.0.0.250" // of no lab
	home := t.TempDir()
	first, err := freeUIDs(host, home)
	if err != nil {
		t.Fatal(err)
	}
	survivor := leaves(t, account{uid: first + 3, gid: first})
	second, err := freeUIDs(host, home)
	if err != nil || second < first+uidsPerLab {
		t.Fatalf("while one of %d lives: %d, %v", first, second, err)
	}
	other := folder{control.StateDir(filepath.Join(home, "other"))}
	if err := os.Mkdir(string(other.StateDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := other.Write(settings{UIDs: second}); err != nil {
		t.Fatal(err)
	}
	if third, err := freeUIDs(host, home); err != nil || third == first || third == second {
		t.Errorf("while another lab has %d: %d, %v", second, third, err)
	}
	if err := syscall.Kill(survivor, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "the survivor's end", func() bool { return !running(survivor) })
	if again, err := freeUIDs(host, home); err != nil || again != first {
		t.Errorf("when it has ended: %d, %v, want %d", again, err, first)
	}
}

// A process that forks without end is faster than any list.
func TestAWorkloadThatForksWithoutEndIsEnded(t *testing.T) {
	if os.Geteuid() != 0 {
		needtest.Lacks(t, needtest.Root, "only root can start a process of another uid")
	}
	const first = 2_110_000_000 / uidsPerLab * uidsPerLab
	who := account{uid: first, gid: first}
	cmd := exec.Command(
		"/bin/sh",
		"-c",
		"ulimit -u 100; b() { while :; do (exec sleep 0.02) & wait; done; }; for i in 1 2 3 4 5 6 7 8; do b & done; wait",
	)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{"PATH=/usr/bin:/bin"}, credentials(who)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	of := func() int {
		n := 0
		for _, p := range kernelProcesses() {
			if slices.Contains(p.uids[:], first) {
				n++
			}
		}
		return n
	}
	await(t, "it to fork", func() bool { return of() > 8 })
	if err := endUser(who); err != nil {
		t.Fatal(err)
	}
	if n := of(); n != 0 {
		t.Errorf("%d of its processes live", n)
	}
}

// A recorded number may by now be that of another process, which must be left alone.
func TestAProcessUnderARememberedNumberIsNotOneThatStartedLater(t *testing.T) {
	own := account{uid: os.Geteuid(), gid: os.Getegid()}
	pid := leaves(t, own)
	p, ok := kernelProcessOf(pid)
	if !ok {
		t.Fatal("it does not run")
	}
	write := func(f folder, b birth, boot string) {
		t.Helper()
		text := `{"supervisor":1,"boot":"` + boot + `","processes":{"lms":{"pid":` + strconv.Itoa(
			b.PID,
		) + `,"started":"` + b.Started + `"}}}`
		if err := os.WriteFile(f.processes(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := labWith(t, 0)
	for what, c := range map[string]struct {
		b    birth
		boot string
	}{
		"started at another time": {birth{pid, p.Started + "0"}, bootID()},
		"of another boot":         {p.birth, "another"},
	} {
		write(f, c.b, c.boot)
		if err := endStrays(f); err != nil || !running(pid) {
			t.Fatalf("%s: it was ended: %v", what, err)
		}
	}
	write(f, p.birth, bootID())
	if err := endStrays(f); err != nil || running(pid) {
		t.Errorf("the very process lives on: %v", err)
	}
}

// A process that keeps forking and ending has a new number each time and may be on no list.
func TestAWorkloadThatIsOnNoListIsEnded(t *testing.T) {
	if os.Geteuid() != 0 {
		needtest.Lacks(t, needtest.Root, "only root can start a process of another uid")
	}
	const first = 2_120_000_000 / uidsPerLab * uidsPerLab
	pid := leaves(t, account{uid: first, gid: first})
	if err := endAll([]int{first}, func() []kernelProcess { return nil }); err != nil {
		t.Fatal(err)
	}
	await(t, "its end", func() bool { return !running(pid) })
}

// endFirstThread is an argument that makes the test's binary end its first thread.
const endFirstThread = "end-first-thread"

func endTheFirstThread() {
	for {
		runtime.LockOSThread()
		if syscall.Gettid() == os.Getpid() {
			_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
		}
		runtime.UnlockOSThread()
		runtime.Gosched()
	}
}

// The kernel shows a process as ended when its first thread has ended, although other threads still run.
func TestAProcessWhoseFirstThreadHasEndedRuns(t *testing.T) {
	cmd := exec.Command(os.Args[0], endFirstThread)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	await(t, "its first thread's end", func() bool { _, state := statOf(pid); return state == "Z" })
	if !running(pid) {
		t.Error("it is taken for one that has ended")
	}
}

// Other databases may run under the database's uid. They must not be ended because one process of the lab is slow to
// end.
func TestAUserWhoHasOtherProcessesIsNotEnded(t *testing.T) {
	if os.Geteuid() != 0 {
		needtest.Lacks(t, needtest.Root, "only root can start a process of another uid")
	}
	who := account{uid: 2_130_000_000, gid: 2_130_000_000}
	alone := account{uid: 2_130_000_001, gid: 2_130_000_001}
	ours, theirs, last := leaves(t, who), leaves(t, who), leaves(t, alone)
	var list []kernelProcess
	for _, pid := range []int{ours, last} {
		p, ok := kernelProcessOf(pid)
		if !ok {
			t.Fatal("it does not run")
		}
		list = append(list, p)
	}
	rounds := 0
	if err := endAll(nil, func() []kernelProcess { // as if it took long to end
		if rounds++; rounds > 6 {
			return nil
		}
		return list
	}); err != nil {
		t.Fatal(err)
	}
	if !running(theirs) {
		t.Error("another process of the same user was ended, too")
	}
	if uids := usersOf(nil); uids != nil {
		t.Errorf("users of no process: %v", uids)
	}
}

// Once a process has been waited for, its number may be given to another one, even while the processes that it left
// behind are being ended.
func TestWhatIsWrittenDownIsWhenItStarted(t *testing.T) {
	cmd := exec.Command("/bin/sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	f := labWith(t, 0)
	before := birth{cmd.Process.Pid, "1"} // had the number before
	s := &Supervisor{
		folder:    f,
		log:       slog.New(slog.DiscardHandler),
		processes: map[string]*process{"lms": {name: "lms", cmd: cmd, born: before}},
	}
	s.remember()
	if got := readRoster(f).Processes["lms"]; got != before {
		t.Errorf("%+v was written down, want %+v", got, before)
	}
}
