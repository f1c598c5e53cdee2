package words

import (
	"testing"

	"example.org/security-training/services/risk"
)

func TestALearnerIsToldWhoSeesAnEscalation(t *testing.T) {
	const smallest = 5
	half, whole := "It is overdue by half of its interval or more. ", "It is overdue by its whole interval or more. "
	for _, c := range []struct {
		manager string
		peers   int
		to      risk.Escalation
		want    string
	}{
		{"vera.holm", 7, risk.ToManager, half + "Your manager's page lists it among the first."},
		{"otto.lang", 2, risk.ToManager, half +
			"Your manager's page hides a team of fewer than 5, so it is an instructor who sees that."},
		{"", 0, risk.ToManager, half +
			"The roster lists no manager of yours, so it is an instructor who sees that."},
		{"vera.holm", 7, risk.ToSecurity, whole + "Your manager's page lists it among the first. " +
			"To an instructor it is marked for the security team as well."},
	} {
		if got := EscalatedForLearner(c.to, c.manager, c.peers, smallest); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestAnEscalationNamesTheSameRecipientsToEveryReader(t *testing.T) {
	for _, c := range []struct {
		to                      risk.Escalation
		all, leaderless, leader string
	}{
		{risk.ToNobody, "", "", ""},
		{risk.ToPerson, "", "", ""},
		{risk.ToManager, "the manager", "no one, since there is no manager", "you"},
		{
			risk.ToSecurity, "the manager and the security team", "the security team, since there is no manager",
			"you and the security team",
		},
	} {
		if got := EscalatedTo(c.to, "vera.holm"); got != c.all {
			t.Errorf("%s with a manager: %q, want %q", c.to, got, c.all)
		}
		if got := EscalatedTo(c.to, ""); got != c.leaderless {
			t.Errorf("%s without a manager: %q, want %q", c.to, got, c.leaderless)
		}
		if got := EscalatedToLeader(c.to); got != c.leader {
			t.Errorf("%s for the leader: %q, want %q", c.to, got, c.leader)
		}
	}
}
