package site

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"example.org/security-training/services/httpjson"
)

// Limits on guesses: at sign-in links, links of messages, certificate numbers and sign-in states. Only failures count,
// so a whole class behind one address can sign in at once.
const (
	FailuresOfAddress = 60                    // burst of one address
	failuresAgain     = time.Second           // one more failure is allowed to an address after this time
	failuresInAll     = 1200                  // burst of all addresses together
	failuresInAllGain = 50 * time.Millisecond // one more failure is allowed to all addresses after this time
	addressesKept     = 4096                  // most addresses in memory
)

// limiter is a rate limiter that counts failed guesses, by address and in total.
type limiter struct {
	now func() time.Time

	mu  sync.Mutex
	all allowance
	of  map[netip.Addr]*allowance
}

// allowance is a token bucket: the failures left at a time.
type allowance struct {
	left float64
	at   time.Time
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, all: allowance{failuresInAll, now()}, of: map[netip.Addr]*allowance{}}
}

// fill adds one failure for each gain that has passed, up to most.
func (a *allowance) fill(now time.Time, most float64, gain time.Duration) {
	if passed := now.Sub(a.at); passed > 0 {
		a.left = min(most, a.left+float64(passed)/float64(gain))
		a.at = now
	}
}

// begin takes one failure from the allowance of the address in remote, and from that of all addresses. It returns a 429
// if either is empty. The caller calls right if the guess did not fail: that gives both failures back.
func (l *limiter) begin(remote string) (right func(), err error) {
	address := addressOf(remote)
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of[address]
	if a == nil {
		l.forget(now)
		a = &allowance{FailuresOfAddress, now}
		l.of[address] = a
	}
	a.fill(now, FailuresOfAddress, failuresAgain)
	l.all.fill(now, failuresInAll, failuresInAllGain)
	if a.left < 1 || l.all.left < 1 {
		return nil, httpjson.Errorf(http.StatusTooManyRequests, "too_many_failures",
			"Too many tries have failed in a short time. Wait a moment, then try again.").After(2 * time.Second)
	}
	a.left--
	l.all.left--
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		a.left = min(FailuresOfAddress, a.left+1)
		l.all.left = min(failuresInAll, l.all.left+1)
	}, nil
}

// forget makes room for an address. It drops the addresses whose allowance is full, and if there are none the one with
// the largest allowance. l.mu must be held.
func (l *limiter) forget(now time.Time) {
	if len(l.of) < addressesKept {
		return
	}
	var best netip.Addr
	most := -1.0
	for address, a := range l.of {
		if a.fill(now, FailuresOfAddress, failuresAgain); a.left >= FailuresOfAddress {
			delete(l.of, address)
		} else if a.left > most {
			best, most = address, a.left
		}
	}
	if len(l.of) >= addressesKept {
		delete(l.of, best)
	}
}

// addressOf is the address that a request is counted for. Loopback addresses count as one, and so do those of an IPv6
// network of 64 bits: one machine can use them all.
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
