package risk

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/activity"
)

// Work that has left the window still shows that the account was not dormant.
func TestOrdinaryWorkBeforeTheWindowStillShowsThatAnAccountWasNotDormant(t *testing.T) {
	p := MustProfile("lab-v1")
	opening := 29 * day
	events := []activity.Event{
		event(1, activity.FailedAuthentication, opening), event(2, activity.OffHoursAccess, opening-time.Hour),
		event(3, activity.UnusedPermission, opening-2*time.Hour), event(4, activity.UnusedPermission, opening-3*time.Hour),
		event(5, activity.SignIn, time.Minute), // today: an accumulator drops events by this time
	}
	if a := p.Assess("mira", SRE, events, t0); a.Pattern != "dormant-account" {
		t.Fatalf("without any work before: pattern %q, want dormant-account", a.Pattern)
	}
	for i := range 3 { // the last of them a week and a half before it came to life again
		events = append(events, event(10+i, activity.SignIn, opening+11*day+time.Duration(i)*day))
	}
	if a := p.Assess("mira", SRE, events, t0); a.Pattern != "" {
		t.Errorf("after three working days within the two weeks before: pattern %q", a.Pattern)
	}
	if want, got := p.Score(SRE, events, t0), AccumulatorOf(p, events).Score(SRE, t0); got != want {
		t.Errorf("%d by the accumulator, %d by all events", got, want)
	}
}

func TestApprovalClearsAnExportThatFollowsWithinAWeek(t *testing.T) {
	for name, c := range map[string]struct {
		export, approval time.Duration // ago; no approval if 0
		resource         string
		bytes            int64
		want             string
	}{
		"no approval":                      {3 * day, 0, "", 1 << 30, "insider"},
		"too small":                        {3 * day, 0, "", 1<<30 - 1, ""},
		"approved the day before":          {3 * day, 4 * day, "crm", 1 << 30, ""},
		"approved a week before":           {3 * day, 10 * day, "crm", 1 << 30, ""},
		"approved more than a week before": {3 * day, 10*day + 1, "crm", 1 << 30, "insider"},
		"approved at the same moment":      {3 * day, 3 * day, "crm", 1 << 30, "insider"},
		"approved afterwards":              {3 * day, 2 * day, "crm", 1 << 30, "insider"},
		"approved for something else":      {3 * day, 4 * day, "hr", 1 << 30, "insider"},
		"approved before the window":       {29 * day, 31 * day, "crm", 1 << 30, ""},
		"exported before the window":       {30 * day, 0, "", 1 << 30, ""},
	} {
		export, approval := event(1, activity.DataExport, c.export), event(2, activity.ExportApproved, c.approval)
		export.Resource, export.Bytes, approval.Resource = "crm", c.bytes, c.resource
		events := []activity.Event{event(3, activity.OffHoursAccess, 2*day), export}
		if c.approval > 0 {
			events = append(events, approval)
		}
		for _, p := range Profiles() {
			if a := p.Assess("mira", SRE, events, t0); a.Pattern != c.want {
				t.Errorf("%s, %s: pattern %q, want %q", p.Name, name, a.Pattern, c.want)
			}
		}
	}
}

func TestOnlyRiskyIAMEventsMakeACompromisedAccountUnderDecay(t *testing.T) {
	var events []activity.Event
	for i := range 4 {
		events = append(events, event(i, activity.PhishingReported, day))
	}
	for i := range 21 {
		events = append(events, event(100+i, activity.SignIn, day))
	}
	events = append(events, event(999, activity.UnusedPermission, day))
	if a := MustProfile("classic-v1").Assess("mira", SRE, events, t0); a.Pattern != "compromised" || a.Multiplier != 2e6 {
		t.Errorf("classic-v1: %q, want compromised by its letter", a.Pattern)
	}
	if a := MustProfile("decay-v1").Assess("mira", SRE, events, t0); a.Pattern != "" {
		t.Errorf("decay-v1: %q by signing in", a.Pattern)
	}
	if a := MustProfile("classic-v1").Assess("mira", SRE, append(events, event(1000, activity.Commit, day)),
		t0); a.Pattern != "" {
		t.Errorf("with a commit: %q", a.Pattern)
	}
}

// course is a sequence's steps in order, a minute apart, the first ten days ago.
func course(k kind) []activity.Event {
	var list []activity.Event
	for _, p := range k.parts {
		for range p.count {
			e := event(len(list), activity.Verb(strings.Fields(p.verbs)[0]), 10*day-time.Duration(len(list))*time.Minute)
			if p.hours == 0 {
				e.At = t0.Add(-10 * day)
			}
			e.Bytes = 1 << 30
			list = append(list, e)
		}
	}
	return list
}

