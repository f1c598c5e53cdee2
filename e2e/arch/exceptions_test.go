package arch

// Exceptions from the measures of the house, each with what it has. They may only shrink.
var (
	tooLongFiles = map[string]int{
		"e2e/arch/arch_test.go":     767,
		"e2e/deploy/deploy_test.go": 754,
		"e2e/refusal_test.go":       602,
		"lab/cluster/install.go":    626,
		"lab/local/supervisor.go":   611,
		"manifests/chart_test.go":   927,
	}

	tooWideFiles = map[string]int{
		"e2e/arch/arch_test.go":           1,
		"e2e/database_test.go":            2,
		"e2e/deploy/deploy_test.go":       8,
		"e2e/lifecycle_test.go":           5,
		"e2e/manager_test.go":             1,
		"e2e/printed_test.go":             4,
		"e2e/signin_test.go":              1,
		"e2e/spire_linux_test.go":         1,
		"lab/bench/bench_test.go":         4,
		"lab/bench/ingest.go":             2,
		"lab/bench/list.go":               5,
		"lab/bundle/blind.go":             1,
		"lab/bundle/bundle_test.go":       3,
		"lab/cluster/cluster.go":          1,
		"lab/cluster/install.go":          3,
		"lab/cmd/lab/bench.go":            2,
		"lab/cmd/lab/bundle.go":           1,
		"lab/cmd/lab/down.go":             1,
		"lab/cmd/lab/eval.go":             2,
		"lab/cmd/lab/link.go":             1,
		"lab/cmd/lab/people.go":           1,
		"lab/cmd/lab/rescore.go":          2,
		"lab/cmd/lab/scenario.go":         2,
		"lab/cmd/lab/up.go":               3,
		"lab/cmd/lab/verbs.go":            12,
		"lab/conductor/conductor_test.go": 1,
		"lab/eval/eval_test.go":           5,
		"lab/kind/images_test.go":         1,
		"lab/kind/kind.go":                1,
		"lab/local/devdir_test.go":        2,
		"lab/local/fetch.go":              1,
		"lab/local/provider_test.go":      1,
		"lab/local/spire.go":              2,
		"lab/matrix/write.go":             4,
		"lab/workloadapi/workloadapi.go":  1,
		"manifests/chart_test.go":         9,
		"manifests/policy_test.go":        1,
		"services/lms/lms.go":             1,
		"services/lms/outbox_test.go":     1,
		"services/lms/pages_test.go":      1,
		"services/lms/results_test.go":    1,
		"services/lms/site/site.go":       1,
		"services/mesh/busy_test.go":      1,
		"services/postgres/tip_test.go":   1,
	}

	longFunctions = map[string]int{
		"lab/cmd/lab.up":      106,
		"lab/kind.Runtime.Up": 95,
	}

	manyMethods = map[string]int{
		"lab/control.Lab":            34,
		"lab/control.StateDir":       31,
		"services/mesh.Node":         48,
		"services/riskscorer.Scorer": 38,
	}
)
