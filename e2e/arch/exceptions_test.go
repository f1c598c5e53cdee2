package arch

// Exceptions from the measures of the house, each with what it has. They may only shrink.
var (
	tooLongFiles = map[string]int{
		"e2e/arch/arch_test.go":     766,
		"e2e/deploy/deploy_test.go": 764,
		"e2e/refusal_test.go":       602,
		"lab/cluster/install.go":    629,
		"lab/local/supervisor.go":   611,
		"manifests/chart_test.go":   936,
	}

	tooWideFiles = map[string]int{}

	longFunctions = map[string]int{
		"lab/bench.All":       95,
		"lab/cmd/lab.up":      106,
		"lab/kind.Runtime.Up": 96,
	}

	manyMethods = map[string]int{
		"lab/control.Lab":            34,
		"lab/control.StateDir":       31,
		"services/mesh.Node":         48,
		"services/riskscorer.Scorer": 38,
	}
)
