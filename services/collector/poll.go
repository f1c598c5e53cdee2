package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/services/source"
)

// poller follows a vendor's log by its cursor. The cursor is committed together with the records before it, so that no
// page is lost or read twice.
type poller struct {
	collector *Collector
	poll      source.Poll
	client    *http.Client
	log       *slog.Logger
	every     time.Duration // between polls without records
	longest   time.Duration // pause after failures
}

// limited means that the vendor accepts no request until a time.
type limited struct{ until time.Time }

func (l *limited) Error() string { return "rate limit reached" }

// run polls until ctx ends: immediately after a page with records, otherwise after poller.every.
func (p *poller) run(ctx context.Context) error {
	pause, logged := p.every, ""
	for ctx.Err() == nil {
		n, err := p.page(ctx)
		wait := p.every
		var limit *limited
		switch {
		case err == nil:
			pause, logged = p.every, ""
			if n > 0 {
				wait = 0
			}
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &limit):
			wait = min(max(time.Until(limit.until), p.every), time.Minute)
		default:
			wait = pause
			pause = min(pause*2, p.longest)
			if logged != err.Error() {
				logged = err.Error()
				p.log.Warn("the log cannot be polled", "error", logged)
			}
		}
		if wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				t.Stop()
			case <-t.C:
			}
		}
	}
	return nil
}

// page reads one page, and returns its number of records.
func (p *poller) page(ctx context.Context) (int, error) {
	at, err := p.collector.spool.cursor()
	if err != nil {
		return 0, err
	}
	if at == "" {
		at = p.poll.First
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://log"+at, nil) // the client ignores the host
	if err != nil {
		return 0, fmt.Errorf("poll log: %w", err)
	}
	p.poll.Authorize(p.collector.secret, req.Header)
	req.Header.Set("Accept", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("poll log: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDelivery+1))
	if err != nil {
		return 0, fmt.Errorf("poll log: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		p.collector.count("rate_limited")
		reset, _ := strconv.ParseInt(resp.Header.Get("X-Rate-Limit-Reset"), 10, 64) // 0, long ago, when absent
		return 0, &limited{time.Unix(reset, 0)}
	case resp.StatusCode != http.StatusOK:
		return 0, fmt.Errorf("poll log: status %d", resp.StatusCode)
	case len(body) > maxDelivery:
		return 0, fmt.Errorf("poll log: a page of over %d bytes", maxDelivery)
	}
	next := nextPage(resp.Header.Values("Link"))
	if next == "" {
		return 0, errors.New(`poll log: the page has no Link with rel="next"`)
	}
	clean, err := source.ScrubWithin(ctx, body)
	if err != nil {
		return 0, fmt.Errorf("poll log: %w", err)
	}
	records, err := p.poll.Split(resp.Header, clean)
	if err != nil {
		return 0, fmt.Errorf("poll log: %w", err)
	}
	if len(records) == 0 && next == at {
		return 0, nil
	}
	ids, faults, err := p.collector.spool.acceptPage(ctx, records, next)
	if err != nil {
		return 0, fmt.Errorf("poll log: %w", err)
	}
	for _, fault := range faults {
		p.collector.count("malformed")
		p.log.Warn("a record was left out", "error", source.ScrubText(fault.Error()))
	}
	p.collector.auditAccepted(ctx, string(p.poll.Route), ids)
	return len(records), nil
}

// nextPage is the request URI of the Link with rel="next", "" if there is none.
func nextPage(links []string) string {
	for _, header := range links {
		for _, link := range strings.Split(header, ", ") {
			target, params, ok := strings.Cut(link, ";")
			if !ok || !strings.Contains(params, `rel="next"`) {
				continue
			}
			u, err := url.Parse(strings.Trim(strings.TrimSpace(target), "<>"))
			if err != nil || !strings.HasPrefix(u.Path, "/") {
				continue
			}
			return u.RequestURI()
		}
	}
	return ""
}