func TestEachSequenceHoldsAndItsNearMissesDoNot(t *testing.T) {
	p := MustProfile("lab-v1")
	if len(p.Patterns.Sequences) != len(kinds) {
		t.Fatalf("%d sequences, %d are described", len(p.Patterns.Sequences), len(kinds))
	}
	for _, k := range kinds {
		pattern := func(events []activity.Event) string {
			a := p.Assess("mira", SRE, events, t0)
			if (a.Pattern == "") != (a.Level.Rank() < High.Rank()) {
				t.Errorf("%s: pattern %q at level %s", k.name, a.Pattern, a.Level)
			}
			return a.Pattern
		}
		whole := course(k)
		if got := pattern(whole); got != k.name {
			t.Errorf("%s: found %q", k.name, got)
		}
		if words := p.PatternWords(k.name); !strings.HasSuffix(words, ".") {
			t.Errorf("%s: words %q", k.name, words)
		}
		line := p.Assess("mira", SRE, whole, t0).Contributions
		if got := line[len(line)-1]; got.Line != PatternLine || len(got.Events) != len(whole) {
			t.Errorf("%s: its line is %+v, want the %d events behind it", k.name, got, len(whole))
		}
		for i := range whole {
			if got := pattern(slices.Delete(slices.Clone(whole), i, i+1)); got != "" {
				t.Errorf("%s without %s: found %q", k.name, whole[i].Verb, got)
			}
		}
		for i, q := range k.parts[1:] {
			late := slices.Clone(whole)
			for j := range late {
				if q.takes(late[j]) {
					late[j].At = whole[0].At.Add(time.Duration(q.hours)*time.Hour + 1)
				}
			}
			if got := pattern(late); got != "" {
				t.Errorf("%s with step %d too late: found %q", k.name, i+2, got)
			}
			early := slices.Clone(whole)
			for j := range early {
				if q.takes(early[j]) {
					early[j].At = whole[0].At.Add(-time.Minute)
				}
			}
			if got := pattern(early); got == k.name {
				t.Errorf("%s with step %d before the first: found %q", k.name, i+2, got)
			}
		}
		old := slices.Clone(whole)
		for j := range old {
			old[j].At = old[j].At.Add(-21 * day)
		}
		if got := pattern(old); got != "" {
			t.Errorf("%s over a month ago: found %q", k.name, got)
		}
		work := append(slices.Clone(whole), event(99, activity.SignIn, 12*day))
		if got := pattern(work); (got == "") != (k.quiet > 0) {
			t.Errorf("%s after a day of ordinary work: found %q", k.name, got)
		}
	}
}

func TestPatternNeedsEveryOneOfItsConditions(t *testing.T) {
	times := func(from, n int, verb activity.Verb, ago time.Duration) []activity.Event {
		var list []activity.Event
		for i := range n {
			e := event(from+i, verb, ago)
			e.Ticket, e.Bytes, e.Resource = fmt.Sprintf("SEC-%d", i), 2<<30, "crm"
			list = append(list, e)
		}
		return list
	}
	saturday := 5 * day // before Thursday, 1 October 2026
	for name, c := range map[string]struct {
		events []activity.Event
		want   string
	}{
		"compromised": {slices.Concat(times(0, 21, activity.UnusedPermission, day),
			times(50, 4, activity.PolicyViolation, day)), "compromised"},
		"with a commit": {slices.Concat(times(0, 21, activity.UnusedPermission, day),
			times(50, 4, activity.PolicyViolation, day), times(90, 1, activity.Commit, day)), ""},
		"20 events of iam": {slices.Concat(times(0, 20, activity.UnusedPermission, day),
			times(50, 4, activity.PolicyViolation, day)), ""},
		"3 events of siem": {slices.Concat(times(0, 21, activity.UnusedPermission, day),
			times(50, 3, activity.PolicyViolation, day)), ""},
		"insider": {slices.Concat(times(0, 1, activity.OffHoursAccess, 20*day),
			times(50, 1, activity.DataExport, day)), "insider"},
		"export by day": {times(50, 1, activity.DataExport, day), ""},
		"burnout": {slices.Concat(times(0, 4, activity.ForcePush, day),
			times(50, 6, activity.OverdueSecurityTicket, day), times(90, 1, activity.Commit, saturday)), "burnout"},
		"3 force pushes": {slices.Concat(times(0, 3, activity.ForcePush, day),
			times(50, 6, activity.OverdueSecurityTicket, day), times(90, 1, activity.Commit, saturday)), ""},
		"5 overdue tickets": {slices.Concat(times(0, 4, activity.ForcePush, day),
			times(50, 5, activity.OverdueSecurityTicket, day), times(90, 1, activity.Commit, saturday)), ""},
		"no weekend": {slices.Concat(times(0, 4, activity.ForcePush, day),
			times(50, 6, activity.OverdueSecurityTicket, day), times(90, 1, activity.Commit, day)), ""},
		"Saturday by another clock": {slices.Concat(times(0, 4, activity.ForcePush, day),
			times(50, 6, activity.OverdueSecurityTicket, day), inZone(times(90, 1, activity.Commit, 6*day-10*time.Hour), 6)),
			"burnout"},
	} {
		for _, profile := range []string{"classic-v1", "decay-v1"} {
			a := MustProfile(profile).Assess("mira", SRE, c.events, t0)
			if a.Pattern != c.want {
				t.Errorf("%s: %s: pattern %q, want %q", profile, name, a.Pattern, c.want)
			}
		}
	}
}

// inZone gives events an offset of so many hours.
func inZone(events []activity.Event, hours int) []activity.Event {
	for i := range events {
		events[i].At = events[i].At.In(time.FixedZone("", hours*3600))
	}
	return events
}
