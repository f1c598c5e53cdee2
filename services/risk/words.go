package risk

import (
	"fmt"
	"strings"

	"example.org/security-training/services/activity"
)

// Words says in plain English that a verb happened count times, without a subject: "committed 2 secrets"; "git: review
// submitted" for a verb whose row has no words, since it carries no risk.
func Words(v activity.Verb, count int) string {
	row, _ := v.Words()
	if row.Once == "" {
		row.Once = strings.NewReplacer(".", ": ", "_", " ").Replace(string(v))
		row.Often = row.Once + " ×%d"
	}
	if count == 1 {
		return row.Once
	}
	return fmt.Sprintf(row.Often, count)
}
