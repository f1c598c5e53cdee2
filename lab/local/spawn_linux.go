package local

import (
	"os/exec"
	"runtime"
	"syscall"
)

// credentials makes a process run as who, when that is somebody else.
func credentials(who account) *syscall.SysProcAttr {
	if who.own() {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(who.uid), Gid: uint32(who.gid)}}
}

// nursery starts processes that the kernel ends when this process ends, however it ends.
//
// The death signal is sent when the thread that started the process ends, not when the process does, so all are started by
// one goroutine that never leaves its thread.
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

// start starts cmd in a process group of its own, to be sent death when this process ends.
func (n *nursery) start(cmd *exec.Cmd, who account, death syscall.Signal) error {
	cmd.SysProcAttr = credentials(who)
	cmd.SysProcAttr.Pdeathsig = death
	cmd.SysProcAttr.Setpgid = true
	done := make(chan error)
	n.births <- func() { done <- cmd.Start() }
	return <-done
}
