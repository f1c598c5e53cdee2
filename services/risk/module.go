package risk

import (
	_ "embed"

	"sigs.k8s.io/yaml"

	"example.org/security-training/services/activity"
)

// Module is a training module.
type Module struct {
	ID      string          `json:"id"`
	Title   string          `json:"title"`
	Teaches []activity.Verb `json:"teaches"` // the verbs whose weight a pass reduces
}

//go:embed modules.yaml
var moduleFile []byte

// Modules is the catalogue; every verb with a severity is taught by at least one.
var Modules = mustModules()

func mustModules() []Module {
	var all []Module
	if err := yaml.UnmarshalStrict(moduleFile, &all); err != nil {
		panic(err)
	}
	return all
}

// ModuleByID finds a module of the catalogue.
func ModuleByID(id string) (Module, bool) {
	for _, m := range Modules {
		if m.ID == id {
			return m, true
		}
	}
	return Module{}, false
}

// ModulesFor lists the modules that teach a verb, those that teach the fewest verbs first.
func ModulesFor(v activity.Verb) []Module {
	var found []Module
	for n := 1; n <= 8; n++ {
		for _, m := range Modules {
			if len(m.Teaches) != n {
				continue
			}
			for _, t := range m.Teaches {
				if t == v {
					found = append(found, m)
				}
			}
		}
	}
	return found
}
