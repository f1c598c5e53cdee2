package scenario_test

import (
	"fmt"

	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/scenario"
)

// A scenario is one file. What is wrong with it is said all at once, with the lines.
func ExampleLoad() {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := scenario.Load("one-commit", []byte(`title: One commit
teaches: [secret-hygiene]
attack: [T1552.001]
difficulty: 1
minutes: 5
seed: 7
cast: {mira: {role: sre}}
brief: Mira commits a key.
hints: [{cost: 10, text: Look at the commit.}]
timeline:
- {at: 10h00m, who: mira, source: git, record: {secret: aws_access_key, repository: payments, path: main.go}}
expect:
- {at: 10h01m, who: mira, level: LOW}
debrief: One leak alone changes little.
`), scenario.Place{Topology: topo})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, step := range s.Timeline {
		fmt.Println(step.At, step.Who, step.Source)
	}
	// Output:
	// 10h mira git
}
