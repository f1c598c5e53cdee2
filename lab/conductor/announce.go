package conductor

import (
	"strings"

	"example.org/security-training/lab/matrix"
	"example.org/security-training/lab/scenarios"
	"example.org/security-training/services/exercise"
)

func announce(fresh bool) (exercise.Scenarios, error) {
	told := exercise.Scenarios{Fresh: fresh, Scenarios: []exercise.Scenario{}}
	for _, name := range scenarios.Names() {
		s, err := scenarios.Load(name)
		if err != nil {
			return told, err
		}
		a := exercise.Scenario{
			Name: s.Name, Title: s.Title, Brief: strings.TrimSpace(s.Brief), Difficulty: s.Difficulty,
			Minutes: s.Minutes, Attack: s.Attack,
			Steps: len(s.Timeline) + len(s.Expect), Debrief: strings.TrimSpace(s.Debrief), Hints: []exercise.Hint{},
		}
		if a.Attack == nil {
			a.Attack = []string{}
		}
		for _, h := range s.Hints {
			a.Hints = append(a.Hints, exercise.Hint{Cost: h.Cost, Text: h.Text})
		}
		told.Scenarios = append(told.Scenarios, a)
	}
	what := map[string]string{
		matrix.Nobody:    "no certificate",
		matrix.Stranger:  "a genuine identity that no list names",
		matrix.Foreign:   "a genuine identity of another domain",
		matrix.Forged:    "the right name, signed by another CA",
		matrix.Expired:   "the right identity, too late",
		matrix.Plaintext: "no TLS",
		matrix.OldTLS:    "TLS 1.2",
	}
	for _, s := range matrix.Strangers {
		told.Strangers = append(told.Strangers, exercise.Stranger{Name: s.Name, What: what[s.Name]})
	}
	return told, nil
}
