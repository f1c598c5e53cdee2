package risk

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/security-training/services/activity"
)

// Events come in the order of time or out of it: at each step the accumulator scores exactly as all events do.
func TestAccumulatorScoresExactlyAsTheWholeHistory(t *testing.T) {
	rebuilt := 0
	check := func(t *rapid.T) {
		events, role := lives(t), anyRole.Draw(t, "role")
		events = slices.DeleteFunc(events, func(e activity.Event) bool { return e.At.After(t0) })
		seen := map[string]bool{}
		mixed := slices.DeleteFunc(slices.Clone(events),
			func(e activity.Event) bool { twice := seen[e.ID]; seen[e.ID] = true; return twice })
		if rapid.Bool().Draw(t, "in order") {
			slices.SortStableFunc(mixed, func(a, b activity.Event) int { return a.At.Compare(b.At) })
		} else {
			rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 1)).Shuffle(len(mixed), func(i, j int) {
				mixed[i],
					mixed[j] = mixed[j], mixed[i]
			})
		}
		for _, p := range Profiles() {
			l := NewAccumulator(p)
			for i, e := range mixed {
				if !l.Add(e) {
					rebuilt++
					l = AccumulatorOf(p, mixed[:i+1])
				}
				at := l.newest
				if i == len(mixed)-1 {
					at = t0
				} else if i%7 != 0 {
					continue
				}
				if want, got := p.Score(role, mixed[:i+1], at), l.Score(role, at); got != want {
					t.Fatalf("%s after %d events: %d by the accumulator, %d by all of them", p.Name, i+1, got, want)
				}
			}
		}
	}
	for range 5 {
		rapid.Check(t, check)
	}
	if rebuilt == 0 {
		t.Error("no pass came late enough for an accumulator to be rebuilt")
	}
}

// Scores at midnights that the caller passes do not change when training is due, for any number of them.
func TestDueIsTheSameWithAndWithoutKnownScores(t *testing.T) {
	walked := 0
	rapid.Check(t, func(t *rapid.T) {
		events, role := lives(t), anyRole.Draw(t, "role")
		seen := map[string]bool{}
		events = slices.DeleteFunc(
			events,
			func(e activity.Event) bool { twice := seen[e.ID]; seen[e.ID] = true; return twice },
		)
		at := t0.Add(-time.Duration(rapid.IntRange(0, 72).Draw(t, "hours ago")) * time.Hour)
		for _, p := range Profiles() {
			level := p.Level(p.Score(role, events, at))
			want, _ := p.Due(role, events, level, at)
			var known []Point
			for i := range rapid.IntRange(1, 60).Draw(t, "known") {
				midnight := at.UTC().Truncate(day).Add(-time.Duration(i) * day)
				known = append(known, Point{At: midnight, Score: p.Score(role, events, midnight)})
			}
			slices.Reverse(known)
			if got, _ := p.Due(role, events, level, at, known...); !got.Equal(want) {
				t.Fatalf("%s, %s: due %s with %d known scores, %s without", p.Name, level, got, len(known), want)
			}
			if level != Low {
				walked++
			}
		}
	})
	if walked == 0 {
		t.Error("every level was LOW")
	}
}

func TestLateAndRepeatedPassesActOnWhatWasBeforeThem(t *testing.T) {
	p := MustProfile(Default)
	pass := func(id int, module string, ago time.Duration) activity.Event {
		m, _ := ModuleByID(module)
		e := event(id, activity.TrainingPassed, ago)
		e.Module, e.Teaches = m.ID, m.Teaches
		return e
	}
	events := []activity.Event{
		event(1, activity.SecretCommitted, 9*day), pass(2, "secret-hygiene", 8*day), event(3, activity.SecretCommitted,
			7*day), pass(4, "keys-and-service-accounts", 6*day),
		event(5, activity.SecretCommitted, 5*day), pass(6, "secret-hygiene", 4*day), event(7, activity.SecretCommitted,
			8*day), event(8, activity.SecretCommitted, 4*day),
	}
	l := NewAccumulator(p)
	for i, e := range events {
		if !l.Add(e) {
			t.Fatalf("event %d needs the whole history", i)
		}
		if want, got := p.Score(SRE, events[:i+1], t0), l.Score(SRE, t0); got != want {
			t.Fatalf("after event %d: %d, want %d", i, got, want)
		}
	}
	late := pass(9, "secret-hygiene", 4*day-time.Second)
	if !l.Add(late) {
		t.Error("a pass after everything needs the whole history")
	}
	if l.Add(pass(10, "keys-and-service-accounts", 5*day)) {
		t.Error("a pass between two events that are summed up together is taken")
	}
}

// BenchmarkAccumulator shows what one more event costs, score included, by the length of the history before it.
func BenchmarkAccumulator(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := NewAccumulator(MustProfile(Default))
			for i := range n { // a year and more, 100 of them in the window
				ago := time.Duration(n-i) * 400 * day / time.Duration(n)
				if n-i <= 100 {
					ago = time.Duration(n-i) * 6 * time.Hour
				}
				e := event(i, allVerbs[i%19], ago+40*day)
				if n-i <= 100 {
					e.At = e.At.Add(40 * day)
				}
				e.Module, e.Ticket = "phishing", fmt.Sprintf("SEC-%d", i%10)
				if (weightedEvent{event: &e}).state() {
					e.Verb, e.Source = activity.PolicyViolation, activity.SIEM
				}
				l.Add(e)
			}
			at, i := t0, n
			for b.Loop() {
				i++
				at = at.Add(6 * time.Hour)
				e := event(i, activity.PolicyViolation, 0)
				e.At = at
				l.Add(e)
				l.Score(SRE, at)
			}
		})
	}
}

// Going through the events once gives what scoring all of them at each time does.
func TestScoresAtManyTimesAreThoseAtEach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var events []activity.Event
		seen := map[string]bool{}
		for _, e := range lives(t) {
			if !seen[e.ID] {
				seen[e.ID] = true
				events = append(events, e)
			}
		}
		role := anyRole.Draw(t, "role")
		var times []time.Time
		for i := range 40 {
			times = append(times, t0.Add(time.Duration(i-39)*day))
		}
		for _, p := range Profiles() {
			for i, got := range p.Scores(role, events, times) {
				if want := p.Score(role, events, times[i]); got != want {
					t.Fatalf("%s at %s: %d, want %d", p.Name, times[i], got, want)
				}
			}
		}
	})
}
