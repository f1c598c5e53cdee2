package site

import (
	"slices"
	"strings"
)

// Roles of a session. Whether a person is a manager is the roster's to say.
const (
	RolePerson     = "person"
	RoleInstructor = "instructor"
	RoleAdmin      = "admin" // an instructor who may also give and take identities
)

// Principal is who a link or a session stands for.
type Principal struct {
	Role        string `json:"role"`
	Person      string `json:"person,omitempty"`
	Via         string `json:"via,omitempty"`         // how it was proven, where not by a link
	Certificate string `json:"certificate,omitempty"` // serial number, hex: the session is good with it alone

	// Whom a provider of identities signed in, for roles that are nobody's own: its name for them, and an address that it
	// has verified.
	Subject string `json:"subject,omitempty"`
	Email   string `json:"email,omitempty"`
}

// Words name a principal in a line: "instructor, anna@example.org, 42, provider id.example.org".
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
