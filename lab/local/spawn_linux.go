package local

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// credentials makes a process run as who, if that is not the caller's own account.
func credentials(who account) *syscall.SysProcAttr {
	if who.own() {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(who.uid), Gid: uint32(who.gid)}}
}

// nursery starts processes that the kernel ends when this process ends, in any way.
//
// The kernel sends the death signal when the thread that started the process ends, not when its process ends. So one
// goroutine, which never leaves its thread, starts all of them.
type nursery struct{ births chan func() }

func newNursery() *nursery {
	n := &nursery{births: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range n.births {
			f()
		}
	}()
	return n
}

// start starts cmd in a process group of its own. The kernel sends it the signal death when this process ends.
func (n *nursery) start(cmd *exec.Cmd, who account, death syscall.Signal) error {
	cmd.SysProcAttr = credentials(who)
	cmd.SysProcAttr.Pdeathsig = death
	cmd.SysProcAttr.Setpgid = true
	done := make(chan error)
	n.births <- func() { done <- cmd.Start() }
	return <-done
}

// killUsers kills every process of uids and no others. For each uid the kernel does that at once, so a process that is
// being forked does not escape. Only root can do that. It skips root's own uid.
func killUsers(uids []int) {
	if os.Geteuid() != 0 {
		return
	}
	for _, uid := range uids {
		if uid == 0 {
			continue
		}
		cmd := exec.Command("/bin/sh", "-c", "kill -KILL -1")
		cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{}, credentials(account{uid: uid, gid: uid})
		_ = cmd.Run() // the next round finds what is left
	}
}

// adoptOrphans makes this process the parent of the processes that its children leave behind.
func adoptOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	return nil
}

// reapOrphans reaps adopted children until ctx ends: the kernel keeps the number of a process until its parent has
// waited for it. It leaves out the children for which own returns true, because others wait for them.
func reapOrphans(ctx context.Context, own func(pid int) bool) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
		for _, pid := range zombies(os.Getpid()) {
			if !own(pid) {
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond): // a workload can make any number of them
		}
	}
}
