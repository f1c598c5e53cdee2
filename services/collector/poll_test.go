package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/mesh/meshtest"
)

// oktaLog serves n events in pages of 10, as Okta does: there always is a next link.
func oktaLog(n int, first func(calls int) (*http.Response, bool)) (*http.Client, *int) {
	calls := 0
	return &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		calls++
		if resp, ok := first(calls); ok {
			return resp, nil
		}
		if r.Header.Get("Authorization") != "SSWS "+string(secret) {
			return respond(401, "application/json", `{}`), nil
		}
		from, _ := strconv.Atoi(r.URL.Query().Get("after"))
		var page []string
		for i := from; i < min(from+10, n); i++ {
			page = append(page,
				fmt.Sprintf(`{"uuid":"u%d","published":"2026-09-14T10:00:00.000Z","eventType":"user.session.start",`+
					`"actor":{"type":"User","alternateId":"m"},"outcome":{"result":"SUCCESS"}}`, i))
		}
		if from == 10 {
			page[3] = `{"uuid":7}`
		}
		link := fmt.Sprintf(`<https://example.okta.com/api/v1/logs?after=%d&limit=10>; rel="next"`, from+len(page))
		return respond(200, "application/json", "["+strings.Join(page, ",")+"]", "Link", link), nil
	})}, &calls
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPollingTakesEachRecordOnceAcrossKillsAndRateLimits(t *testing.T) {
	c := start(t, activity.IAM, 1000)
	client, calls := oktaLog(47, func(call int) (*http.Response, bool) {
		switch call {
		case 2:
			return respond(429, "application/json", `{}`, "X-Rate-Limit-Reset", "1"), true
		case 4:
			return respond(500, "application/json", `{}`), true
		}
		return nil, false
	})
	for page := 0; page < 12; page++ {
		p := &poller{collector: c, poll: *c.row.Polled, client: client, log: quiet(), every: time.Millisecond,
			longest: time.Millisecond}
		_, err := p.page(t.Context())
		var limit *limited
		if (page == 1) != errors.As(err, &limit) || (page == 3) != (err != nil && limit == nil) {
			t.Fatalf("call %d: %v", page+1, err)
		}
		c = killed(t, c)
	}
	n := counted(t, c)
	list, err := c.spool.head(1000, func(uint64) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range list {
		var event activity.Event
		if err := json.Unmarshal(e.event, &event); err != nil {
			t.Fatal(err)
		}
		seen[event.ID] = true
	}
	if len(seen) != 46 || n.Accepted != 46 || *calls != 12 {
		t.Errorf("%d different events of %d, want 46 (one of 47 is unreadable)", len(seen), n.Accepted)
	}
	// And by itself, from the start.
	fresh := start(t, activity.IAM, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	p := &poller{collector: fresh, poll: *c.row.Polled, client: client, log: quiet(), every: time.Millisecond,
		longest: time.Millisecond}
	go func() { done <- p.run(ctx) }()
	meshtest.Await(t, "46 events", func() bool { return fresh.spool.read().Accepted == 46 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := counted(t, fresh); n.Refused["malformed"] != 1 {
		t.Errorf("refused %v", n.Refused)
	}
}

func TestNextPageIsReadFromTheLink(t *testing.T) {
	for header, want := range map[string]string{
		`<https://x.okta.com/api/v1/logs?limit=1>; rel="self", ` +
			`<https://x.okta.com/api/v1/logs?after=9,8&limit=1>; rel="next"`: "/api/v1/logs?after=9,8&limit=1",
		`<https://x.okta.com/api/v1/logs>; rel="self"`: "",
		`<:/%>; rel="next"`:                            "",
		``:                                             "",
	} {
		if got := nextPage([]string{header}); got != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
}
