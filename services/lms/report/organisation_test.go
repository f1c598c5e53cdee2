package report

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"example.org/security-training/services/risk"
)

func TestATrainingEscalatedToTheSecurityTeamIsToTheManagerToo(t *testing.T) {
	var people []risk.Standing
	for _, to := range []risk.Escalation{risk.ToNoOne, risk.ToPerson, risk.ToSecurity, risk.ToManager, risk.ToSecurity} {
		who := risk.Person{ID: fmt.Sprint(len(people)), Manager: "0"}
		people = append(
			people,
			risk.Standing{Person: who, Escalation: to, Due: labNow.Add(-time.Duration(len(people)) * time.Hour)},
		)
	}
	rows, n := overdueOf(people)
	if n != (overdueCounts{All: 4, Manager: 3, Security: 2}) {
		t.Errorf("%+v", n)
	}
	people[3].Manager, people[4].Manager = "", "who.has.left"
	alone, m := overdueOf(people)
	if m != (overdueCounts{All: 4, Manager: 1, Alone: 2, Security: 2}) {
		t.Errorf("of two whom the roster gives no manager: %+v", m)
	}
	for i, want := range []string{
		"the security team, since there is no manager", "the manager and the security team",
		"no one, since there is no manager", "",
	} {
		if alone[i].Due.To != want {
			t.Errorf("%s is escalated to %q, want %q", alone[i].ID, alone[i].Due.To, want)
		}
	}
	var order []risk.Escalation
	for _, r := range rows {
		order = append(order, r.Escalation)
	}
	want := []risk.Escalation{risk.ToSecurity, risk.ToSecurity, risk.ToManager, risk.ToPerson}
	if !slices.Equal(order, want) || rows[0].Standing.Due.After(rows[1].Standing.Due) {
		t.Errorf("the order is %v", order)
	}
}
