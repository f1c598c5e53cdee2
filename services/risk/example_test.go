package risk_test

import (
	"fmt"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
)

// A score is made of a person's events as of a time. The older they are, the less they count.
func ExampleProfile_Score() {
	profile, err := risk.ProfileByName("lab-v1")
	if err != nil {
		fmt.Println(err)
		return
	}
	at := time.Date(2026, 10, 1, 17, 14, 0, 0, time.UTC)
	events := []activity.Event{{
		ID: "git:secret/payments/1", At: at, Person: "mira.keller", Source: activity.Git, Verb: activity.SecretCommitted,
	}}
	for _, days := range []int{0, 30} {
		score := profile.Score(risk.BackendDeveloper, events, at.AddDate(0, 0, days))
		fmt.Println(days, "days later:", score, profile.Level(score))
	}
	// Output:
	// 0 days later: 0.105 LOW
	// 30 days later: 0.005 LOW
}
