package site

import (
	"fmt"

	"example.org/security-training/services/risk"
)

// SmallestGroup is how many people a group has before a leader sees anything about it: fewer would be individuals.
const SmallestGroup = 5

// Access says who may ask for a page.
type Access string

// Accesses. Pages about one object check the object as well.
const (
	Anyone      Access = "anyone"
	SignedIn    Access = "signed in"
	Learners    Access = "learners"    // sessions of a person
	Leaders     Access = "leaders"     // persons with reports
	Instructors Access = "instructors" // sessions of an instructor
	Admins      Access = "admins"      // instructors who may also give and take identities
)

// Viewer is who looks at a page.
type Viewer struct {
	Principal
	Name    string
	Self    *risk.Standing  // the roster's line; nil for an instructor, and while nobody knows the roster
	Reports []risk.Standing // who reports to this person, the highest score first
	Manager string          // whom this person reports to, if the roster lists them
	Peers   int             // how many report to that manager, this person among them
}

// Escalated says what it means for the viewer that their own training is escalated.
func (v *Viewer) Escalated(to risk.Escalation) string {
	words := "It is overdue by half of its interval or more. "
	if to == risk.ToSecurity {
		words = "It is overdue by its whole interval or more. "
	}
	switch {
	case v.Manager == "":
		words += "The roster lists no manager of yours, so it is an instructor who sees that."
	case v.Peers < SmallestGroup:
		words += fmt.Sprintf(
			"Your manager's page hides a team of fewer than %d, so it is an instructor who sees that.",
			SmallestGroup,
		)
	default:
		words += "Your manager's page lists it among the first."
	}
	if to == risk.ToSecurity {
		words += " To an instructor it is marked for the security team as well."
	}
	return words
}

// Instructor says whether the viewer may see everything.
func (v *Viewer) Instructor() bool { return v.Role == RoleInstructor || v.Role == RoleAdmin }

// Admin says whether the viewer may give and take identities.
func (v *Viewer) Admin() bool { return v.Role == RoleAdmin }

// Leader says whether somebody reports to the viewer.
func (v *Viewer) Leader() bool { return len(v.Reports) > 0 }

// Learner says whether the viewer has a score of their own.
func (v *Viewer) Learner() bool { return v.Role == RolePerson }

// Zone is the viewer's time zone by its name; UTC where it is not known.
func (v *Viewer) Zone() string {
	if v.Self != nil {
		return v.Self.Zone
	}
	return "UTC"
}

func (v *Viewer) may(a Access) bool {
	switch a {
	case Anyone:
		return true
	case SignedIn:
		return v != nil
	case Learners:
		return v != nil && v.Learner()
	case Leaders:
		return v != nil && v.Leader()
	case Instructors:
		return v != nil && v.Instructor()
	case Admins:
		return v != nil && v.Admin()
	}
	return false
}
