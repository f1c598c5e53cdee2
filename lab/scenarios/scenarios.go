// Package scenarios holds the exercises that come with the lab, one YAML file each.
package scenarios

import (
	"embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	"example.org/security-training/manifests"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/nearest"
	"example.org/security-training/synth/scenario"
)

//go:embed *.yaml
var files embed.FS

// Names lists the scenarios, sorted.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // the folder is embedded at build time
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}

// Text returns the file of the scenario called name.
func Text(name string) ([]byte, error) {
	if !slices.Contains(Names(), name) {
		known := Names()
		return nil, fmt.Errorf(
			"find scenario %q%s: there are %s", name, nearest.Hint(name, known), strings.Join(known, ", "),
		)
	}
	text, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("read scenario %s: %w", name, err)
	}
	return text, nil
}

// Load reads the scenario called name, for the lab as it is shipped.
func Load(name string) (*scenario.Scenario, error) {
	text, err := Text(name)
	if err != nil {
		return nil, err
	}
	return scenario.Load(name, text, Shipped())
}

// Shipped is the lab as it is shipped. Scenarios are checked against it where no lab is up.
var Shipped = sync.OnceValue(func() scenario.Place {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		panic(err) // it is embedded at build time
	}
	return PlaceOf(topo)
})

// PlaceOf returns the place of a lab whose topology is topo.
func PlaceOf(topo *topology.Topology) scenario.Place {
	there := scenario.Place{Topology: topo}
	for _, r := range mesh.Reasons {
		there.Reasons = append(there.Reasons, string(r))
	}
	return there
}
