package registrar_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/registrar"
	"example.org/security-training/services/topology"
)

// fakeSPIRE keeps entries as SPIRE's entry API does: it refuses a second entry with the same parent, name and
// selectors, and hands lists out three at a time, sorted in its own way.
type fakeSPIRE struct {
	entryv1.UnimplementedEntryServer

	mu      sync.Mutex
	entries map[string]*types.Entry
	calls   []string
	refuse  string // the id of an entry that is not taken
}

func key(e *types.Entry) string {
	var all []string
	for _, s := range e.Selectors {
		all = append(all, s.Type+":"+s.Value)
	}
	slices.Sort(all)
	return fmt.Sprint(e.SpiffeId.Path, e.ParentId.Path, all)
}

func status(c codes.Code) *types.Status { return &types.Status{Code: int32(c), Message: c.String()} }

func (f *fakeSPIRE) ListEntries(_ context.Context, req *entryv1.ListEntriesRequest) (*entryv1.ListEntriesResponse,
	error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, "list")
	resp := &entryv1.ListEntriesResponse{}
	for _, id := range slices.Sorted(maps.Keys(f.entries)) {
		if id <= req.PageToken {
			continue
		}
		if len(resp.Entries) == 3 {
			resp.NextPageToken = resp.Entries[2].Id
			break
		}
		e := proto.CloneOf(f.entries[id])
		slices.Reverse(e.Selectors)
		resp.Entries = append(resp.Entries, e)
	}
	return resp, nil
}

func (f *fakeSPIRE) BatchCreateEntry(_ context.Context,
	req *entryv1.BatchCreateEntryRequest) (*entryv1.BatchCreateEntryResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, "create")
	resp := &entryv1.BatchCreateEntryResponse{}
	for _, e := range req.Entries {
		code := codes.OK
		for _, there := range f.entries {
			if there.Id == e.Id || key(there) == key(e) {
				code = codes.AlreadyExists
			}
		}
		if e.Id == f.refuse {
			code = codes.InvalidArgument
		}
		if code == codes.OK {
			e = proto.CloneOf(e)
			e.CreatedAt = 1700000000
			f.entries[e.Id] = e
		}
		resp.Results = append(resp.Results, &entryv1.BatchCreateEntryResponse_Result{Status: status(code), Entry: e})
	}
	return resp, nil
}

func (f *fakeSPIRE) BatchUpdateEntry(_ context.Context,
	req *entryv1.BatchUpdateEntryRequest) (*entryv1.BatchUpdateEntryResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, "update")
	resp := &entryv1.BatchUpdateEntryResponse{}
	for _, e := range req.Entries {
		code := codes.NotFound
		if was, ok := f.entries[e.Id]; ok {
			e = proto.CloneOf(e)
			e.RevisionNumber = was.RevisionNumber + 1
			f.entries[e.Id], code = e, codes.OK
		}
		resp.Results = append(resp.Results, &entryv1.BatchUpdateEntryResponse_Result{Status: status(code), Entry: e})
	}
	return resp, nil
}

func (f *fakeSPIRE) BatchDeleteEntry(_ context.Context,
	req *entryv1.BatchDeleteEntryRequest) (*entryv1.BatchDeleteEntryResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, "delete")
	resp := &entryv1.BatchDeleteEntryResponse{}
	for _, id := range req.Ids {
		code := codes.NotFound
		if _, ok := f.entries[id]; ok {
			delete(f.entries, id)
			code = codes.OK
		}
		resp.Results = append(resp.Results, &entryv1.BatchDeleteEntryResponse_Result{Status: status(code), Id: id})
	}
	return resp, nil
}

// serve starts f; the way to it is a Dial.
func (f *fakeSPIRE) serve(t *testing.T) registrar.Dial {
	t.Helper()
	if f.entries == nil {
		f.entries = map[string]*types.Entry{}
	}
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	entryv1.RegisterEntryServer(s, f)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }
}

func connect(t *testing.T, f *fakeSPIRE) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///fake", grpc.WithContextDialer(f.serve(t)),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func wanted(t *testing.T) (*topology.Topology, *types.Entry, []*types.Entry) {
	t.Helper()
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	alias := registrar.Node(topo, "somewhere")
	return topo, alias, registrar.Entries(topo, alias.SpiffeId, registrar.PodSelectors("space"))
}

func ids(entries ...*types.Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Id)
	}
	slices.Sort(out)
	return out
}

