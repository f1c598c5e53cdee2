package console

import (
	"testing"
	"time"

	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/postgres/audited"
)

var labNow = time.Date(2026, 10, 1, 10, 0, 0, 0, time.UTC)

func TestOfTheStaffTheFeedSaysWhichRoleSignsIn(t *testing.T) {
	for who, want := range map[site.Principal]string{
		{Role: site.RoleAdmin}:                         "an admin signs in",
		{Role: site.RoleInstructor}:                    "an instructor signs in",
		{Role: site.RolePerson, Person: "mira.keller"}: "signs in",
	} {
		if line, ok := lineOf(audited.Note("sign_in", who.Person, "", who), labNow); !ok || line.What != want ||
			line.Kind != "sign-in" {
			t.Errorf("%+v: %+v, %v", who, line, ok)
		}
	}
}
