package riskview

import (
	"testing"
	"time"

	"example.org/security-training/services/risk"
)

var labNow = time.Date(2026, 10, 1, 10, 0, 0, 0, time.UTC)

func TestATrainingIsPlannedThenDueThenOverdueThenEscalated(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		left      time.Duration
		to        risk.Escalation
		want      string
		escalated string
	}{
		{30 * day, risk.ToNoOne, DuePlanned, ""},
		{7*day + 1, risk.ToNoOne, DuePlanned, ""},
		{7 * day, risk.ToNoOne, DueSoon, ""},
		{0, risk.ToPerson, DueSoon, ""},
		{-1, risk.ToPerson, DueOverdue, ""},
		{-20 * day, risk.ToPerson, DueOverdue, ""},
		{-45 * day, risk.ToManager, DueEscalated, "the manager"},
		{-2 * day, risk.ToSecurity, DueEscalated, "the manager and the security team"},
	} {
		d := DueOf(risk.Assessment{At: labNow, Due: labNow.Add(c.left), Escalation: c.to}, "vera.holm", time.UTC)
		if d.State != c.want || d.Late != (c.left < 0) || d.To != c.escalated {
			t.Errorf("%v before it, escalated to %q: %+v", c.left, c.to, d)
		}
	}
}
