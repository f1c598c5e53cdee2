package mesh

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/topology"
)

// Limits for text of an unverified caller in an audit entry or a log line, in bytes. They keep both below 1 KB.
const (
	maxIDBytes     = 224
	maxSerialBytes = 48
	maxRouteBytes  = 112
	maxDetailBytes = 192
	maxErrorBytes  = 512 // of an error that may quote a caller
)

// In one window, at most refusalsPerWindow different refusals of an address are written. Equal refusals are written
// once, and their count at the end of the window. Further ones are only counted, and the count is written.
const (
	refusalsPerWindow = 50
	refusalWindow     = time.Second
	maxAddresses      = 1024 // further ones are treated as one address
)

// entry is the audit entry of r.
func (r *Refusal) entry(kind string, route topology.Route) audit.Entry {
	return audit.Entry{
		Kind: kind, Outcome: string(topology.Refused), Reason: string(r.Reason), Peer: audit.Clip(r.ID, maxIDBytes),
		Serial: audit.Clip(r.Serial, maxSerialBytes), Route: audit.Clip(string(route), maxRouteBytes),
		Detail: audit.Clip(r.Detail, maxDetailBytes),
	}
}

// refuse records a refused session.
func (n *Node) refuse(r *Refusal, route topology.Route, from net.Addr) {
	n.refusals.add(addressOf(from), r.entry("decision", route), func(e audit.Entry) {
		n.audit.Write(e)
		n.log.Warn("refused", "reason", e.Reason, "peer", e.Peer, "from", fmt.Sprint(from), "detail", e.Detail,
			"count", max(1, e.Count))
	})
}

// TurnAway records that an unknown person was refused on the port for people. remote is the address of the connection.
// The limits for refused sessions apply.
func (n *Node) TurnAway(remote string, e audit.Entry) {
	at, _ := netip.ParseAddrPort(remote) // the zero value if it cannot be read
	e.Peer, e.Serial = audit.Clip(e.Peer, maxIDBytes), audit.Clip(e.Serial, maxSerialBytes)
	e.Detail = audit.Clip(e.Detail, maxDetailBytes)
	n.refusals.add(at.Addr(), e, n.audit.Write)
}

// addressOf is the address of a connection without its port; the zero Addr if it is unknown.
func addressOf(from net.Addr) netip.Addr {
	if from == nil {
		return netip.Addr{}
	}
	at, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr()
}

// origin is the address that refusals are counted under. A machine has all loopback addresses, and a whole IPv6
// network.
func origin(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if a.Is6() {
		if network, err := a.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return a
}

// refusals prevents a caller that is refused repeatedly from filling the audit chain and the log. The zero value is
// ready for use.
type refusals struct {
	mu        sync.Mutex
	addresses map[netip.Addr]*refusedAddress
	closed    bool
}

// refusedAddress holds the refusals of one address in the current window.
type refusedAddress struct {
	same    map[refusalKey]*repeated
	dropped uint64 // only counted
	write   func(audit.Entry)
	timer   *time.Timer
}

// refusalKey is the same for equal refusals of one address.
type refusalKey struct{ id, serial, reason string }

type repeated struct {
	entry audit.Entry
	more  uint64 // since its last written entry
}

// add writes e, a refusal of a caller at address, or counts it.
func (r *refusals) add(address netip.Addr, e audit.Entry, write func(audit.Entry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		write(e)
		return
	}
	a := r.of(origin(address), write)
	key := refusalKey{e.Peer, e.Serial, e.Reason}
	switch was := a.same[key]; {
	case was != nil:
		was.more++
	case len(a.same) < refusalsPerWindow:
		a.same[key] = &repeated{entry: e}
		write(e)
	default:
		a.dropped++
	}
}

func (r *refusals) of(address netip.Addr, write func(audit.Entry)) *refusedAddress {
	if r.addresses[address] == nil && len(r.addresses) >= maxAddresses {
		address = netip.Addr{}
	}
	a := r.addresses[address]
	if a == nil {
		if r.addresses == nil {
			r.addresses = map[netip.Addr]*refusedAddress{}
		}
		a = &refusedAddress{same: map[refusalKey]*repeated{}}
		a.timer = time.AfterFunc(refusalWindow, func() { r.endWindow(address, a) })
		r.addresses[address] = a
	}
	a.write = write
	return a
}

// endWindow ends the window of an address. Refusals that were repeated stay for another window, in which they are only
// counted.
func (r *refusals) endWindow(address netip.Addr, a *refusedAddress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	a.flush(address)
	if len(a.same) == 0 {
		delete(r.addresses, address)
		return
	}
	a.timer.Reset(refusalWindow)
}

// flush writes the counts, and removes refusals that were not repeated.
func (a *refusedAddress) flush(address netip.Addr) {
	var again []*repeated
	for key, s := range a.same {
		if s.more == 0 {
			delete(a.same, key)
			continue
		}
		again = append(again, s)
	}
	slices.SortFunc(again, func(x, y *repeated) int { // so that the order of entries is reproducible
		return strings.Compare(x.entry.Reason+x.entry.Peer+x.entry.Serial, y.entry.Reason+y.entry.Peer+y.entry.Serial)
	})
	for _, s := range again {
		s.entry.Count, s.more = s.more, 0
		a.write(s.entry)
	}
	if a.dropped > 0 {
		from := "many addresses"
		if address.IsValid() {
			from = address.String()
		}
		a.write(audit.Entry{
			Kind: "decision", Outcome: string(topology.Refused), Reason: string(Beyond), Count: a.dropped,
			Detail: fmt.Sprintf("from %s, within a second in which %d others were written", from, refusalsPerWindow),
		})
		a.dropped = 0
	}
}

// close writes the counts. Later refusals are written at once.
func (r *refusals) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for address, a := range r.addresses {
		a.timer.Stop()
		a.flush(address)
	}
	r.addresses = nil
}
