package workloadapi

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Limits on connections. Every user of the machine can connect to the socket, and each connection takes a descriptor
// that the supervisor needs to start processes, to sign and to end the lab. There is a limit for the users of the lab's
// workloads, one for each other user, and one for all other users together, because one user can have many uids by user
// namespaces.
const (
	mostOfOwn       = 256
	mostOfAStranger = 16
	mostOfStrangers = 64
)

// Listener is the socket of the Workload API. It refuses connections of a user who has too many already.
type Listener struct {
	*net.UnixListener
	own func(uid int) bool
	log *slog.Logger

	mu        sync.Mutex
	most      int // of all other users together
	all       int
	strangers int
	of        map[int]int // open connections by uid
	refused   int         // since the last log line
	said      time.Time
}

// Listen opens the unix socket at path for every uid. The kernel, not the mode of the file, says who calls. Own says
// whether a uid is that of one of the lab's workloads.
func Listen(path string, own func(uid int) bool, log *slog.Logger) (*Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open workload API: %w", err)
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, fmt.Errorf("open workload API: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open workload API: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("open workload API: %w", err)
	}
	return &Listener{UnixListener: l, own: own, log: log, most: int(min(files.Cur/2, 1<<20)), of: map[int]int{}}, nil
}

// admitted is a connection that counts against the limits until it is closed.
type admitted struct {
	*net.UnixConn
	pid   int32
	leave func()
}

// Close implements net.Conn.
func (a *admitted) Close() error {
	a.leave()
	return a.UnixConn.Close()
}

// Accept returns the next connection within the limits, and closes the others.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		pid, uid, err := peerOf(c)
		if err != nil || !l.admit(uid) {
			c.Close()
			continue
		}
		return &admitted{c, pid, sync.OnceFunc(func() { l.leave(uid) })}, nil
	}
}

// admit counts a connection of uid and returns true, unless a limit is reached.
func (l *Listener) admit(uid int) bool {
	own := l.own(uid)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.most || own && l.of[uid] >= mostOfOwn ||
		!own && (l.of[uid] >= mostOfAStranger || l.strangers >= mostOfStrangers) {
		l.refused++
		if now := time.Now(); now.Sub(l.said) >= time.Second { // a flood of connections must not fill the log
			l.log.Warn(
				"workload API: connections refused: too many are open",
				"uid",
				uid,
				"open",
				l.of[uid],
				"refused",
				l.refused,
			)
			l.refused, l.said = 0, now
		}
		return false
	}
	l.all++
	l.of[uid]++
	if !own {
		l.strangers++
	}
	return true
}

func (l *Listener) leave(uid int) {
	own := l.own(uid)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.of[uid]--; l.of[uid] == 0 {
		delete(l.of, uid)
	}
	if !own {
		l.strangers--
	}
}
