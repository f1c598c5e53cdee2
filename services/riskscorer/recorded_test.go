package riskscorer

import (
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

// What comes to nothing stands in the audit with its event and why, as what is scored does.
func TestWhatIsNotStoredStandsInTheAuditWithItsReason(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	poison, invalid := commit(1, "mira", activity.ForcePush, 0), commit(2, "mira", activity.ForcePush, 0)
	poison.Detail, invalid.Bytes = "a\x00b", -1 // valid JSON that a jsonb cannot hold; no event
	ahead := commit(3, "mira", activity.ForcePush, -time.Hour)
	l.send(gitCollector, 1, poison)
	l.send(gitCollector, 2, invalid)
	l.send(gitCollector, 3, ahead)
	for _, c := range []struct{ event, kind, reason string }{
		{poison.ID, scorerapi.KindDeadLetter, activity.CannotBeStored + ": failed 5 times"},
		{invalid.ID, scorerapi.KindDeadLetter, activity.InvalidEvent + ": bytes -1"},
		{ahead.ID, scorerapi.KindRejected, activity.TooFarAhead},
	} {
		var rows int
		err := l.pool.QueryRow(t.Context(), `SELECT count(*) FROM audit.own
			WHERE event = $1 AND kind = $2 AND starts_with(detail::jsonb ->> 'reason', $3)`,
			c.event, c.kind, c.reason).Scan(&rows)
		if err != nil || rows != 1 {
			t.Errorf("%s: %d rows of kind %s with reason %q (%v), want 1", c.event, rows, c.kind, c.reason, err)
		}
	}
}

// Nothing is known of times to come: who asks for one is told of now.
func TestTheRiskOfATimeToComeIsThatOfNow(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	l.send(gitCollector, 1, commit(1, "mira", activity.SecretCommitted, time.Hour))
	var a risk.Assessment
	l.get("/v1/people/mira/risk?at=2031-01-01T00:00:00Z", &a)
	var now risk.Clock
	l.get("/v1/clock", &now)
	if a.At.After(now.Now) || a.At.Before(risk.Epoch) || a.Score == 0 {
		t.Errorf("assessed for %v with %d; it is %v", a.At, a.Score, now.Now)
	}
}

// A batch that comes while the roster changes waits: else its events would be of no one, and nothing would give them to
// those who own their accounts from then on.
func TestABatchWaitsForARosterThatIsBeingChanged(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	roster, err := l.pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = roster.Rollback(ctx) }() // it was committed
	if _, err := putPeople(ctx, roster, []risk.Person{person("mira", risk.SRE)}); err != nil {
		t.Fatal(err)
	}
	sent := make(chan []activity.Receipt, 1)
	go func() {
		_, receipts := l.send(gitCollector, 1, commit(1, "mira", activity.SecretCommitted, time.Hour))
		sent <- receipts
	}()
	for waiting := false; !waiting; {
		select {
		case receipts := <-sent:
			t.Fatalf("a batch was stored while the roster was being changed: %+v", receipts)
		default:
		}
		query := `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`
		if err := l.pool.QueryRow(ctx, query).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	if err := roster.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if receipts := <-sent; len(receipts) != 1 || receipts[0].Status != activity.Stored {
		t.Fatalf("%+v", receipts)
	}
	if n := l.one(`SELECT count(*) FROM risk.event WHERE person = 'mira'`); n != 1 {
		t.Errorf("%d events are of their person, want 1", n)
	}
}
