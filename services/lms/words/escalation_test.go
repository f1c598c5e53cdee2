package words

import (
	"regexp"
	"testing"
	"time"

	"example.org/security-training/services/risk"
)

func TestALearnerIsToldWhoSeesAnEscalation(t *testing.T) {
	const smallest = 5
	half := "It is overdue by half of the interval, and by at least one day. "
	whole := "It is overdue by the whole interval, and by at least two days. "
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

// TestWhatIsSaidOfLatenessIsWhatIsDecided compares the words with the decision, for intervals shorter and longer than
// the least time.
func TestWhatIsSaidOfLatenessIsWhatIsDecided(t *testing.T) {
	const day = 24 * time.Hour
	said := map[risk.Escalation]func(interval time.Duration) time.Duration{}
	for to, text := range map[risk.Escalation]string{
		risk.ToManager: LateBy(risk.ToManager), risk.ToSecurity: LateBy(risk.ToSecurity),
	} {
		parts := regexp.MustCompile(`^(half of|the whole) (?:the )?interval, and by at least (one|two) days?$`).
			FindStringSubmatch(text)
		if parts == nil {
			t.Fatalf("%s: %q is not understood", to, text)
		}
		share, least := parts[1], parts[2]
		said[to] = func(interval time.Duration) time.Duration {
			if share == "half of" {
				interval /= 2
			}
			return max(interval, map[string]time.Duration{"one": day, "two": 2 * day}[least])
		}
	}
	due := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	for _, f := range []risk.Frequency{risk.Immediate, risk.Weekly, risk.Monthly, risk.Quarterly} {
		interval := time.Duration(f.Days()) * day
		for to, late := range said {
			at := due.Add(late(interval))
			if got := f.Escalate(due, at); got != to {
				t.Errorf("%s, late by what is said of %s: %s", f, to, got)
			}
			if got := f.Escalate(due, at.Add(-time.Nanosecond)); got.Rank() != to.Rank()-1 {
				t.Errorf("%s, a moment less than what is said of %s: %s", f, to, got)
			}
		}
	}
}

func TestAnEscalationNamesTheSameRecipientsToEveryReader(t *testing.T) {
	for _, c := range []struct {
		to                      risk.Escalation
		all, leaderless, leader string
	}{
		{risk.ToNoOne, "", "", ""},
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
