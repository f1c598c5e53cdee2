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
		t.Error("the end of one wait ended the other, too")
	}
	leave()
	stay()
	if len(o.waiters) != 0 {
		t.Errorf("%d events still have a list of waits", len(o.waiters))
	}
}
