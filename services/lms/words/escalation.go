package words

import (
	"fmt"

	"example.org/security-training/services/risk"
)

// What pages say about an overdue training that is escalated. An escalation only marks the training on pages: the lab
// sends no messages.

// LateBy says how late a training is when it is escalated to the manager or to the security team, as
// risk.Frequency.Escalate decides it.
func LateBy(to risk.Escalation) string {
	if to == risk.ToSecurity {
		return "the whole interval, and by at least two days"
	}
	return "half of the interval, and by at least one day"
}

// EscalatedTo names those to whom a training is escalated, for an instructor. The manager is an id, empty if the roster
// lists none. It is empty for a training that is not escalated.
func EscalatedTo(to risk.Escalation, manager string) string {
	switch {
	case to == risk.ToManager && manager == "":
		return "no one, since there is no manager"
	case to == risk.ToManager:
		return "the manager"
	case to == risk.ToSecurity && manager == "":
		return "the security team, since there is no manager"
	case to == risk.ToSecurity:
		return "the manager and the security team"
	}
	return ""
}

// EscalatedToLeader names those to whom a report's training is escalated, for the leader.
func EscalatedToLeader(to risk.Escalation) string {
	switch to {
	case risk.ToManager:
		return "you"
	case risk.ToSecurity:
		return "you and the security team"
	}
	return ""
}

// EscalatedForLearner tells learners what the escalation of their own training means. The manager is an id, empty if
// the roster lists none; peers is how many people report to that manager, and smallest the least that the team's page
// shows.
func EscalatedForLearner(to risk.Escalation, manager string, peers, smallest int) string {
	text := "It is overdue by " + LateBy(to) + ". "
	switch {
	case manager == "":
		text += "The roster lists no manager of yours, so it is an instructor who sees that."
	case peers < smallest:
		text += fmt.Sprintf(
			"Your manager's page hides a team of fewer than %d, so it is an instructor who sees that.", smallest,
		)
	default:
		text += "Your manager's page lists it among the first."
	}
	if to == risk.ToSecurity {
		text += " To an instructor it is marked for the security team as well."
	}
	return text
}
