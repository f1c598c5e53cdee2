package registrar

import (
	"cmp"
	"context"
	"slices"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// Changes are the ids of the entries that Sync created, updated and deleted, sorted.
type Changes struct{ Created, Updated, Deleted []string }

// Sync makes the server's entries equal to entries and alias, by their ids: it deletes others, updates those that
// differ, and creates missing ones. If nothing differs, it changes nothing. Without an alias, it does not delete node
// aliases that are the parent of entries.
func Sync(
	ctx context.Context, conn grpc.ClientConnInterface, alias *types.Entry, entries []*types.Entry,
) (Changes, error) {
	registry := RegistryOf(conn)
	there, err := registry.List(ctx)
	if err != nil {
		return Changes{}, err
	}
	wanted := slices.Clone(entries)
	parents := map[string]bool{}
	if alias != nil {
		wanted = append(wanted, alias)
	} else {
		for _, e := range entries {
			parents[idOf(e.ParentId)] = true
		}
	}
	var (
		c              Changes
		create, update []*types.Entry
	)
	known := map[string]bool{}
	for _, want := range wanted {
		known[want.Id] = true
		switch is, ok := there[want.Id]; {
		case !ok:
			create = append(create, want)
			c.Created = append(c.Created, want.Id)
		case !same(is, want):
			update = append(update, want)
			c.Updated = append(c.Updated, want.Id)
		}
	}
	for id, e := range there {
		if !known[id] && !parents[idOf(e.SpiffeId)] {
			c.Deleted = append(c.Deleted, id)
		}
	}
	for _, ids := range [][]string{c.Created, c.Updated, c.Deleted} {
		slices.Sort(ids)
	}
	// Deletion comes first: an entry with another id may equal one to be created, and the server refuses duplicates.
	if err := registry.Delete(ctx, c.Deleted); err != nil {
		return Changes{}, err
	}
	if err := registry.Update(ctx, update); err != nil {
		return Changes{}, err
	}
	if err := registry.Create(ctx, create); err != nil {
		return Changes{}, err
	}
	return c, nil
}

// same says whether is, from the server, equals want in everything that a caller sets, regardless of the order of
// selectors.
func same(is, want *types.Entry) bool {
	return proto.Equal(decided(is), decided(want))
}

// decided is e without what the server adds. The order of DNS names stays, since the first is the common name.
func decided(e *types.Entry) *types.Entry {
	c := proto.CloneOf(e)
	c.RevisionNumber, c.CreatedAt = 0, 0
	slices.SortFunc(c.Selectors, func(a, b *types.Selector) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Value, b.Value))
	})
	slices.Sort(c.FederatesWith)
	return c
}

func idOf(id *types.SPIFFEID) string { return id.GetTrustDomain() + id.GetPath() }
