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

// Most bytes of what an unverified caller brings into an entry or a line of the log. With what is ours,
// neither is longer than 1 KB.
const (
	mostOfID     = 224
	mostOfSerial = 48
	mostOfRoute  = 112
	mostOfDetail = 192
	mostOfError  = 512 // of a refusal that may quote what a caller sent
)

// Of one address, so many refusals that differ are written in a second; of those that are the same, one and, a second
// later, how many more there were. What is beyond is counted, and the count is written.
const (
	refusalsOfAddress = 50
	refusalWindow     = time.Second
	addressesAtOnce   = 1024 // those beyond are taken for one
)

// entry is what the chain keeps of r.
func (r *Refusal) entry(kind string, route topology.Route) audit.Entry {
	return audit.Entry{
		Kind: kind, Outcome: string(topology.Refused), Reason: string(r.Reason), Peer: audit.Clip(r.ID, mostOfID),
		Serial: audit.Clip(r.Serial, mostOfSerial), Route: audit.Clip(string(route), mostOfRoute),
		Detail: audit.Clip(r.Detail, mostOfDetail),
	}
}

// refuse records that there is no session.
func (n *Node) refuse(r *Refusal, route topology.Route, from net.Addr) {
	n.refusals.add(addressOf(from), r.entry("decision", route), func(e audit.Entry) {
		n.audit.Write(e)
		n.log.Warn("refused", "reason", e.Reason, "peer", e.Peer, "from", fmt.Sprint(from), "detail", e.Detail,
			"count", max(1, e.Count))
	})
}

// TurnAway records that an unknown person was turned away on the port for people, where remote is the address of the
// connection: as often as a refused session is recorded, and no more often.
func (n *Node) TurnAway(remote string, e audit.Entry) {
	at, _ := netip.ParseAddrPort(remote) // else it is of no address
	e.Peer, e.Serial = audit.Clip(e.Peer, mostOfID), audit.Clip(e.Serial, mostOfSerial)
	e.Detail = audit.Clip(e.Detail, mostOfDetail)
	n.refusals.add(at.Addr(), e, n.audit.Write)
}

// addressOf is where a connection comes from, without its port; the zero Addr if it does not say.
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

// origin is as whom an address is counted: one machine has every address of loopback, and of IPv6 a network.
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

// refusals keeps a caller that is refused again and again from filling the chain and the log. The zero value is ready
// for use.
type refusals struct {
	mu        sync.Mutex
	addresses map[netip.Addr]*refusedAddress
	closed    bool
}

// refusedAddress is what came from one address within the last second, or two.
type refusedAddress struct {
	same   map[refusalKey]*repeated
	beyond uint64 // of which nothing else is kept
	write  func(audit.Entry)
	timer  *time.Timer
}

// refusalKey is what two refusals of one address have in common if they are the same.
type refusalKey struct{ id, serial, reason string }

type repeated struct {
	entry audit.Entry
	more  uint64 // since the last entry that was written of it
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
	case len(a.same) < refusalsOfAddress:
		a.same[key] = &repeated{entry: e}
		write(e)
	default:
		a.beyond++
	}
}

func (r *refusals) of(address netip.Addr, write func(audit.Entry)) *refusedAddress {
	if r.addresses[address] == nil && len(r.addresses) >= addressesAtOnce {
		address = netip.Addr{}
	}
	a := r.addresses[address]
	if a == nil {
		if r.addresses == nil {
			r.addresses = map[netip.Addr]*refusedAddress{}
		}
		a = &refusedAddress{same: map[refusalKey]*repeated{}}
		a.timer = time.AfterFunc(refusalWindow, func() { r.turn(address, a) })
		r.addresses[address] = a
	}
	a.write = write
	return a
}

// turn ends a second of an address. What came again stays for another one, in which it is counted only.
func (r *refusals) turn(address netip.Addr, a *refusedAddress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	a.settle(address)
	if len(a.same) == 0 {
		delete(r.addresses, address)
		return
	}
	a.timer.Reset(refusalWindow)
}

// settle writes what was only counted, and forgets what did not come again.
func (a *refusedAddress) settle(address netip.Addr) {
	var again []*repeated
	for key, s := range a.same {
		if s.more == 0 {
			delete(a.same, key)
			continue
		}
		again = append(again, s)
	}
	slices.SortFunc(again, func(x, y *repeated) int { // a chain of the same refusals is the same chain
		return strings.Compare(x.entry.Reason+x.entry.Peer+x.entry.Serial, y.entry.Reason+y.entry.Peer+y.entry.Serial)
	})
	for _, s := range again {
		s.entry.Count, s.more = s.more, 0
		a.write(s.entry)
	}
	if a.beyond > 0 {
		from := "many addresses"
		if address.IsValid() {
			from = address.String()
		}
		a.write(audit.Entry{
			Kind: "decision", Outcome: string(topology.Refused), Reason: string(Beyond), Count: a.beyond,
			Detail: fmt.Sprintf("from %s, within a second in which %d others were written", from, refusalsOfAddress),
		})
		a.beyond = 0
	}
}

// close writes what was only counted until now. What is refused later is written as it comes.
func (r *refusals) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for address, a := range r.addresses {
		a.timer.Stop()
		a.settle(address)
	}
	r.addresses = nil
}
