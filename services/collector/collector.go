// Package collector receives the records of one vendor and forwards their events to the risk scorer, without losing or
// duplicating any.
//
// A delivery is answered 2xx only when its events are on disk. From there they are sent to the scorer in order and in
// batches, until the scorer has stored them, knows them already, or has finally refused them. One program serves all
// sources: its row in the topology names the source, and package source reads the records.
package collector

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/source"
)

// maxDelivery is the largest delivery in bytes, which is GitHub's limit.
const maxDelivery = 25 << 20

// Collector answers a vendor's deliveries.
type Collector struct {
	row    source.Row
	secret []byte
	spool  *Spool
	audit  func(context.Context, audit.Entry) // adds the caller

	mu      sync.Mutex
	refused map[string]uint64
}

func newCollector(row source.Row, secret []byte, spool *Spool, write func(context.Context, audit.Entry)) *Collector {
	return &Collector{row: row, secret: secret, spool: spool, audit: write, refused: map[string]uint64{}}
}

// refuse counts and audits a refusal, and returns it as the answer.
func (c *Collector) refuse(r *http.Request, e *httpjson.Error) error {
	c.count(e.Code)
	c.audit(r.Context(), audit.Entry{Kind: "delivery", Route: r.Pattern, Outcome: "Refused", Reason: e.Code})
	return e
}

func (c *Collector) count(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused[reason]++
}

// accept handles deliveries on one route. 2xx: on disk, or known already. 400: malformed. 401: wrong signature. 409: a
// known delivery id with another body. 413, 415. 503 with Retry-After: the spool is full or cannot be written.
func (c *Collector) accept(p source.Push) mesh.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := httpjson.RequireType(r, "application/json"); err != nil {
			return err
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDelivery))
		if err != nil {
			if e := httpjson.FromError(err); e.Status == http.StatusRequestEntityTooLarge {
				return c.refuse(r, e)
			}
			return httpjson.Errorf(http.StatusBadRequest, "body_cut", "the body ended early")
		}
		if p.Verify != nil {
			if err := p.Verify(c.secret, r.Header, body); err != nil {
				return c.refuse(r, httpjson.FromError(err))
			}
		}
		d := delivery{sum: sha256.Sum256(body)}
		if p.Delivery != nil {
			d.id = p.Delivery(r.Header)
			if d.id == "" || len(d.id) > 200 {
				return c.refuse(r, httpjson.Errorf(http.StatusBadRequest, "delivery_id",
					"the delivery id is missing, or longer than 200 bytes"))
			}
		}
		clean, err := source.ScrubWithin(r.Context(), body)
		if err != nil {
			return fmt.Errorf("scrub body: %w", err) // the caller is gone, or the time limit is reached
		}
		if d.records, err = p.Split(r.Header, clean); err != nil {
			return c.refuse(r, httpjson.Errorf(http.StatusBadRequest, "malformed", "%s", source.ScrubText(err.Error())))
		}
		a, err := c.spool.accept(r.Context(), d)
		var bad malformed
		switch {
		case errors.As(err, &bad):
			return c.refuse(r, httpjson.Errorf(http.StatusBadRequest, "malformed", "%s", source.ScrubText(bad.Error())))
		case errors.Is(err, errReplayed):
			return c.refuse(r, httpjson.Errorf(http.StatusConflict, "delivery_replayed", "%v", err))
		case errors.Is(err, errFull):
			return c.refuse(r, httpjson.Errorf(http.StatusServiceUnavailable, "spool_full", "%v", err).After(time.Second))
		case err != nil:
			c.count("spool_unavailable")
			return errors.Join(httpjson.Errorf(http.StatusServiceUnavailable, "spool_unavailable",
				"the delivery could not be written down").After(time.Second), err)
		}
		if a.Duplicate {
			return httpjson.Write(w, http.StatusOK, struct {
				Status string `json:"status"`
			}{"duplicate"})
		}
		c.auditAccepted(r.Context(), r.Pattern, a.Events)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(p.Status)
		_, err = io.WriteString(w, p.Accepted+"\n")
		return err
	}
}

// auditAccepted writes one audit entry for each accepted event, so that a search for its id finds its origin.
func (c *Collector) auditAccepted(ctx context.Context, route string, ids []string) {
	for _, id := range ids {
		c.audit(ctx, audit.Entry{Kind: "accepted", Route: route, Event: id})
	}
}

// Counts returns the state of the spool.
func (c *Collector) Counts() (collectorapi.Spool, error) {
	deadLetters, awaiting, err := c.spool.deadLetters(10)
	if err != nil {
		return collectorapi.Spool{}, err
	}
	now := c.spool.read()
	out := collectorapi.Spool{
		Counts: now.Counts, Watermark: now.Watermark(), Awaiting: awaiting, Dead: deadLetters, Refused: map[string]uint64{},
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, v := range c.refused {
		out.Refused[k] = v
	}
	return out, nil
}

func (c *Collector) serveCounts(w http.ResponseWriter, _ *http.Request) error {
	counts, err := c.Counts()
	if err != nil {
		return err
	}
	return httpjson.Write(w, http.StatusOK, counts)
}
