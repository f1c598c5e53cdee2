package lesson

import (
	"embed"
	"fmt"
	"sync"

	"sigs.k8s.io/yaml"

	"example.org/security-training/services/risk"
)

//go:embed builtin/*.yaml
var builtin embed.FS

// catalogue holds one lesson for each module of risk.Modules. The lessons are compiled in and tested, so a faulty one
// is a bug.
var catalogue = sync.OnceValue(func() map[string]Content {
	all := map[string]Content{}
	for _, m := range risk.Modules {
		c, err := readBuiltIn(m.ID)
		if err != nil {
			panic(err)
		}
		all[m.ID] = c
	}
	return all
})

func readBuiltIn(module string) (Content, error) {
	text, err := builtin.ReadFile("builtin/" + module + ".yaml")
	if err != nil {
		return Content{}, fmt.Errorf("read built-in lesson: %w", err)
	}
	var c Content
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return Content{}, fmt.Errorf("read built-in lesson %s: %w", module, err)
	}
	if err := c.Validate(); err != nil {
		return Content{}, fmt.Errorf("read built-in lesson %s: %w", module, err)
	}
	return c, nil
}

// BuiltIn is a copy of the built-in lesson for a module; for an unknown module it is that of the first of risk.Modules.
// It is always in English.
func BuiltIn(module string) Lesson {
	c, ok := catalogue()[module]
	if !ok {
		module = risk.Modules[0].ID
		c = catalogue()[module]
	}
	// Clean copies, and changes nothing: Validate saw to it
	return Lesson{Module: module, Content: c.Clean(), Origin: Authored}
}
