package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sockets watches every TCP connection of the lab's processes, and every UDP socket that names its peer.
type sockets struct {
	mu    sync.Mutex
	seen  map[string]bool // connections that leave the machine
	alive map[string]bool // workloads that were seen with a connection
	stop  context.CancelFunc
	done  chan struct{}
}

// watchSockets looks every 50 ms for connections of the lab's processes to addresses that are not loopback.
func watchSockets(ctx context.Context) *sockets {
	ctx, stop := context.WithCancel(ctx)
	s := &sockets{seen: map[string]bool{}, alive: map[string]bool{}, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				s.look(ctx)
			}
		}
	}()
	return s
}

// verdict ends the watch. The error names each connection that left, or says that too few connections were seen.
func (s *sockets) verdict() error {
	s.stop()
	<-s.done
	if len(s.seen) > 0 {
		return fmt.Errorf("connections left the machine: %s", strings.Join(slices.Sorted(maps.Keys(s.seen)), ", "))
	}
	if len(s.alive) < len(l.st.Workloads)/2 { // those that only serve may have had none at any look
		return fmt.Errorf(
			"the watch of connections saw those of %v alone: it would have missed what left",
			slices.Sorted(maps.Keys(s.alive)),
		)
	}
	return nil
}

func (s *sockets) look(ctx context.Context) {
	st, err := l.Status(ctx)
	if err != nil {
		return // between two supervisors
	}
	for _, w := range st.Workloads {
		pid, err := processOf(w.PID, w.Name)
		if err != nil {
			continue // between two of its lives
		}
		remote := map[string]string{}                                                 // socket inode → peer
		for _, file := range []string{"net/tcp", "net/tcp6", "net/udp", "net/udp6"} { // as this process's network has it
			text, err := procFile(pid, file)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(text)) {
				fields := strings.Fields(line)
				if len(fields) > 9 && fields[0] != "sl" && fields[3] != "0A" { // 0A: listens
					remote[fields[9]] = fields[2]
				}
			}
		}
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			target, err := os.Readlink(fd)
			if err != nil {
				continue
			}
			inode, ok := strings.CutPrefix(target, "socket:[")
			if !ok {
				continue
			}
			peer, ok := remote[strings.TrimSuffix(inode, "]")]
			if !ok {
				continue
			}
			s.mu.Lock()
			s.alive[w.Name] = true
			if ip := addressOf(peer); !stays(ip) {
				s.seen[w.Name+" → "+ip.String()] = true
			}
			s.mu.Unlock()
		}
	}
}

// stays says whether a connection to ip stays within the lab: on this machine or, in a cluster, among its pods and
// nodes.
func stays(ip net.IP) bool {
	return ip.IsLoopback() || ip.IsUnspecified() || l.inCluster() && ip.IsPrivate()
}

// addressOf parses an address of /proc/net/tcp: 32-bit words in the machine's byte order, in hex, a colon, a port.
func addressOf(s string) net.IP {
	host, _, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b)%4 != 0 {
		return nil
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	return net.IP(b)
}

// pidOf is the process of a workload or of one of the runtime's own programs.
func pidOf(ctx context.Context, name string) (int, error) {
	st, err := l.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, w := range st.Workloads {
		if w.Name == name {
			return processOf(w.PID, name)
		}
	}
	for _, p := range st.Processes {
		if p.Name == name {
			return processOf(p.PID, name)
		}
	}
	return 0, fmt.Errorf("no process %s", name)
}

// procFile reads a file of a process.
func procFile(pid int, name string) ([]byte, error) {
	return os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
}
