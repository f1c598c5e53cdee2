package site

import (
	"fmt"
	"testing"
	"time"
)

// clocked returns a limiter and the clock that it reads.
func clocked() (*limiter, *time.Time) {
	now := time.Unix(1_800_000_000, 0)
	return newLimiter(func() time.Time { return now }), &now
}

func TestTheBrakeHoldsUpAnAddressThatFailsAndNoOther(t *testing.T) {
	b, now := clocked()
	fail := func(from string, n int) (limited int) {
		for range n {
			if _, err := b.begin(from); err != nil {
				limited++
			}
		}
		return limited
	}
	if n := fail("192.0.2.1:1000", 500); n != 500-FailuresOfAddress {
		t.Errorf("%d of 500 guesses were held up", n)
	}
	if n := fail("192.0.2.2:1000", 30); n != 0 {
		t.Errorf("another address: %d of 30 were held up", n)
	}
	if n := fail("[2001:db8::1]:1000", FailuresOfAddress) + fail("[2001:db8::2]:1000", 1); n != 1 {
		t.Errorf("of one network of IPv6, %d were held up, want 1", n)
	}
	if n := fail("127.0.0.1:1000", FailuresOfAddress) + fail("127.7.7.7:1000", 1); n != 1 {
		t.Errorf("of one machine, %d were held up, want 1", n)
	}
	*now = now.Add(10 * failuresAgain)
	if n := fail("192.0.2.1:2000", 500); n != 490 {
		t.Errorf("after ten seconds, %d of 500 were held up, want 490", n)
	}
}

func TestTheBrakeHoldsUpAllWhenAllFailAndRemembersNoMoreThanItMust(t *testing.T) {
	b, now := clocked()
	limited := 0
	for i := range 3 * addressesKept {
		if _, err := b.begin(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)); err != nil {
			limited++
		}
	}
	if limited != 3*addressesKept-failuresInAll {
		t.Errorf("%d were held up, want all but %d", limited, failuresInAll)
	}
	if len(b.of) > addressesKept {
		t.Errorf("%d addresses are remembered", len(b.of))
	}
	*now = now.Add(time.Minute)
	if _, err := b.begin("192.0.2.1:1"); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}