func sync1(t *testing.T, conn grpc.ClientConnInterface, alias *types.Entry, entries []*types.Entry) registrar.Changes {
	t.Helper()
	c, err := registrar.Sync(t.Context(), conn, alias, entries)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (f *fakeSPIRE) state() map[string]*types.Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]*types.Entry{}
	for id, e := range f.entries {
		e = proto.CloneOf(e)
		e.CreatedAt, e.RevisionNumber = 0, 0
		out[id] = e
	}
	return out
}

func byID(entries ...*types.Entry) map[string]*types.Entry {
	out := map[string]*types.Entry{}
	for _, e := range entries {
		out[e.Id] = e
	}
	return out
}

func TestEachRowThatRunsSomethingHasOneEntryAndNobodyElse(t *testing.T) {
	topo, alias, entries := wanted(t)
	there := byID(entries...)
	for _, w := range topo.Workloads {
		e, ok := there[w.Name]
		if ok != (w.Binary != "") {
			t.Errorf("%s: entry %v, binary %q", w.Name, ok, w.Binary)
		}
		if !ok {
			continue
		}
		delete(there, w.Name)
		want := &types.Entry{
			Id: w.Name, ParentId: alias.SpiffeId, DnsNames: []string{w.Name},
			SpiffeId: &types.SPIFFEID{TrustDomain: topo.TrustDomain, Path: topo.ID(w.Name).Path()},
			Selectors: []*types.Selector{{Type: "k8s", Value: "ns:space"}, {Type: "k8s", Value: "sa:" + w.Name + "-sa"},
				{Type: "k8s", Value: "container-name:" + w.Name}},
		}
		if d := cmp.Diff(want, e, protocmp.Transform()); d != "" {
			t.Error(d)
		}
	}
	if len(there) > 0 {
		t.Errorf("entries without a row: %v", there)
	}
}

