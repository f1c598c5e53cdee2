package report

import (
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

var labNow = time.Date(2026, 10, 1, 10, 0, 0, 0, time.UTC)

func TestOnlyWhatHappenedAfterTheLessonAboutItIsARepetition(t *testing.T) {
	line := func(v activity.Verb, days int) risk.Contribution {
		return risk.Contribution{Line: risk.EventLine, Verb: v, At: labNow.AddDate(0, 0, -days)}
	}
	pass := func(module string, days int, verbs ...activity.Verb) activity.Event {
		return activity.Event{Module: module, At: labNow.AddDate(0, 0, -days), Teaches: verbs}
	}
	all := []risk.Assessment{
		{
			Person: "a",
			Contributions: []risk.Contribution{
				line(activity.SecretCommitted, 3),
				line(activity.SecretCommitted, 20),
				line(activity.PhishingClick, 1),
				{Line: risk.PatternLine, At: labNow},
			},
		},
		{
			Person:        "b",
			Contributions: []risk.Contribution{line(activity.SecretCommitted, 1), line(activity.SecretCommitted, 2)},
		},
		{Person: "c", Contributions: []risk.Contribution{line(activity.SecretCommitted, 1)}},
	}
	rows := repeatsOf(all, map[string][]activity.Event{
		"a": {pass("secret-hygiene", 10, activity.SecretCommitted)},
		"b": {
			pass("secret-hygiene", 30, activity.SecretCommitted),
			pass("keys-and-service-accounts", 9, activity.SecretCommitted),
		},
	})
	if len(rows) != 2 || rows[0].Module != words.ModuleTitle("keys-and-service-accounts") || rows[0].People != 1 ||
		rows[0].Times != 2 ||
		rows[1].Times != 1 {
		t.Errorf("%+v", rows)
	}
}
