//go:build unix

package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/topology"
)

// lock takes the one lock of a folder, waiting for it until ctx ends; taken is called, once, if another process has it.
// Closing the file gives it back.
func lock(ctx context.Context, dir string, taken func()) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case err == nil:
			return f, nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			f.Close()
			return nil, err
		}
		taken()
		taken = func() {}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Spawn starts a supervisor that outlives this process and its terminal, and waits until it answers. self is the
// command, to which the lab's folder is appended.
func (l *Lab) Spawn(ctx context.Context, self []string, env ...string) error {
	log := l.folder.Log()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	defer out.Close()
	cmd := exec.Command(self[0], append(self[1:len(self):len(self)], string(l.folder))...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = "/", out, out, &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append([]string{"LC_ALL=C"}, env...) // nothing else of the caller's environment reaches a workload
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for {
		if _, err := l.Status(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-exited:
			return &lab.Error{
				Code: lab.ExitPartly,
				What: "start supervisor",
				Why:  fmt.Errorf("it ended: %v", err), //nolint:errorlint // it may have ended without an error
				Log:  log,
				Last: LastLines(log, 5),
			}
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Claim takes a loopback address for a lab until the listener is closed: machine-wide, across users, gone with its
// process.
func Claim(host string) (net.Listener, error) {
	if runtime.GOOS != "linux" { // no abstract sockets; the ports themselves tell
		return net.Listen("tcp", net.JoinHostPort(host, "0"))
	}
	l, err := net.Listen("unix", "@security-training/"+host)
	if err != nil {
		return nil, fmt.Errorf("claim %s: another lab has it: %w", host, err)
	}
	return l, nil
}

// FreeHost finds the first loopback address that no other lab has. If one of the ports of topo is taken there all the
// same, by something that is no lab, that is a conflict with a name. The database's own port is left out: it takes any
// that is free.
func FreeHost(topo *topology.Topology) (string, error) {
	last := 249
	if runtime.GOOS != "linux" { // elsewhere 127.0.0.1 is the only one that is there by itself
		last = 1
	}
	for n := 1; n <= last; n++ {
		host := fmt.Sprintf("127.0.0.%d", n)
		claim, err := Claim(host)
		if err != nil {
			continue
		}
		claim.Close()
		for _, w := range topo.Workloads {
			for _, port := range []int{w.Port, w.Health, w.Web, w.WebTLS} {
				if port == 0 || w.Kind == topology.KindDatabase && port == w.Port {
					continue
				}
				addr := net.JoinHostPort(host, strconv.Itoa(port))
				l, err := net.Listen("tcp", addr)
				if err != nil {
					return "", &lab.Error{
						Code: lab.ExitConflict,
						What: "claim " + host,
						Why:  fmt.Errorf("port %d, of %s, is taken: %w", port, w.Name, err),
						Try:  "ss -ltnp 'sport = :" + strconv.Itoa(port) + "'   (then end what it shows)",
					}
				}
				l.Close()
			}
		}
		return host, nil
	}
	return "", &lab.Error{
		Code: lab.ExitConflict,
		What: "find a loopback address",
		Why:  errors.New("every one has its lab"),
		Try:  "lab down --name …",
	}
}

// FreePort is a port of host that nobody listens on.
func FreePort(host string) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
