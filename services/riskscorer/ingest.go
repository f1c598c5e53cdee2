package riskscorer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
)

// Bounds of a batch, and of an event's time against the lab's clock.
const (
	batchBytes = 16 << 20
	batchLines = 5000
	tooFarIn   = 10 * time.Minute
	lateAfter  = 48 * time.Hour
	// attempts is how often an event is tried before it becomes a dead letter.
	attempts = 5
)

// line is one entry of a batch while it is processed.
type line struct {
	activity.Entry
	raw     []byte
	number  int    // in the batch
	person  string // empty if unknown
	late    bool
	receipt activity.Receipt // final once its Status is set
}

// batch is the content of one request.
type batch struct {
	caller topology.Workload
	from   string // SPIFFE ID
	serial string
	lines  []*line
}

// Events is POST /v1/events: NDJSON of activity.Entry in spool order, answered by NDJSON of activity.Receipt in the
// same order. One event of a foreign source refuses the whole batch (403). The status is 422 when every event is too
// far ahead.
func (s *Scorer) Events(w http.ResponseWriter, r *http.Request) error {
	if err := httpjson.RequireType(r, "application/x-ndjson"); err != nil {
		return err
	}
	b, err := s.readBatch(w, r)
	if err != nil {
		return err
	}
	if err := s.refuseForeign(b, r); err != nil {
		return err
	}
	wait, stop := context.WithTimeout(r.Context(), slotWithin)
	defer stop()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-wait.Done():
		return httpjson.Errorf(http.StatusTooManyRequests, "busy", "%d batches are at work already", batchesAtOnce).
			After(time.Second)
	}
	if err := s.store(r.Context(), b); err != nil {
		return s.unavailable(err)
	}
	status := http.StatusOK
	ahead := 0
	for _, l := range b.lines {
		if l.receipt.Reason == activity.TooFarAhead {
			ahead++
		}
	}
	if ahead > 0 && ahead == len(b.lines) {
		status = http.StatusUnprocessableEntity
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(status)
	out := json.NewEncoder(w)
	for _, l := range b.lines {
		if err := out.Encode(l.receipt); err != nil {
			return fmt.Errorf("answer receipts: %w", err)
		}
	}
	return nil
}

// readBatch reads the lines. It refuses a body that is no batch, and names the line at fault.
func (s *Scorer) readBatch(w http.ResponseWriter, r *http.Request) (*batch, error) {
	caller := mesh.Caller(r.Context())
	b := &batch{caller: caller, from: s.ids(caller), serial: mesh.CallerSerial(r.Context())}
	body := bufio.NewReaderSize(http.MaxBytesReader(w, r.Body, batchBytes), 64<<10)
	var last uint64
	for {
		text, err := body.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, httpjson.Cut(err)
		}
		end := err != nil
		if text = bytes.TrimSpace(text); len(text) > 0 {
			if len(b.lines) == batchLines {
				return nil, httpjson.Errorf(http.StatusRequestEntityTooLarge, "too_many_lines",
					"the batch has over %d lines", batchLines)
			}
			l := &line{raw: text, number: len(b.lines)}
			d := json.NewDecoder(bytes.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(&l.Entry); err != nil {
				return nil, httpjson.Errorf(http.StatusBadRequest, "bad_line", "line %d: %v", l.number+1, err)
			}
			if d.More() {
				return nil, httpjson.Errorf(http.StatusBadRequest, "bad_line", "line %d: text after the entry", l.number+1)
			}
			if l.number > 0 && l.Seq <= last {
				return nil, httpjson.Errorf(http.StatusBadRequest, "bad_order", "line %d: seq %d after %d", l.number+1, l.Seq, last)
			}
			last = l.Seq
			l.receipt = activity.Receipt{Seq: l.Seq}
			b.lines = append(b.lines, l)
		}
		if end {
			return b, nil
		}
	}
}

// sourceOf is the only source that a caller may submit: a collector's own, or training for the learning system.
func sourceOf(w topology.Workload) activity.Source {
	if w.Source == "" && w.Kind == topology.KindDashboard {
		return activity.Training
	}
	return activity.Source(w.Source)
}

// refuseForeign refuses a batch with an event of a source that is not the caller's.
func (s *Scorer) refuseForeign(b *batch, r *http.Request) error {
	own := sourceOf(b.caller)
	for _, l := range b.lines {
		if l.Event == nil {
			continue
		}
		// An invalid event of the own source, such as one with a foreign verb, becomes a dead letter instead.
		if own != "" && l.Event.Source == own && (l.Event.Verb.Source() == own || l.Event.Validate() != nil) {
			continue
		}
		s.refused(audit.Entry{
			Kind: "decision", Peer: b.from, Serial: b.serial, Route: string(scorerapi.RouteEvents),
			Outcome: string(topology.Forbidden), Reason: "foreign_source",
			Event: clip(l.Event.ID), Detail: clip(fmt.Sprintf("%s sent an event of source %q", b.caller.Name, l.Event.Source)),
		})
		return httpjson.Errorf(http.StatusForbidden, "foreign_source", "line %d: %s submits events of source %q only",
			l.number+1, b.caller.Name, own)
	}
	return nil
}

// clip makes foreign text fit for one line of an audit row.
func clip(text string) string { return audit.OneLine(text, 200) }
