package topology_test

import (
	"fmt"

	"example.org/security-training/services/topology"
)

// Who may call what is read of a file, and asked for by the names of both sides.
func ExampleTopology_Decide() {
	topo, err := topology.FromYAML([]byte(`
trustDomain: example.org
workloads:
- {name: shop, kind: frontend, binary: shop, port: 9001, health: 9002, serves: {GET /v1/basket: []}}
- {name: stock, kind: backend, binary: stock, port: 9003, health: 9004, serves: {
    GET /v1/items: [frontend], DELETE /v1/items: []}}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(topo.Decide("shop", "stock", "GET /v1/items"))
	fmt.Println(topo.Decide("shop", "stock", "DELETE /v1/items"))
	fmt.Println(topo.Decide("stock", "shop", "GET /v1/basket"))
	// Output:
	// Allowed
	// Forbidden
	// Refused
}
