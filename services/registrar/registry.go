package registrar

import (
	"context"
	"errors"
	"fmt"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// Registry manages the entries of a SPIRE server. The server answers a batch with a status for each entry; here every
// refused entry is an error.
type Registry struct{ client entryv1.EntryClient }

// RegistryOf is the registry of the server whose private API conn is connected to.
func RegistryOf(conn grpc.ClientConnInterface) Registry {
	return Registry{entryv1.NewEntryClient(conn)}
}

// List reads all entries, page by page, by their ids.
func (r Registry) List(ctx context.Context) (map[string]*types.Entry, error) {
	out := map[string]*types.Entry{}
	for token := ""; ; {
		resp, err := r.client.ListEntries(ctx, &entryv1.ListEntriesRequest{PageToken: token})
		if err != nil {
			return nil, fmt.Errorf("list entries: %w", err)
		}
		for _, e := range resp.Entries {
			out[e.Id] = e
		}
		if token = resp.NextPageToken; token == "" {
			return out, nil
		}
	}
}

// Create creates new entries.
func (r Registry) Create(ctx context.Context, entries []*types.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	resp, err := r.client.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: entries})
	if err != nil {
		return fmt.Errorf("create entries: %w", err)
	}
	return faults("create", resp.Results, func(i int) (string, *types.Status) {
		return entries[i].Id,
			resp.Results[i].Status
	})
}

// Update replaces existing entries. Each one gets a new revision, even without a difference, and its workload a new
// SVID.
func (r Registry) Update(ctx context.Context, entries []*types.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	resp, err := r.client.BatchUpdateEntry(ctx, &entryv1.BatchUpdateEntryRequest{Entries: entries})
	if err != nil {
		return fmt.Errorf("update entries: %w", err)
	}
	return faults("update", resp.Results, func(i int) (string, *types.Status) {
		return entries[i].Id,
			resp.Results[i].Status
	})
}

// Delete removes existing entries.
func (r Registry) Delete(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	resp, err := r.client.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: ids})
	if err != nil {
		return fmt.Errorf("delete entries: %w", err)
	}
	return faults("delete", resp.Results, func(i int) (string, *types.Status) { return ids[i], resp.Results[i].Status })
}

// faults joins the errors of all results, which are in the order of the request.
func faults[R any](act string, results []R, read func(i int) (string, *types.Status)) error {
	var out []error
	for i := range results {
		if id, s := read(i); codes.Code(s.GetCode()) != codes.OK {
			out = append(out, fmt.Errorf("%s entry %s: %s: %s", act, id, codes.Code(s.GetCode()), s.GetMessage()))
		}
	}
	return errors.Join(out...)
}
