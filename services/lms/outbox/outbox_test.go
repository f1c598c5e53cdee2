package outbox

import (
	"testing"
)

func TestWhoWaitsForADeliveryHearsOfItAlthoughAnotherLeaves(t *testing.T) {
	o := New(nil, nil, nil)
	_, leave := o.Expect("training:1")
	done, stay := o.Expect("training:1")
	leave()
	o.announce("training:1")
	select {
	case <-done:
	default:
		t.Error("whoever left took the other's place, too")
	}
	leave()
	stay()
	if len(o.waiters) != 0 {
		t.Errorf("%d events are waited for by nobody", len(o.waiters))
	}
}
