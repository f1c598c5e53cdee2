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

// lock takes the lock of a folder, and waits for it until ctx ends. If another process has it, lock calls taken once.
// Closing the file releases the lock.
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

// Spawn starts a supervisor that outlives this process and its terminal, and waits until it answers. Self is its
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
	cmd.Env = append([]string{"LC_ALL=C"}, env...) // nothing else of the caller's environment may reach a workload
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

// Claim reserves a loopback address for a lab until the listener is closed. It holds for all users of the machine, and
// ends with the process.
func Claim(host string) (net.Listener, error) {
	if runtime.GOOS != "linux" { // only Linux has abstract sockets; elsewhere the ports show whether the address is taken
		return net.Listen("tcp", net.JoinHostPort(host, "0"))
	}
	l, err := net.Listen("unix", "@security-training/"+host)
	if err != nil {
		return nil, fmt.Errorf("claim %s: another lab has it: %w", host, err)
	}
	return l, nil
}

// FreeHost finds the first loopback address that no other lab has claimed. It returns a conflict if a program that is
// no lab has one of topo's ports there. It does not look at the database's port, because the database can have any free
// one.
func FreeHost(topo *topology.Topology) (string, error) {
	last := 249
	if runtime.GOOS != "linux" { // other systems have only 127.0.0.1
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
		Why:  errors.New("a lab has claimed each one"),
		Try:  "lab down --name …",
	}
}

// FreePort returns a port of host on which nothing listens.
func FreePort(host string) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
