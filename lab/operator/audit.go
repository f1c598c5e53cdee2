package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/topology"
)

// RouteAudit is how a service exports its business rows.
const RouteAudit topology.Route = "GET /v1/audit"

// BusinessRows reads a writer's rows, page by page.
func (o *Operator) BusinessRows(ctx context.Context, workload string) ([]audit.Row, error) {
	const page = 10_000
	var rows []audit.Row
	for {
		after := int64(0)
		if len(rows) > 0 {
			after = rows[len(rows)-1].Seq
		}
		more, err := o.BusinessPage(ctx, workload, after, page)
		if err != nil {
			return nil, fmt.Errorf("read audit rows of %s after %d: %w", workload, after, err)
		}
		rows = append(rows, more...)
		if len(more) < page {
			return rows, nil
		}
	}
}

// BusinessPage reads at most limit business rows of a workload, in order, behind the row after.
func (o *Operator) BusinessPage(ctx context.Context, workload string, after int64, limit int) ([]audit.Row, error) {
	resp, err := o.Node.Peer(workload).Get(ctx, fmt.Sprintf("%s?after=%d&limit=%d", RouteAudit.Path(), after, limit))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %d", resp.StatusCode)
	}
	var rows []audit.Row
	d := json.NewDecoder(resp.Body)
	for {
		var r audit.Row
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return rows, nil
		} else if err != nil {
			return nil, fmt.Errorf("row %d: %w", len(rows)+1, err)
		}
		rows = append(rows, r)
	}
}

// RowsAbout are the rows of a workload's chain about an event or a person, which it finds by an index.
func (o *Operator) RowsAbout(ctx context.Context, workload string, what url.Values) ([]audit.Row, error) {
	resp, err := o.Node.Peer(workload).Get(ctx, RouteAudit.Path()+"?"+what.Encode())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read audit rows of %s: it answered %d", workload, resp.StatusCode)
	}
	rows, err := audit.ReadRows(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read audit rows of %s: %w", workload, err)
	}
	return rows, nil
}
