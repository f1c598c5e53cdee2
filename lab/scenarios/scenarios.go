// Package scenarios holds the exercises that come with the lab: one YAML file each, read by people and by tests.
package scenarios

import (
	"embed"
	"fmt"
	"slices"
	"strings"

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

// Load reads one of Names.
func Load(name string) (*scenario.Scenario, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("find scenario %q: there are %s", name, strings.Join(Names(), ", "))
	}
	text, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("read scenario %s: %w", name, err)
	}
	return scenario.Load(name, text)
}