func TestAnEmptyServerIsGivenEverythingAndThenLeftAlone(t *testing.T) {
	_, alias, entries := wanted(t)
	f := &fakeSPIRE{}
	conn := connect(t, f)
	all := append(slices.Clone(entries), alias)
	if d := cmp.Diff(registrar.Changes{Created: ids(all...)}, sync1(t, conn, alias, entries)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(byID(all...), f.state(), protocmp.Transform()); d != "" {
		t.Error(d)
	}
	f.calls = nil
	if d := cmp.Diff(registrar.Changes{}, sync1(t, conn, alias, entries)); d != "" {
		t.Errorf("a second time: %s", d)
	}
	if slices.ContainsFunc(f.calls, func(c string) bool { return c != "list" }) {
		t.Errorf("a second time: %v", f.calls)
	}
}

// TestEveryFactThatDriftsIsMended changes one thing after the other that a caller decides.
func TestEveryFactThatDriftsIsMended(t *testing.T) {
	_, alias, entries := wanted(t)
	for name, edit := range map[string]func(*types.Entry){
		"name":       func(e *types.Entry) { e.SpiffeId.Path = "/lms" },
		"domain":     func(e *types.Entry) { e.SpiffeId.TrustDomain = "elsewhere.example.org" },
		"parent":     func(e *types.Entry) { e.ParentId.Path = "/other-node" },
		"selector":   func(e *types.Entry) { e.Selectors[1].Value = "sa:default" },
		"fewer":      func(e *types.Entry) { e.Selectors = e.Selectors[:1] },
		"DNS name":   func(e *types.Entry) { e.DnsNames = []string{"owner", e.Id} },
		"order":      func(e *types.Entry) { e.DnsNames = []string{e.Id, "x"} },
		"life":       func(e *types.Entry) { e.X509SvidTtl = 864000 },
		"JWT life":   func(e *types.Entry) { e.JwtSvidTtl = 864000 },
		"admin":      func(e *types.Entry) { e.Admin = true },
		"downstream": func(e *types.Entry) { e.Downstream = true },
		"federation": func(e *types.Entry) { e.FederatesWith = []string{"elsewhere.example.org"} },
		"stored":     func(e *types.Entry) { e.StoreSvid = true },
		"end":        func(e *types.Entry) { e.ExpiresAt = 1800000000 },
		"hint":       func(e *types.Entry) { e.Hint = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeSPIRE{}
			conn := connect(t, f)
			sync1(t, conn, alias, entries)
			drifted := proto.CloneOf(entries[3])
			edit(drifted)
			f.entries[drifted.Id] = drifted
			if d := cmp.Diff(registrar.Changes{Updated: []string{drifted.Id}}, sync1(t, conn, alias, entries)); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(entries[3], f.state()[drifted.Id], protocmp.Transform()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestWhateverIsNotListedIsPrunedEvenWhenItLooksTheSame(t *testing.T) {
	_, alias, entries := wanted(t)
	f := &fakeSPIRE{}
	conn := connect(t, f)
	stranger := proto.CloneOf(entries[0])
	stranger.Id, stranger.SpiffeId.Path = "made-by-hand", "/stranger"
	double := proto.CloneOf(entries[1]) // the same but for its id, so that the server would refuse ours
	double.Id = "0a1b"
	otherNode := proto.CloneOf(alias)
	otherNode.Id, otherNode.Selectors[0].Value = "other-node", "cluster:elsewhere"
	f.entries = byID(stranger, double, otherNode)
	got := sync1(t, conn, alias, entries)
	if d := cmp.Diff(ids(stranger, double, otherNode), got.Deleted); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(byID(append(slices.Clone(entries), alias)...), f.state(), protocmp.Transform()); d != "" {
		t.Error(d)
	}
}

func TestWithoutAnAliasTheNodesOwnEntriesStay(t *testing.T) {
	_, alias, entries := wanted(t)
	f := &fakeSPIRE{}
	conn := connect(t, f)
	byToken := proto.CloneOf(alias) // what a join token makes: the node's name under an id of the server's choice
	byToken.Id = "5f0c"
	stranger := proto.CloneOf(entries[0])
	stranger.Id, stranger.SpiffeId.Path = "made-by-hand", "/stranger"
	f.entries = byID(byToken, stranger)
	if d := cmp.Diff(registrar.Changes{Created: ids(entries...), Deleted: []string{stranger.Id}}, sync1(t, conn, nil,
		entries)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(byID(append(slices.Clone(entries), byToken)...), f.state(), protocmp.Transform()); d != "" {
		t.Error(d)
	}
}

func TestARefusedEntryIsAnErrorThatNamesIt(t *testing.T) {
	_, alias, entries := wanted(t)
	f := &fakeSPIRE{refuse: entries[2].Id}
	_, err := registrar.Sync(t.Context(), connect(t, f), alias, entries)
	if err == nil || !strings.Contains(err.Error(), "create entry "+entries[2].Id+": InvalidArgument") {
		t.Errorf("got %v", err)
	}
}

func TestRunTriesAgainUntilTheServerIsThere(t *testing.T) {
	topo, alias, entries := wanted(t)
	file := filepath.Join(t.TempDir(), "topology.yaml")
	if err := os.WriteFile(file, manifests.Topology(), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fakeSPIRE{}
	there := f.serve(t)
	tries := 0
	lookup := env.Map(map[string]string{
		"TOPOLOGY_FILE": file, "NAMESPACE": "space", "CLUSTER_NAME": "somewhere", "REGISTER_WITHIN": "1m",
		"SPIRE_POD": "server-0", "SPIRE_CONTAINER": "bridge", "SPIRE_SOCKET": "/api.sock", "BRIDGE": "/bin/bridge",
	})
	err := registrar.Run(t.Context(), lookup, func(at registrar.Server) registrar.Dial {
		want := registrar.Server{Namespace: "space", Pod: "server-0", Container: "bridge", Command: []string{"/bin/bridge",
			"connect", "/api.sock"}}
		if d := cmp.Diff(want, at); d != "" {
			t.Error(d)
		}
		if tries++; tries == 1 {
			return func(context.Context, string) (net.Conn, error) { return nil, errors.New("the pod is not there") }
		}
		return there
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(byID(append(slices.Clone(entries), alias)...), f.state(), protocmp.Transform()); d != "" {
		t.Error(d)
	}
	if tries != 2 || alias.SpiffeId.TrustDomain != topo.TrustDomain {
		t.Errorf("%d tries", tries)
	}
}

func TestRunGivesUpAndSaysWhy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "topology.yaml")
	if err := os.WriteFile(file, manifests.Topology(), 0o600); err != nil {
		t.Fatal(err)
	}
	lookup := env.Map(map[string]string{
		"TOPOLOGY_FILE": file, "NAMESPACE": "space", "CLUSTER_NAME": "somewhere", "REGISTER_WITHIN": "50ms",
		"SPIRE_POD": "server-0", "SPIRE_CONTAINER": "bridge", "SPIRE_SOCKET": "/api.sock", "BRIDGE": "/bin/bridge",
	})
	err := registrar.Run(t.Context(), lookup, func(registrar.Server) registrar.Dial {
		return func(context.Context, string) (net.Conn, error) { return nil, errors.New("the pod is not there") }
	})
	if err == nil || !strings.Contains(err.Error(), "the pod is not there") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
