package collector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/riskscorer/scorerapi"
)

// batchType is the media type of a batch: one activity.Entry on each line.
const batchType = "application/x-ndjson"

// forwarder sends the spooled events to the risk scorer.
//
// In an outage (no connection, 401, 403, 408, 429, 502 to 504) everything is kept and sent again, after growing pauses
// or the time in Retry-After. Any other refusal may be caused by one event: the batch is halved until that event is
// alone. The event is then delayed, so that it does not hold up the others, and becomes a dead letter after five
// failures. If two different events fail in a row with a 5xx, and nothing was accepted in between, this is taken for an
// outage and not counted.
type forwarder struct {
	spool *Spool
	post  func(ctx context.Context, path, contentType string, body []byte) (*http.Response, error)
	log   *slog.Logger

	batch   int           // the most lines of a batch
	first   time.Duration // pause after the first failure; it doubles
	longest time.Duration
	again   time.Duration // how long a failed event is delayed, for each failure

	delayed    map[uint64]*delayed
	lastFailed uint64 // the last event that failed by itself; 0 if one was accepted since
}

type delayed struct {
	failures int
	until    time.Time
}

// failures is the number of failures after which an event becomes a dead letter.
const failures = 5

func newForwarder(
	spool *Spool, post func(context.Context, string, string, []byte) (*http.Response, error), log *slog.Logger,
) *forwarder {
	return &forwarder{
		spool: spool, post: post, log: log, batch: 1000, first: 50 * time.Millisecond, longest: 5 * time.Second,
		again: 200 * time.Millisecond, delayed: map[uint64]*delayed{},
	}
}

// outage means that the scorer cannot answer now.
type outage struct {
	why   string
	after time.Duration // Retry-After, 0 if none
}

func (o *outage) Error() string { return o.why }

// unfit means that the scorer did not accept the batch.
type unfit struct {
	why    string
	server bool // a 5xx, which may be the scorer's fault
}

func (u *unfit) Error() string { return u.why }

// run forwards until ctx ends.
func (f *forwarder) run(ctx context.Context) error {
	size, pause, logged := f.batch, f.first, ""
	for ctx.Err() == nil {
		now := time.Now()
		next := time.Hour
		list, err := f.spool.head(size, func(seq uint64) bool {
			a := f.delayed[seq]
			if a == nil || !now.Before(a.until) {
				return false
			}
			next = min(next, a.until.Sub(now))
			return true
		})
		if err != nil {
			return err
		}
		if len(list) == 0 {
			f.wait(ctx, next, f.spool.wake)
			continue
		}
		receipts, err := f.send(ctx, list)
		if len(receipts) > 0 {
			if err := f.acknowledge(ctx, receipts); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				f.log.Error("acknowledge receipts", "error", err.Error())
				f.wait(ctx, f.longest, nil)
			}
		}
		var out *outage
		var bad *unfit
		switch {
		case err == nil:
			if logged != "" {
				f.log.Info("the risk scorer takes events again")
			}
			size, pause, logged = f.batch, f.first, ""
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &bad) && len(list) > 1:
			size = (len(list) + 1) / 2
		case errors.As(err, &bad):
			size = f.batch
			if err := f.fail(ctx, list[0].seq, bad); err != nil {
				return err
			}
			if bad.server {
				f.wait(ctx, f.first, nil)
			}
		default:
			wait := pause
			if errors.As(err, &out) && out.after > 0 {
				wait = out.after
			}
			if logged != err.Error() {
				logged = err.Error()
				f.log.Warn("the risk scorer takes no events; they are kept", "error", logged)
			}
			f.wait(ctx, wait, nil)
			pause = min(pause*2, f.longest)
		}
	}
	return nil
}

// wait waits for d, for wake or for the end of ctx.
func (f *forwarder) wait(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-t.C:
	}
}

// acknowledge applies receipts. One that is not final counts as a failure of its event.
func (f *forwarder) acknowledge(ctx context.Context, receipts []activity.Receipt) error {
	var final []activity.Receipt
	for _, r := range receipts {
		switch r.Status {
		case activity.Stored, activity.Duplicate, activity.Rejected, activity.DeadLettered:
			final = append(final, r)
		default:
			if err := f.fail(ctx, r.Seq, &unfit{why: fmt.Sprintf("status %q: %s", r.Status, r.Reason)}); err != nil {
				return err
			}
		}
	}
	if len(final) == 0 {
		return nil
	}
	if err := f.spool.acknowledge(ctx, final); err != nil {
		return err
	}
	for _, r := range final {
		delete(f.delayed, r.Seq)
	}
	f.lastFailed = 0
	return nil
}

// fail counts the failure of a single event.
func (f *forwarder) fail(ctx context.Context, seq uint64, why *unfit) error {
	a := f.delayed[seq]
	if a == nil {
		a = &delayed{}
		f.delayed[seq] = a
	}
	if !why.server || f.lastFailed == 0 || f.lastFailed == seq {
		a.failures++
	}
	if why.server {
		f.lastFailed = seq
	}
	a.until = time.Now().Add(f.again * time.Duration(max(1, a.failures)))
	if a.failures < failures {
		return nil
	}
	f.log.Warn("dead letter", "seq", seq, "reason", why.why)
	if err := f.spool.acknowledge(ctx, []activity.Receipt{{Seq: seq, Status: activity.DeadLettered,
		Reason: why.why}}); err != nil {
		return err
	}
	delete(f.delayed, seq)
	return nil
}

// send sends a batch. It returns the receipts that arrived, and why others did not: *outage or *unfit.
func (f *forwarder) send(ctx context.Context, list []entry) ([]activity.Receipt, error) {
	var body bytes.Buffer
	asked := make(map[uint64]bool, len(list))
	for _, e := range list {
		asked[e.seq] = true
		body.WriteString(`{"seq":`)
		body.WriteString(strconv.FormatUint(e.seq, 10))
		if len(e.event) > 0 {
			body.WriteString(`,"event":`)
			body.Write(e.event)
		}
		body.WriteString("}\n")
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	resp, err := f.post(ctx, scorerapi.RouteEvents.Path(), batchType, body.Bytes())
	if err != nil {
		return nil, &outage{why: err.Error()}
	}
	defer resp.Body.Close()
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind == batchType { // also with 422, when nothing of the batch was stored
		receipts, err := readReceipts(resp.Body, asked)
		if err == nil && len(receipts) < len(list) {
			err = fmt.Errorf("%d of %d receipts", len(receipts), len(list))
		}
		if err != nil {
			return receipts, &outage{why: fmt.Sprintf("read receipts: %v", err)}
		}
		return receipts, nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 2000)) // only for the message
	why := fmt.Sprintf("%s: %d %s", scorerapi.RouteEvents, resp.StatusCode, bytes.TrimSpace(text))
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		after := time.Duration(0)
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 && n <= 60 {
			after = time.Duration(n) * time.Second
		}
		return nil, &outage{why: why, after: after}
	default:
		return nil, &unfit{why: why, server: resp.StatusCode >= 500}
	}
}

// readReceipts reads one receipt on each line, and ignores those that were not asked for.
func readReceipts(r io.Reader, asked map[uint64]bool) ([]activity.Receipt, error) {
	var receipts []activity.Receipt
	err := httpjson.Lines(r, func(one activity.Receipt) error {
		if asked[one.Seq] {
			delete(asked, one.Seq)
			receipts = append(receipts, one)
		}
		return nil
	})
	return receipts, err
}
