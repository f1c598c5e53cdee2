package riskview

import (
	"time"

	"example.org/security-training/services/lms/words"
	"example.org/security-training/services/risk"
)

// Due is when the next training is due.
type Due struct {
	At        time.Time
	Words     string
	Late      bool
	State     string // planned, due, overdue or escalated
	To        string // to whom it is escalated
	Frequency risk.Frequency
	Level     risk.Level
}

// escalatedTo says in words to whom a training is escalated, of somebody with this manager. An escalation is what pages
// say of a training; nobody is sent anything.
func escalatedTo(e risk.Escalation, manager string) string {
	switch {
	case e == risk.ToManager && manager == "":
		return "nobody, since there is no manager"
	case e == risk.ToManager:
		return "the manager"
	case e == risk.ToSecurity && manager == "":
		return "the security team, since there is no manager"
	case e == risk.ToSecurity:
		return "the manager and the security team"
	}
	return ""
}

// DueOf is when the training of somebody with this manager is due; the manager is empty where there is none.
func DueOf(a risk.Assessment, manager string, loc *time.Location) Due {
	d := Due{At: a.Due.In(loc), Frequency: a.Frequency, Level: a.Level, To: escalatedTo(a.Escalation, manager)}
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

// DueOfStanding is dueOf from the list of people.
func DueOfStanding(s risk.Standing, loc *time.Location) Due {
	return DueOf(
		risk.Assessment{At: s.At, Due: s.Due, Frequency: s.Frequency, Level: s.Level, Escalation: s.Escalation},
		s.Manager,
		loc,
	)
}

// standing of a training against the lab's clock.
const (
	DuePlanned   = "planned"   // more than a week away
	DueSoon      = "due"       // within a week
	DueOverdue   = "overdue"   // past
	DueEscalated = "escalated" // past by so much that it is others' matter, too
)

// dueState says how pressing a training is that is so far away, negative for overdue, and of which the scorer says who
// is told.
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
