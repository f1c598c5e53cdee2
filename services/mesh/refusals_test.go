package mesh

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.org/security-training/services/audit"
)

var stranger = netip.MustParseAddr("192.0.2.7")

// written is what refusals write, and how many decisions it stands for.
type written struct {
	mu  sync.Mutex
	all []audit.Entry
}

func (w *written) write(e audit.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, e)
}

func (w *written) entries() []audit.Entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.all)
}

func (w *written) stand() (decisions uint64) {
	for _, e := range w.entries() {
		decisions += max(1, e.Count)
	}
	return decisions
}

func TestTheSameRefusalIsWrittenOnceASecondWithItsNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusals
		var n written
		const each = 1000
		for range 5 * each { // for five seconds
			r.add(stranger, (&Refusal{Reason: NoCertificate, Detail: "none"}).entry("decision", ""), n.write)
			<-time.After(time.Second / each)
		}
		<-time.After(time.Hour)
		all := n.entries()
		if len(all) > 7 || n.stand() != 5*each {
			t.Errorf("%d entries for %d of %d decisions", len(all), n.stand(), 5*each)
		}
		if all[0].Count != 0 || all[1].Count == 0 || all[1].Reason != string(NoCertificate) || all[1].Detail != "none" {
			t.Errorf("%+v", all[:2])
		}
		r.mu.Lock()
		left := len(r.addresses)
		r.mu.Unlock()
		if left != 0 {
			t.Errorf("%d addresses are remembered for an hour", left)
		}
		r.add(stranger, (&Refusal{Reason: NoCertificate}).entry("decision", ""), n.write)
		if last := n.entries()[len(all)]; last.Count != 0 {
			t.Errorf("an hour later: %+v", last)
		}
	})
}

func TestRefusalsThatDifferAreFiftyASecondOfOneAddressAndTheRestIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusals
		var n written
		for i := range 4000 {
			r.add(stranger, (&Refusal{Reason: Unlisted, Serial: fmt.Sprint(i)}).entry("decision", ""), n.write)
			r.add(
				netip.MustParseAddr("192.0.2.8"),
				(&Refusal{Reason: Unlisted, Serial: fmt.Sprint(i % 7)}).entry("decision", ""),
				n.write,
			)
			<-time.After(time.Millisecond)
		}
		<-time.After(time.Hour)
		if n.stand() != 8000 {
			t.Errorf("the entries stand for %d of 8000 decisions", n.stand())
		}
		many, dropped := 0, 0
		for _, e := range n.entries() {
			switch {
			case e.Reason == string(Beyond) && strings.Contains(e.Detail, stranger.String()):
				dropped++
			case e.Reason == string(Beyond):
				t.Errorf("of another address: %+v", e)
			case len(e.Serial) > 1:
				many++
			}
		}
		if most := 5 * refusalsPerWindow; many < refusalsPerWindow || many > most || dropped < 3 || dropped > 5 {
			t.Errorf("%d written and %d entries for the rest, want at most %d and one a second", many, dropped, most)
		}
	})
}

func TestRefusalsOfAnyNumberOfAddressesTakeNoMemoryAndAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusals
		var n written
		at := netip.MustParseAddr("10.0.0.0")
		const many = 5 * maxAddresses
		for i := range many {
			r.add(at, (&Refusal{Reason: Unlisted, Serial: fmt.Sprint(i)}).entry("decision", ""), n.write)
			at = at.Next()
		}
		if len(r.addresses) > maxAddresses+1 || len(n.entries()) > maxAddresses+refusalsPerWindow {
			t.Errorf("%d addresses are remembered, %d entries were written", len(r.addresses), len(n.entries()))
		}
		r.close()
		if n.stand() != many {
			t.Errorf("the entries stand for %d of %d decisions", n.stand(), many)
		}
		r.add(at, (&Refusal{Reason: Unlisted}).entry("decision", ""), n.write)
		if n.stand() != many+1 {
			t.Error("a refusal at the very end is not written")
		}
	})
}

// One machine has as many addresses of loopback as it likes, and as many of its network of IPv6.
func TestAMachineOfManyAddressesIsCountedAsOne(t *testing.T) {
	for _, first := range []string{"127.0.0.1", "::ffff:127.0.0.1", "2001:db8:0:7::1"} {
		var r refusals
		var n written
		at := netip.MustParseAddr(first)
		for i := range 20 * refusalsPerWindow {
			r.add(at, (&Refusal{Reason: Unlisted, Serial: fmt.Sprint(i)}).entry("decision", ""), n.write)
			at = at.Next()
		}
		if got := len(n.entries()); got != refusalsPerWindow {
			t.Errorf("%s and those behind it: %d entries in a second, want %d", first, got, refusalsPerWindow)
		}
		r.close()
		if n.stand() != 20*refusalsPerWindow {
			t.Errorf("the entries stand for %d decisions", n.stand())
		}
	}
}
