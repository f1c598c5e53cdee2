package site

import (
	"fmt"
	"testing"
	"time"
)

// clocked returns a brake and the clock that it reads.
func clocked() (*brake, *time.Time) {
	now := time.Unix(1_800_000_000, 0)
	return newBrake(func() time.Time { return now }), &now
}

func TestTheBrakeHoldsUpAnAddressThatFailsAndNoOther(t *testing.T) {
	b, now := clocked()
	fail := func(from string, n int) (braked int) {
		for range n {
			if _, err := b.begin(from); err != nil {
				braked++
			}
		}
		return braked
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
	braked := 0
	for i := range 3 * addressesBraked {
		if _, err := b.begin(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)); err != nil {
			braked++
		}
	}
	if braked != 3*addressesBraked-failuresInAll {
		t.Errorf("%d were held up, want all but %d", braked, failuresInAll)
	}
	if len(b.of) > addressesBraked {
		t.Errorf("%d addresses are remembered", len(b.of))
	}
	*now = now.Add(time.Minute)
	if _, err := b.begin("192.0.2.1:1"); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}
