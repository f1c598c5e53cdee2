package workloadapi

import (
	"bytes"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peerOf returns the process that opened c, and its user.
func peerOf(c *net.UnixConn) (pid int32, uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, 0, err
	}
	if inner != nil {
		return 0, 0, inner
	}
	return cred.Pid, int(cred.Uid), nil
}

// startTime returns when a process started, in clock ticks since boot (proc_pid_stat(5), field 22).
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, after, ok := bytes.Cut(b[bytes.LastIndexByte(b, ')')+1:], []byte(" "))
	fields := bytes.Fields(after)
	if !ok || len(fields) < 20 {
		return "", fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(fields))
	}
	return string(fields[19]), nil
}
