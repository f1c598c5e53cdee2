package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/topology"
)

// RouteRows exports a writer's rows as NDJSON of Row. Every service that writes rows serves it.
const RouteRows topology.Route = "GET /v1/audit"

// Row is one row of the audit in the database, as RouteRows exports it. Each writer has its own chain.
type Row struct {
	Chain  string    `json:"chain"` // the writer's role
	Seq    int64     `json:"seq"`
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`
	Person string    `json:"person"`
	Event  string    `json:"event"`
	Detail string    `json:"detail"`
	Prev   string    `json:"prev"`
	Hash   string    `json:"hash"`
}

// Sum is the correct value of Hash: SHA-256, in hex, over the other fields, one on each line, in the order chain, seq,
// at in whole microseconds, kind, person, event, prev, detail. The database's function audit.sum computes the same.
func (r Row) Sum() string {
	h := sha256.Sum256([]byte(strings.Join([]string{
		r.Chain, strconv.FormatInt(r.Seq, 10), strconv.FormatInt(r.At.UnixMicro(), 10),
		r.Kind, r.Person, r.Event, r.Prev, r.Detail,
	}, "\n")))
	return hex.EncodeToString(h[:])
}

// Each iterates over rows, without errors.
func Each(rows []Row) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// WriteRows writes rows as NDJSON, up to the first error. Times are in UTC, so that equal rows have equal text.
func WriteRows(w io.Writer, rows iter.Seq2[Row, error]) error {
	line := json.NewEncoder(w)
	line.SetEscapeHTML(false)
	for r, err := range rows {
		if err != nil {
			return err
		}
		r.At = r.At.UTC()
		if err := line.Encode(r); err != nil {
			return fmt.Errorf("write row %d: %w", r.Seq, err)
		}
	}
	return nil
}

// ReadRows reads NDJSON of rows to the end.
func ReadRows(r io.Reader) ([]Row, error) {
	var rows []Row
	err := httpjson.Lines(r, func(row Row) error {
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}
