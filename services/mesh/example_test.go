package mesh_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/mesh/authority"
	"example.org/security-training/services/topology"
)

const exampleTopology = `
trustDomain: example.org
workloads:
- {name: shop, kind: frontend, binary: shop, port: 21001, health: 21002, serves: {GET /v1/basket: []}}
- {name: stock, kind: backend, binary: stock, port: 21003, health: 21004, serves: {GET /v1/items: [frontend]}}
`

// example is what a lab does for its workloads: it writes the topology, issues identities and tells each where it is.
type example struct {
	dir, host string
	topo      *topology.Topology
	ca        *authority.CA
}

func newExample() (*example, error) {
	dir, err := os.MkdirTemp("", "mesh-")
	if err != nil {
		return nil, err
	}
	topo, err := topology.FromYAML([]byte(exampleTopology))
	if err != nil {
		return nil, err
	}
	ca, err := authority.New(topo.Domain(), time.Now(), time.Hour)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 2)
	_, _ = rand.Read(b)                                         // never fails
	host := fmt.Sprintf("127.77.%d.%d", b[0], max(1, b[1]%250)) // an address that no other test has
	return &example{dir, host, topo, ca}, os.WriteFile(filepath.Join(dir, "topology.yaml"), []byte(exampleTopology), 0o600)
}

// config is what the workload called name joins with. In a lab its identity comes from the Workload API: Config.Socket.
func (e *example) config(name string) (mesh.Config, error) {
	svid, err := e.ca.Issue(e.topo.ID(name), time.Now(), time.Hour, nil)
	if err != nil {
		return mesh.Config{}, err
	}
	held := &mesh.Held{}
	held.Set(svid, x509bundle.NewSet(x509bundle.FromX509Authorities(e.topo.Domain(), []*x509.Certificate{e.ca.Cert})))
	return mesh.Config{
		TopologyFile: filepath.Join(e.dir, "topology.yaml"), AuditFile: filepath.Join(e.dir, name+".audit"),
		Host: e.host, Identities: held, Log: slog.New(slog.DiscardHandler),
	}, nil
}

// end takes away what the example made.
func (e *example) end() { os.RemoveAll(e.dir) }

// await waits until a workload serves.
func (e *example) await(name string) {
	row, _ := e.topo.Workload(name)
	for {
		c, err := net.Dial("tcp", net.JoinHostPort(e.host, strconv.Itoa(row.Port)))
		if err == nil {
			c.Close()
			return
		}
		<-time.After(time.Millisecond)
	}
}

// A workload joins by the name that its identity must prove. In a lab, mesh.FromEnv reads both.
func ExampleJoin() {
	e, err := newExample()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.end()
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	cfg, err := e.config("shop")
	if err != nil {
		fmt.Println(err)
		return
	}
	shop, err := mesh.Join(ctx, "shop", cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer shop.Audit().Close() // Serve does that for a workload that serves
	id, err := shop.Identity()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.SVID.ID)
	_, err = mesh.Join(ctx, "stock", cfg)
	fmt.Println("stock with the shop's identity is refused:", err != nil)
	// Output:
	// spiffe://example.org/shop
	// stock with the shop's identity is refused: true
}

// A handler answers a route that the topology lists. Who calls has been verified and admitted before.
func ExampleNode_Handle() {
	e, err := newExample()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.end()
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	nodes := map[string]*mesh.Node{}
	for _, name := range []string{"shop", "stock"} {
		cfg, err := e.config(name)
		if err != nil {
			fmt.Println(err)
			return
		}
		if nodes[name], err = mesh.Join(ctx, name, cfg); err != nil {
			fmt.Println(err)
			return
		}
	}
	nodes["stock"].Handle("GET /v1/items", func(w http.ResponseWriter, r *http.Request) error {
		return httpjson.Write(w, http.StatusOK, "items for "+mesh.Caller(r.Context()).Name)
	})
	served := make(chan error, 1)
	go func() { served <- nodes["stock"].Serve(ctx) }()
	e.await("stock")

	resp, err := nodes["shop"].Peer("stock").Get(ctx, "/v1/items")
	if err != nil {
		fmt.Println(err)
		return
	}
	var said string
	err = httpjson.ReadAnswer(resp, 1<<10, &said)
	fmt.Println(said, err)
	leave()
	fmt.Println(<-served, nodes["shop"].Audit().Close())
	// Output:
	// items for shop <nil>
	// <nil> <nil>
}
