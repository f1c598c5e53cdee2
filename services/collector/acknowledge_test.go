package collector

import (
	"net/http"
	"testing"

	"example.org/security-training/services/activity"
)

// The options by which bbolt would answer before the disk has anything are off, on every system.
func TestTheSpoolSyncsEveryCommit(t *testing.T) {
	db := start(t, activity.Git, 10).spool.db
	if db.NoSync || db.NoGrowSync {
		t.Errorf("NoSync %v, NoGrowSync %v: an answer would not wait for the disk", db.NoSync, db.NoGrowSync)
	}
	if !db.NoFreelistSync {
		t.Error("the list of free pages is written with every commit, and it is made again when the spool is opened")
	}
}

// A receipt may come twice: the answer that brought it was lost, or two forwarders overlapped at a restart.
func TestAnEntryThatIsAcknowledgedTwiceCountsOnce(t *testing.T) {
	for _, status := range []activity.Status{
		activity.Stored, activity.Duplicate, activity.Rejected, activity.DeadLettered,
	} {
		c := start(t, activity.Git, 10)
		want(t, send(c, "d", push("one")), http.StatusAccepted) // two entries
		once := activity.Receipt{Seq: 1, Status: status, Reason: "reason"}
		if err := c.spool.acknowledge(t.Context(), []activity.Receipt{once}); err != nil {
			t.Fatal(err)
		}
		before := counted(t, c)
		// In one call and in two, and with another end than the first.
		for _, again := range [][]activity.Receipt{{once, once}, {{Seq: 1, Status: activity.Stored}}} {
			if err := c.spool.acknowledge(t.Context(), again); err != nil {
				t.Errorf("%s, acknowledged again: %v", status, err)
			}
		}
		after := counted(t, c)
		if after.Spooled != 1 || after.Stored+after.Duplicate+after.Rejected+after.DeadLettered != 1 ||
			after.Watermark != before.Watermark || len(after.Dead) != len(before.Dead) ||
			after.GivenUp["reason"] != before.GivenUp["reason"] {
			t.Errorf("%s: %+v, and after it was acknowledged again %+v", status, before, after)
		}
	}
}
