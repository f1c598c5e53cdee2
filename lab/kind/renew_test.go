package kind

import (
	"slices"
	"testing"

	"example.org/security-training/lab"
)

func TestPodsOfAnotherImageAreOutdated(t *testing.T) {
	st := lab.Status{Workloads: []lab.WorkloadStatus{
		{Name: "old", Program: "app:1"}, {Name: "new", Program: "app:2"}, {Name: "without a pod"},
	}}
	if got := otherThan("app:2", st); !slices.Equal(got, []string{"old"}) {
		t.Errorf("outdated are %v", got)
	}
}
