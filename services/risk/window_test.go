package risk

import (
	"testing"
	"time"

	"example.org/security-training/services/activity"
)

// An event counts from its own moment on until it is as old as the window: of (τ − window, τ]. Each place that looks at
// the window has its edge at the same moment.
func TestTheWindowEndsAtExactlyThirtyDays(t *testing.T) {
	p := MustProfile("classic-v1")
	if time.Duration(p.Window) != 30*day || p.HalfLife != 0 {
		t.Fatalf("window %v, half-life %v", time.Duration(p.Window), time.Duration(p.HalfLife))
	}
	for _, c := range []struct {
		name string
		age  time.Duration
		in   bool
	}{
		{"of this moment", 0, true},
		{"a nanosecond inside", 30*day - 1, true},
		{"exactly as old as the window", 30 * day, false},
		{"a nanosecond outside", 30*day + 1, false},
	} {
		want := Score(0)
		if c.in {
			want = Score(60_000_000_000) // 0.30 · 0.20
		}
		events := []activity.Event{event(1, activity.SecretCommitted, c.age)}
		if got := p.Score(SRE, events, t0); got != want {
			t.Errorf("%s: score %d, want %d", c.name, got, want)
		}
		if got := AccumulatorOf(p, events).Score(SRE, t0); got != want {
			t.Errorf("%s: score of the accumulator %d, want %d", c.name, got, want)
		}
		if got := p.Scores(SRE, events, []time.Time{t0})[0]; got != want {
			t.Errorf("%s: score of many times %d, want %d", c.name, got, want)
		}
		a := p.Assess("mira", SRE, events, t0)
		if counts := len(a.Contributions) > 0 && a.Contributions[0].Part > 0; a.Score != want || counts != c.in {
			t.Errorf("%s: assessed as %d with %+v, want %d", c.name, a.Score, a.Contributions, want)
		}
		// A pattern that hangs on this one event, and one that it prevents.
		for _, profile := range []string{"classic-v1", "decay-v1"} {
			export := event(2, activity.DataExport, c.age)
			export.Resource, export.Bytes = "crm", 1<<30
			found := MustProfile(profile).
				Assess("mira", SRE, []activity.Event{event(3, activity.OffHoursAccess, day), export}, t0).Pattern
			if (found == "insider") != c.in {
				t.Errorf("%s, %s: an export is found as %q", profile, c.name, found)
			}
			var account []activity.Event
			for i := range 21 {
				account = append(account, event(100+i, activity.UnusedPermission, day))
			}
			for i := range 4 {
				account = append(account, event(200+i, activity.PolicyViolation, day))
			}
			account = append(account, event(300, activity.Commit, c.age))
			if found := MustProfile(profile).Assess("mira", SRE, account, t0).Pattern; (found == "") != c.in {
				t.Errorf("%s, %s: an account with one commit is found as %q", profile, c.name, found)
			}
		}
	}
}
