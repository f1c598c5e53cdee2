package risk

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/security-training/services/activity"
)

func baseline(t *testing.T, name string) *Baseline {
	t.Helper()
	for _, b := range Baselines() {
		if b.Name == name {
			return b
		}
	}
	t.Fatalf("no baseline %s", name)
	return nil
}

func TestElasticZetaGivesThePublishedValues(t *testing.T) {
	b := baseline(t, "elastic-zeta")
	sum := b.Sum([]float64{21, 70, 21, 45, 21})
	if math.Abs(sum-36.16) > .005 {
		t.Errorf("70, 45, 21, 21, 21 give %.4f, want 36.16", sum)
	}
	if c := Criticality(36.16, 2); math.Abs(c-53.11) > .005 {
		t.Errorf("twice as critical they give %.4f, want 53.11", c)
	}
	if Criticality(100, 2) != 100 || Criticality(0, 2) != 0 {
		t.Error("criticality moves the ends")
	}
	// Two leaks and one phish of the window: (30 + 30/2^1.5 + 20/3^1.5) / 2.612.
	events := []activity.Event{event(1, activity.SecretCommitted, day), event(2, activity.SecretCommitted, 29*day),
		event(3, activity.PhishingClick, day),
		event(4, activity.SecretCommitted, 30*day), event(5, activity.Commit, day)}
	want := (30 + 30/math.Pow(2, 1.5) + 20/math.Pow(3, 1.5)) / 2.612 / 100
	if got := b.Score(events, t0); math.Abs(got.Float()-want) > 1e-12 {
		t.Errorf("score %v, want %v", got.Float(), want)
	}
	if b.Level(700_000_000_000) != High || b.Level(699_999_999_999) == High {
		t.Error("HIGH does not begin at 70")
	}
}

func TestSplunkAlertNeedsMoreThan100PointsInADayOrBreadthInAWeek(t *testing.T) {
	b := baseline(t, "splunk-rba")
	hours := func(list ...int) []activity.Event { // an event of 30 points so many hours ago each
		var events []activity.Event
		for i, h := range list {
			events = append(events, event(i, activity.MalwareDetected, time.Duration(h)*time.Hour))
		}
		return events
	}
	wide := []activity.Event{event(1, activity.ForcePush, 8*24*time.Hour), event(2, activity.OffHoursAccess, 3*day),
		event(3, activity.MalwareDetected, 4*day), event(4, activity.TrainingStale, 5*day)}
	wide[0].At = t0.Add(-6 * day)
	narrow := slices.Clone(wide)
	narrow[0].At = wide[1].At.Add(-7 * day)
	for name, c := range map[string]struct {
		events []activity.Event
		want   bool
	}{
		"120 points in 24 hours":     {hours(50, 49, 48, 27), true},
		"90 points":                  {hours(3, 2, 1), false},
		"100 points":                 {append(hours(3, 2, 1), event(9, activity.ForcePush, time.Hour)), false},
		"105 points":                 {append(hours(3, 2, 1), event(9, activity.VulnerableDependency, time.Hour)), true},
		"the fourth a day later":     {hours(50, 49, 48, 26), false},
		"before the window":          {hours(724, 723, 722, 721), false},
		"four sources, four tactics": {wide, true},
		"one of them a week before":  {narrow, false},
		"four sources, but two tactics": {[]activity.Event{event(1, activity.SecretCommitted, day),
			event(2, activity.TrainingStale, day), event(3, activity.FailedAuthentication, day),
			event(4, activity.OverdueSecurityTicket, day)}, false},
	} {
		s := b.Score(c.events, t0)
		if got := b.Level(s).Rank() >= High.Rank(); got != c.want {
			t.Errorf("%s: HIGH %v (score %v), want %v", name, got, s.Float(), c.want)
		}
	}
}

func TestBaselinesDoNotDependOnOrderOrDuplicates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := lives(t)
		mixed := slices.Concat(events, events)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 1)).Shuffle(len(mixed), func(i, j int) {
			mixed[i],
				mixed[j] = mixed[j], mixed[i]
		})
		more := append(slices.Clone(events), event(9999, activity.MalwareDetected, 2*day))
		for _, b := range Baselines() {
			s := b.Score(events, t0)
			if again := b.Score(mixed, t0); again != s || s < 0 || s > One {
				t.Fatalf("%s: %v, then %v", b.Name, s, again)
			}
			if then := b.Score(more, t0); then < s {
				t.Fatalf("%s: a risky event lowers %v to %v", b.Name, s, then)
			}
		}
	})
}

func TestFaultyBaselineReportsAllFaultsAtOnce(t *testing.T) {
	_, err := ParseBaseline([]byte("name: x\nrule: alert\nseveritiesOf: nobody\n"))
	for _, want := range []string{"nobody", "version", "levels", "points"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no fault about %s in: %v", want, err)
		}
	}
	if _, err := ParseBaseline([]byte("name: x\nunheard: 1\n")); err == nil {
		t.Error("an unknown key is accepted")
	}
}
