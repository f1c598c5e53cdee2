package risk

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/security-training/services/activity"
)

// Events arrive in any order, some ahead of the clock, some late by weeks, some in floods, while the clock goes on: after each,
// the book scores exactly as all that has arrived does, under every profile.
func TestBookScoresExactlyAsAllThatHasArrived(t *testing.T) {
	anew, ahead, flooded := 0, 0, 0
	profiles := Profiles()
	check := func(t *rapid.T) {
		events, role := lives(t), anyRole.Draw(t, "role")
		for i := range rapid.SampledFrom([]int{0, 0, FloodLimit + 30}).Draw(t, "flood") {
			e := event(100_000+(i*7919)%1000, activity.FailedAuthentication, 58*day-time.Duration((i*7)%3000)*time.Second) // so old that they do not fill the source up
			events = append(events, e)
		}
		order := rapid.Permutation(events).Draw(t, "order")
		if rapid.Bool().Draw(t, "in order") {
			slices.SortStableFunc(order, inTime)
		}
		at := t0.Add(-40 * day)
		b := NewBook(profiles...)
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
				anew++
				b = BookOf(profiles, arrived, at)
			}
			if i%5 != 0 && i != len(order)-1 {
				continue
			}
			got, ok := b.Scores(role, at)
			if !ok {
				anew++
				b = BookOf(profiles, arrived, at)
				if got, ok = b.Scores(role, at); !ok {
					t.Fatal("a book that was just made has to be made anew")
				}
			}
			counted := Counted(arrived)
			if len(counted) < len(arrived) {
				flooded++
			}
			for j, p := range profiles {
				if want := p.Score(role, counted, at); got[j] != want {
					t.Fatalf("%s after %d events: %d by the book, %d by all of them", p.Name, i+1, got[j], want)
				}
			}
		}
	}
	rapid.Check(t, check)
	if anew == 0 || ahead == 0 || flooded == 0 {
		t.Errorf("%d books were made anew, %d events lay ahead, %d times a flood did not count: want some of each", anew, ahead, flooded)
	}
}

// What is made anew is rare: an event on time never is the cause.
func TestBookOfEventsOnTimeIsNeverMadeAnew(t *testing.T) {
	b, p := NewBook(MustProfile(Default)), MustProfile(Default)
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
			t.Fatalf("event %d, %s, has the book made anew", i, e.Verb)
		}
		if i%500 == 499 {
			if got, ok := b.Scores(SRE, at); !ok || got[0] != p.Score(SRE, Counted(all), at) {
				t.Fatalf("after %d: %v %v", i, got, ok)
			}
		}
	}
	if n := len(b.hours); n > 5*2*(64+72) {
		t.Errorf("%d hours are remembered", n)
	}
}

func TestOfOneMomentOfAFloodTheLowerIDsCount(t *testing.T) {
	var events []activity.Event
	for n := range FloodLimit + 2 {
		e := event(n, activity.PolicyViolation, day)
		e.ID = fmt.Sprintf("siem:%04d", FloodLimit+1-n)
		events = append(events, e)
	}
	for _, e := range Counted(events) {
		if e.ID >= fmt.Sprintf("siem:%04d", FloodLimit) {
			t.Errorf("%s counts", e.ID)
		}
	}
	if n := len(Counted(events)); n != FloodLimit {
		t.Errorf("%d count", n)
	}
}
