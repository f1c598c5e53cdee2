package riskview

import (
	"time"

	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// Due is when a person's next training is due.
type Due struct {
	At        time.Time
	Words     string
	Late      bool
	State     string // DuePlanned, DueSoon, DueOverdue or DueEscalated
	To        string // to whom it is escalated, in words
	Frequency risk.Frequency
	Level     risk.Level
}

// DueOf is the due date in an assessment, with times in loc. The manager is the id of the person's manager, if any.
func DueOf(a risk.Assessment, manager string, loc *time.Location) Due {
	d := Due{At: a.Due.In(loc), Frequency: a.Frequency, Level: a.Level, To: words.EscalatedTo(a.Escalation, manager)}
	d.State = dueState(a.Due.Sub(a.At), a.Escalation)
	switch left := a.Due.Sub(a.At); {
	case left < 0:
		d.Late, d.Words = true, words.Span(-left)+" overdue"
	case left < 24*time.Hour:
		d.Words = "within a day"
	default:
		d.Words = "in " + words.Span(left)
	}
	return d
}

// DueOfStanding is DueOf for a line of the roster.
func DueOfStanding(s risk.Standing, loc *time.Location) Due {
	return DueOf(
		risk.Assessment{At: s.At, Due: s.Due, Frequency: s.Frequency, Level: s.Level, Escalation: s.Escalation},
		s.Manager,
		loc,
	)
}

// States of a training by the lab's clock.
const (
	DuePlanned   = "planned"   // due in more than a week
	DueSoon      = "due"       // due within a week
	DueOverdue   = "overdue"   // past due
	DueEscalated = "escalated" // past due for so long that it is escalated
)

// dueState is the state of a training that is due after left, which is negative if it is overdue.
func dueState(left time.Duration, to risk.Escalation) string {
	switch {
	case to.Rank() >= risk.ToManager.Rank():
		return DueEscalated
	case left < 0:
		return DueOverdue
	case left <= 7*24*time.Hour:
		return DueSoon
	}
	return DuePlanned
}
