package risk

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/security-training/services/activity"
)

// Events arrive in any order while the clock goes on: some ahead of it, some weeks late, some over the hourly cap.
// After each of them, the state scores exactly as all events that have arrived, under every profile.
func TestPersonStateScoresExactlyAsAllEventsThatHaveArrived(t *testing.T) {
	rebuilt, ahead, overCap := 0, 0, 0
	profiles := Profiles()
	check := func(t *rapid.T) {
		events, role := lives(t), anyRole.Draw(t, "role")
		for i := range rapid.SampledFrom([]int{0, 0, HourlyCap + 30}).Draw(t, "flood") {
			// Old enough that they do not exclude other events.
			e := event(100_000+(i*7919)%1000, activity.FailedAuthentication, 58*day-time.Duration((i*7)%3000)*time.Second)
			events = append(events, e)
		}
		order := rapid.Permutation(events).Draw(t, "order")
		if rapid.Bool().Draw(t, "in order") {
			slices.SortStableFunc(order, byTimeValue)
		}
		at := t0.Add(-40 * day)
		b := NewPersonState(profiles...)
		var arrived []activity.Event
		for i, e := range order {
			arrived = append(arrived, e)
			if e.At.After(at) && rapid.IntRange(0, 3).Draw(t, "clock") > 0 {
				at = e.At.Add(time.Duration(rapid.IntRange(0, 100_000).Draw(t, "on")) * time.Second)
			}
			if e.At.After(at) {
				ahead++
			}
			if !b.Add(e, at) {
				rebuilt++
				b = PersonStateOf(profiles, arrived, at)
			}
			if i%5 != 0 && i != len(order)-1 {
				continue
			}
			got, ok := b.Scores(role, at)
			if !ok {
				rebuilt++
				b = PersonStateOf(profiles, arrived, at)
				if got, ok = b.Scores(role, at); !ok {
					t.Fatal("a state that was just built has to be rebuilt")
				}
			}
			capped := Capped(arrived)
			if len(capped) < len(arrived) {
				overCap++
			}
			for j, p := range profiles {
				if want := p.Score(role, capped, at); got[j] != want {
					t.Fatalf("%s after %d events: %d by the state, %d by all events", p.Name, i+1, got[j], want)
				}
			}
		}
	}
	rapid.Check(t, check)
	if rebuilt == 0 || ahead == 0 || overCap == 0 {
		t.Errorf(
			"%d states were rebuilt, %d events were ahead, %d times the cap applied: want some of each",
			rebuilt,
			ahead,
			overCap,
		)
	}
}

// Rebuilding is rare: an event on time never causes it.
func TestPersonStateOfPunctualEventsIsNeverRebuilt(t *testing.T) {
	b, p := NewPersonState(MustProfile(Default)), MustProfile(Default)
	var all []activity.Event
	for i := range 5_000 {
		at := t0.Add(time.Duration(i) * 11 * time.Minute)
		e := event(i, allVerbs[i%len(allVerbs)], 0)
		e.At, e.Module, e.Ticket = at.Add(-time.Duration(i%7)*time.Hour), "phishing", "SEC-1"
		if e.Verb == activity.TrainingPassed {
			e.At = at
			e.Teaches = []activity.Verb{activity.PhishingClick}
		}
		if e.Verb == activity.PhishingClick {
			e.At = at
		}
		all = append(all, e)
		if !b.Add(e, at) {
			t.Fatalf("event %d, %s, causes a rebuild", i, e.Verb)
		}
		if i%500 == 499 {
			if got, ok := b.Scores(SRE, at); !ok || got[0] != p.Score(SRE, Capped(all), at) {
				t.Fatalf("after %d: %v %v", i, got, ok)
			}
		}
	}
	if n := len(b.hours); n > 5*2*(64+72) {
		t.Errorf("%d hours are kept", n)
	}
}

func TestOfEventsAtOneTimeTheLowerIDsCountUnderTheCap(t *testing.T) {
	var events []activity.Event
	for n := range HourlyCap + 2 {
		e := event(n, activity.PolicyViolation, day)
		e.ID = fmt.Sprintf("siem:%04d", HourlyCap+1-n)
		events = append(events, e)
	}
	for _, e := range Capped(events) {
		if e.ID >= fmt.Sprintf("siem:%04d", HourlyCap) {
			t.Errorf("%s counts", e.ID)
		}
	}
	if n := len(Capped(events)); n != HourlyCap {
		t.Errorf("%d count", n)
	}
}
