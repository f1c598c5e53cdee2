package site

import "example.org/security-training/services/risk"

// SmallestGroup is the least number of people in a group whose figures are shown. In a smaller one the figures would
// tell about individuals.
const SmallestGroup = 5

// Access says who may request a page.
type Access string

// Access levels. A page about one object checks access to the object as well.
const (
	Anyone      Access = "anyone"
	SignedIn    Access = "signed in"
	Learners    Access = "learners"    // sessions of a person
	Leaders     Access = "leaders"     // persons who have reports
	Instructors Access = "instructors" // sessions of an instructor
	Admins      Access = "admins"      // instructors who may also withdraw and restore identities
)

// Viewer is the user who requested a page.
type Viewer struct {
	Principal
	Name    string
	Self    *risk.Standing  // the viewer's line of the roster; nil for an instructor, and while the roster is unknown
	Reports []risk.Standing // the people who report to the viewer, the highest score first
	Manager string          // id of the viewer's manager; empty if the roster lists none
	Peers   int             // how many people report to that manager, the viewer included
}

// Instructor reports whether the viewer may see every page.
func (v *Viewer) Instructor() bool { return v.Role == RoleInstructor || v.Role == RoleAdmin }

// Admin reports whether the viewer may withdraw and restore identities.
func (v *Viewer) Admin() bool { return v.Role == RoleAdmin }

// Leader reports whether the viewer has reports.
func (v *Viewer) Leader() bool { return len(v.Reports) > 0 }

// Learner reports whether the viewer is a person with a score.
func (v *Viewer) Learner() bool { return v.Role == RolePerson }

// Zone is the name of the viewer's time zone; UTC if it is unknown.
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
