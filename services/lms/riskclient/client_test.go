package riskclient

import (
	"slices"
	"testing"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

func TestCausesAreSummedOverPeopleAndTheLargestIsFirst(t *testing.T) {
	reason := func(v activity.Verb, count int, part int64) risk.Reason {
		return risk.Reason{Verb: v, Count: count, Part: part}
	}
	got := causesOf([]risk.Assessment{
		{Reasons: []risk.Reason{reason(activity.SecretCommitted, 1, 300), reason(activity.PhishingClick, 2, 200)}},
		{}, // a person who has left
		{Reasons: []risk.Reason{reason(activity.PhishingClick, 3, 400), reason(activity.ForcePush, 1, 300)}},
	})
	want := []Cause{
		{Verb: activity.PhishingClick, People: 2, Count: 5, Part: 600},
		{Verb: activity.ForcePush, People: 1, Count: 1, Part: 300},
		{Verb: activity.SecretCommitted, People: 1, Count: 1, Part: 300},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
