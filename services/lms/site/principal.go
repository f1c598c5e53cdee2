package site

import (
	"slices"
	"strings"
)

// Roles of a session. Whether a person is a manager is not a role: the roster tells.
const (
	RolePerson     = "person"
	RoleInstructor = "instructor"
	RoleAdmin      = "admin" // an instructor who may also withdraw and restore identities
)

// Principal is the user that a sign-in link or a session belongs to.
type Principal struct {
	Role        string `json:"role"`
	Person      string `json:"person,omitempty"`
	Via         string `json:"via,omitempty"`         // how the user signed in; empty: by a link
	Certificate string `json:"certificate,omitempty"` // serial number in hex; the session needs it

	// Subject and verified email address by an OpenID provider. They tell instructors apart, who have no person.
	Subject string `json:"subject,omitempty"`
	Email   string `json:"email,omitempty"`
}

// Words describe a principal in one line: "instructor, anna@example.org, 42, provider id.example.org".
func (p Principal) Words() string {
	certificate := ""
	if p.Certificate != "" {
		certificate = "serial number " + p.Certificate
	}
	return strings.Join(
		slices.DeleteFunc(
			[]string{p.Role, p.Person, p.Email, p.Subject, p.Via, certificate},
			func(s string) bool { return s == "" },
		),
		", ",
	)
}
