package operator

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"example.org/security-training/services/audit"
)

// BusinessRows reads all business rows of a writer, page by page.
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

// BusinessPage reads at most limit business rows of a workload, in order, that come after the row numbered after.
func (o *Operator) BusinessPage(ctx context.Context, workload string, after int64, limit int) ([]audit.Row, error) {
	resp, err := o.Node.Peer(workload).Get(ctx, fmt.Sprintf("%s?after=%d&limit=%d", audit.RouteRows.Path(), after, limit))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %d", resp.StatusCode)
	}
	return audit.ReadRows(resp.Body)
}

// RowsAbout returns the rows of a workload's chain about an event or a person.
func (o *Operator) RowsAbout(ctx context.Context, workload string, what url.Values) ([]audit.Row, error) {
	resp, err := o.Node.Peer(workload).Get(ctx, audit.RouteRows.Path()+"?"+what.Encode())
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
