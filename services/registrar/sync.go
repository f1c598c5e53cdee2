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

// Sync makes the server's entries those of entries and alias, by their ids: it deletes what is not among them, mends what
// differs, and creates what is missing. Where all is as it should be it changes nothing.
// Without an alias, entries that give a node the name which is a parent of entries are not its own to delete.
func Sync(ctx context.Context, conn grpc.ClientConnInterface, alias *types.Entry, entries []*types.Entry) (Changes, error) {
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
	// In this order: an entry under a foreign id may be just what is to be created, and the server refuses doubles.
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

// same says whether is, which a server answered, is what was asked for: in everything that a caller decides, whatever the order
// of selectors.
func same(is, want *types.Entry) bool {
	return proto.Equal(decided(is), decided(want))
}

// decided is e without what the server adds. The order of DNS names stays: the first is the common name.
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
