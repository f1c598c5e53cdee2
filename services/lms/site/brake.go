package site

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"example.org/security-training/services/httpjson"
)

// A brake holds up those who guess: at links, at drills' links, at certificates' numbers, at the states of sign-ins.
// Only failures count, so that a class behind one address signs in at once, and one that fails now and then does as
// well.
const (
	FailuresOfAddress = 60 // at once
	failuresAgain     = time.Second
	failuresInAll     = 1200 // at once, of all addresses
	failuresInAllGain = 50 * time.Millisecond
	addressesBraked   = 4096 // remembered
)

type brake struct {
	now func() time.Time

	mu  sync.Mutex
	all allowance
	of  map[netip.Addr]*allowance
}

// allowance is how many failures are left, of most, as of a time; one more comes each gain.
type allowance struct {
	left float64
	at   time.Time
}

func newBrake(now func() time.Time) *brake {
	return &brake{now: now, all: allowance{failuresInAll, now()}, of: map[netip.Addr]*allowance{}}
}

func (a *allowance) fill(now time.Time, most float64, gain time.Duration) {
	if passed := now.Sub(a.at); passed > 0 {
		a.left = min(most, a.left+float64(passed)/float64(gain))
		a.at = now
	}
}

// begin takes a failure from what the address at remote may have; 429 if nothing is left. The guess was no failure if
// right is called.
func (b *brake) begin(remote string) (right func(), err error) {
	address := addressOf(remote)
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.of[address]
	if a == nil {
		b.forget(now)
		a = &allowance{FailuresOfAddress, now}
		b.of[address] = a
	}
	a.fill(now, FailuresOfAddress, failuresAgain)
	b.all.fill(now, failuresInAll, failuresInAllGain)
	if a.left < 1 || b.all.left < 1 {
		return nil, httpjson.Errorf(http.StatusTooManyRequests, "too_many_failures",
			"Too many tries have failed in a short time. Wait a moment, then try again.").After(2 * time.Second)
	}
	a.left--
	b.all.left--
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		a.left = min(FailuresOfAddress, a.left+1)
		b.all.left = min(failuresInAll, b.all.left+1)
	}, nil
}

// forget makes room for an address: by those that may fail as often as a new one, else by the one that may fail most
// often.
func (b *brake) forget(now time.Time) {
	if len(b.of) < addressesBraked {
		return
	}
	var best netip.Addr
	most := -1.0
	for address, a := range b.of {
		if a.fill(now, FailuresOfAddress, failuresAgain); a.left >= FailuresOfAddress {
			delete(b.of, address)
		} else if a.left > most {
			best, most = address, a.left
		}
	}
	if len(b.of) >= addressesBraked {
		delete(b.of, best)
	}
}

// addressOf is where a request comes from: the address, or the network of IPv6 or of loopback, in which one machine has
// as many as it likes.
func addressOf(remote string) netip.Addr {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	address := at.Addr().Unmap()
	if address.IsLoopback() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if address.Is6() {
		if network, err := address.WithZone("").Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return address
}
