package collector

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/source"
)

// signIns are n records of a polled log, of an entry each.
func signIns(t testing.TB, c *Collector, n int) []source.Record {
	t.Helper()
	client, _ := oktaLog(n, func(int) (*http.Response, bool) { return nil, false })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://log/?after=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "SSWS "+string(secret))
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	records, err := c.row.Polled.Split(resp.Header, body.Bytes())
	if err != nil || len(records) != n {
		t.Fatalf("%d records, %v", len(records), err)
	}
	return records
}

func TestAPageThatFillsTheSpoolToItsBoundIsTakenAndOneMoreRecordIsNot(t *testing.T) {
	c := start(t, activity.IAM, 7)
	records := signIns(t, c, 8)
	if _, _, err := c.spool.acceptPage(t.Context(), records[:3], "/a"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.spool.acceptPage(t.Context(), records[3:], "/b"); !errors.Is(err, errFull) {
		t.Errorf("a page beyond the bound: %v, want %v", err, errFull)
	}
	if at, err := c.spool.cursor(); at != "/a" || err != nil {
		t.Errorf("the cursor of a page that was not taken: %q, %v", at, err)
	}
	if _, _, err := c.spool.acceptPage(t.Context(), records[3:7], "/b"); err != nil {
		t.Errorf("a page up to the bound: %v", err)
	}
	if n := counted(t, c); n.Spooled != 7 {
		t.Errorf("%+v", n)
	}
}

func TestADeliveryThatIsTooLongIsRefusedCountedAndAudited(t *testing.T) {
	c := start(t, activity.Git, 1000)
	var entries []audit.Entry
	c.audit = func(_ context.Context, e audit.Entry) { entries = append(entries, e) }
	want(t, send(c, "d", bytes.Repeat([]byte(" "), maxDelivery+1)), http.StatusRequestEntityTooLarge)
	if n := counted(t, c); n.Refused["body_too_large"] != 1 || n.Accepted != 0 {
		t.Errorf("%+v", n)
	}
	if len(entries) != 1 || entries[0].Outcome != "Refused" || entries[0].Reason != "body_too_large" {
		t.Errorf("audit %+v", entries)
	}
}

// A peer says how long it wants to be left alone, and a mistake of its must not end the flow of events for a day.
func TestAPauseThatThePeerAsksForHasABound(t *testing.T) {
	for _, asked := range []string{"61", "86400", "-1", "soon"} {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, activity.Git, 1000)
			fill(t, c, 1)
			s := &scorer{stored: map[string]int{}}
			s.answer = func(call int, entries []activity.Entry) (*http.Response, error) {
				if call == 1 {
					return respond(503, "application/json", `{}`, "Retry-After", asked), nil
				}
				return respond(200, batchType, s.take(entries)), nil
			}
			began := time.Now()
			forward(t, c, s)
			if took := time.Since(began); took > time.Second {
				t.Errorf("Retry-After %s: sent again after %s, want it after the forwarder's own first pause", asked, took)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) { // and one within the bound is kept
		c := start(t, activity.Git, 1000)
		fill(t, c, 1)
		s := &scorer{stored: map[string]int{}}
		s.answer = func(call int, entries []activity.Entry) (*http.Response, error) {
			if call == 1 {
				return respond(503, "application/json", `{}`, "Retry-After", "60"), nil
			}
			return respond(200, batchType, s.take(entries)), nil
		}
		began := time.Now()
		forward(t, c, s)
		if took := time.Since(began); took < time.Minute {
			t.Errorf("Retry-After 60: sent again after %s", took)
		}
	})
}

func TestARateLimitIsWaitedForAMinuteAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, activity.IAM, 1000)
		var at []time.Time
		client, _ := oktaLog(5, func(call int) (*http.Response, bool) {
			at = append(at, time.Now())
			if call == 1 { // of the year 2100
				return respond(429, "application/json", `{}`, "X-Rate-Limit-Reset", "4102444800"), true
			}
			return nil, false
		})
		p := &poller{
			collector: c, poll: *c.row.Polled, client: client, log: quiet(), every: time.Second, longest: time.Second,
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- p.run(ctx) }()
		for began := time.Now(); c.spool.read().Accepted < 5 && time.Since(began) < 2*time.Hour; {
			<-time.After(time.Second)
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if len(at) < 2 || at[1].Sub(at[0]) != time.Minute {
			t.Errorf("asked at %v, want a minute between the first two", at)
		}
	})
}
