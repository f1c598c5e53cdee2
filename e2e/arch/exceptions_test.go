package arch

// Exceptions from the measures of the house, each with what it has. They may only shrink.
var (
	tooLongFiles = map[string]int{
		"e2e/arch/arch_test.go":     766,
		"e2e/deploy/deploy_test.go": 764,
		"e2e/refusal_test.go":       602,
		"manifests/chart_test.go":   936,
	}

	tooWideFiles = map[string]int{}

	longFunctions = map[string]int{}

	manyMethods = map[string]int{
		"services/mesh.Node":         48,
		"services/riskscorer.Scorer": 38,
	}
)
