package routine

import (
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/synth/people"
)

var update = flag.Bool("update", false, "rewrite golden files")

// standings scores a company at the end of history from what people did or what vendors have on record, as the risk
// scorer would.
func standings(staff []people.Person, acts []Act, profile string) []risk.Standing {
	p := risk.MustProfile(profile)
	events := map[string][]activity.Event{}
	for _, a := range acts {
		events[a.Person] = append(events[a.Person], a.Event())
	}
	list := make([]risk.Standing, len(staff))
	for i, person := range staff {
		s := p.Score(person.Role, events[person.ID], risk.Epoch)
		list[i] = risk.Standing{Person: person.Person, At: risk.Epoch, Score: s, Level: p.Level(s)}
	}
	return list
}

func deviation(list []risk.Standing) float64 {
	var sum, square float64
	for _, s := range list {
		sum += s.Score.Float()
		square += s.Score.Float() * s.Score.Float()
	}
	n := float64(len(list))
	return math.Sqrt(square/n - sum*sum/n/n)
}

// The published tables: people and mean score per role.
var published = map[risk.Role]struct {
	people int
	mean   float64
}{
	risk.BackendDeveloper: {12, .55}, risk.FrontendDeveloper: {8, .53}, risk.DevOpsEngineer: {8, .71},
	risk.DevSecOpsEngineer:    {4, .25},
	risk.CloudSecurityAnalyst: {3, .20}, risk.DataAnalyst: {6, .45}, risk.DataEngineer: {6, .68}, risk.SRE: {3, .67},
}

func TestStandardCompanyComesOutLikeThePublishedTables(t *testing.T) {
	staff := people.Company(42, 50, people.Published)
	list := standings(staff, Recorded(42, Month(staff, 30)), "decay-v1")
	o := risk.MustProfile("decay-v1").Organise(list, risk.Epoch)
	within := func(what string, got, want, by float64) {
		t.Helper()
		t.Logf("%-30s %.3f (want %.3f ± %.3f)", what, got, want, by)
		if math.Abs(got-want) > by {
			t.Errorf("%s is %.3f, want %.3f ± %.3f", what, got, want, by)
		}
	}
	for _, r := range o.Roles {
		if r.People != published[r.Role].people {
			t.Errorf("%d people are %s, want %d", r.People, r.Role, published[r.Role].people)
		}
		within(string(r.Role), r.Mean.Float(), published[r.Role].mean, .05)
	}
	within("R_org", o.Score.Float(), .647, .05)
	within("mean R", o.Mean.Float(), .56, .04)
	within("max R", o.Max.Float(), .85, .05)
	within("standard deviation", deviation(list), .17, .04)
	within("people at HIGH or above", float64(o.Levels.High+o.Levels.Critical), 25, 5)
	within("people at CRITICAL", float64(o.Levels.Critical), 6, 3)
	if o.Level != risk.High {
		t.Errorf("the organisation is %s, want HIGH", o.Level)
	}
	for i, s := range list {
		if *update {
			t.Logf("%-26s %-24s %-20s %-8s %v", s.ID, s.Role, staff[i].Story, staff[i].Label, s.Score)
		}
	}
}

func TestOtherSeedsComeOutAlike(t *testing.T) {
	var scores, highest []float64
	roles := map[risk.Role]float64{}
	for seed := uint64(100); seed < 120; seed++ {
		staff := people.Company(seed, 50, people.Published)
		o := risk.MustProfile("decay-v1").Organise(standings(staff, Recorded(seed, Month(staff, 30)), "decay-v1"), risk.Epoch)
		scores = append(scores, o.Score.Float())
		for _, r := range o.Roles {
			roles[r.Role] += r.Mean.Float() / 20
		}
		highest = append(highest, o.Max.Float())
	}
	mean := 0.0
	for _, s := range scores {
		mean += s / float64(len(scores))
	}
	for _, r := range risk.Roles {
		t.Logf("%-24s %.3f (want %.3f ± 0.050)", r, roles[r], published[r].mean)
		if math.Abs(roles[r]-published[r].mean) > .05 {
			t.Errorf("mean of %s over 20 seeds is %.3f, want %.3f ± 0.05", r, roles[r], published[r].mean)
		}
	}
	t.Logf("highest scores from %.3f to %.3f", slices.Min(highest), slices.Max(highest))
	t.Logf("mean R_org of 20 seeds %.3f, from %.3f to %.3f", mean, slices.Min(scores), slices.Max(scores))
	if math.Abs(mean-.647) > .05 {
		t.Errorf("mean R_org of 20 seeds is %.3f, want 0.647 ± 0.05", mean)
	}
}

func TestSparseCompanyIsMostlyLowAndMedium(t *testing.T) {
	staff := people.Company(42, 500, people.Sparse)
	count, stories, near := map[risk.Level]int{}, 0, 0
	for i, s := range standings(staff, Recorded(42, Month(staff, 30)), "decay-v1") {
		count[s.Level]++
		switch p := staff[i]; {
		case p.Story == "":
		case p.Near == people.NearMiss:
			near++
		default:
			stories++
		}
	}
	t.Logf("levels %v, storylines %d, near misses %d", count, stories, near)
	if stories != 20 {
		t.Errorf("%d of 500 carry a storyline, want 4 %%", stories)
	}
	if near == 0 {
		t.Error("no near misses")
	}
	if count[risk.Low]+count[risk.Medium] < 450 || count[risk.Low] < count[risk.Medium] {
		t.Errorf("levels %v: want an ordinary company, mostly LOW", count)
	}
}

func digest(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

func TestSameSeedGivesTheSameDigest(t *testing.T) {
	var lines strings.Builder
	for _, seed := range []uint64{0, 42} {
		for _, mix := range []people.Mix{people.Published, people.Sparse} {
			staff := people.Company(seed, 50, mix)
			acts := Month(append(staff, people.Contractors(seed, 50)...), 30)
			fmt.Fprintf(&lines, "%s seed %d: people %s acts %s recorded %s\n", mix, seed, digest(t, people.Roster(staff)),
				digest(t, acts), digest(t, Recorded(seed, acts)))
		}
	}
	file := filepath.Join("testdata", "digest.golden")
	if *update {
		if err := os.WriteFile(file, []byte(lines.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), lines.String()); d != "" {
		t.Errorf("differs from %s; if people or routine were changed on purpose, run with -update:\n%s", file, d)
	}
}

func TestOutcomeDoesNotDependOnProcessors(t *testing.T) {
	staff := people.Company(7, 60, people.Published)
	both := func() string {
		acts := Month(staff, 30)
		return digest(t, []any{acts, Recorded(7, acts), Losses(7, staff, acts, 30)})
	}
	many := both()
	old := runtime.GOMAXPROCS(1)
	one := both()
	runtime.GOMAXPROCS(old + 3)
	more := both()
	runtime.GOMAXPROCS(old)
	if many != one || many != more {
		t.Error("the acts differ with GOMAXPROCS")
	}
}

func TestAnotherPersonChangesNobodyElse(t *testing.T) {
	for _, mix := range []people.Mix{people.Published, people.Sparse} {
		few, more := people.Company(42, 49, mix), people.Company(42, 230, mix)
		if d := cmp.Diff(few, more[:49]); d != "" {
			t.Fatalf("people differ:\n%s", d)
		}
		known := map[string]bool{}
		for _, p := range few {
			known[p.ID] = true
		}
		theirs := func(acts []Act) string {
			return digest(t, slices.DeleteFunc(acts, func(a Act) bool { return !known[a.Person] }))
		}
		if digest(t, Month(few, 30)) != theirs(Month(more, 30)) {
			t.Error("acts differ")
		}
		if digest(t, Recorded(42, Month(few, 30))) != theirs(Recorded(42, Month(more, 30))) {
			t.Error("what vendors have on record of them differs")
		}
	}
}

func TestHistoryAndDaysHaveEveryActOnce(t *testing.T) {
	staff := people.Company(42, 50, people.Published)
	seen := map[string]bool{}
	check := func(acts []Act, from, to time.Time) {
		t.Helper()
		for i, a := range acts {
			if seen[a.ID] {
				t.Fatalf("act %s happens twice", a.ID)
			}
			seen[a.ID] = true
			if !a.At.After(from) || a.At.After(to) {
				t.Fatalf("act at %v, outside (%v, %v]", a.At, from, to)
			}
			if i > 0 && a.At.Before(acts[i-1].At) {
				t.Fatal("not in order")
			}
			if err := a.Event().Validate(); err != nil {
				t.Fatal(err)
			}
		}
	}
	history := Month(staff, 30)
	check(history, risk.Epoch.AddDate(0, 0, -30), risk.Epoch)
	for d := range 10 {
		day := Day(staff, d)
		check(day, risk.Epoch.AddDate(0, 0, d), risk.Epoch.AddDate(0, 0, d+1))
		if len(day) < 50 && d != 1 && d != 2 { // a weekend is two days of these
			t.Logf("day %d has %d acts", d, len(day))
		}
	}
	t.Logf("%d acts of history", len(history))
	if n := len(history); n < 4000 || n > 20000 {
		t.Errorf("%d acts of 50 people in 30 days", n)
	}
	short := Month(staff, 7)
	long := slices.DeleteFunc(slices.Clone(history), func(a Act) bool { return !a.At.After(risk.Epoch.AddDate(0, 0, -7)) })
	if d := cmp.Diff(long, short); d != "" {
		t.Errorf("the last week of a month is not the week:\n%s", d)
	}
}

func TestOnlyTheirStorylineGivesPeopleAPattern(t *testing.T) {
	wants := map[people.Story]string{people.Compromised: "compromised", people.Insider: "insider",
		people.Burnout: "burnout"}
	for _, mix := range []people.Mix{people.Published, people.Sparse} {
		staff := people.Company(42, 200, mix)
		events := map[string][]activity.Event{}
		for _, a := range Month(staff, 30) {
			events[a.Person] = append(events[a.Person], a.Event())
		}
		for _, p := range staff {
			want := wants[p.Story]
			if p.Near == people.NearMiss {
				want = ""
			}
			a := risk.MustProfile("decay-v1").Assess(p.ID, p.Role, events[p.ID], risk.Epoch)
			if a.Pattern != want {
				t.Errorf("%s: %s (%s, near miss %v) has the pattern %q, want %q", mix, p.ID, p.Story, p.Near, a.Pattern, want)
			}
		}
	}
}

func TestWhoeverIsMeantToBeHighCarriesAStoryline(t *testing.T) {
	for _, mix := range []people.Mix{people.Published, people.Sparse} {
		for _, p := range people.Company(42, 200, mix) {
			real := p.Story != "" && p.Near == people.Real
			if high := p.Label.Rank() >= risk.High.Rank(); high != real {
				t.Errorf("%s: %s is labelled %s with storyline %q", mix, p.ID, p.Label, p.Story)
			}
			if err := p.Person.Validate(); err != nil {
				t.Error(err)
			}
			if text, _ := json.Marshal(p); strings.Contains(string(text), "tory") || strings.Contains(string(text), "abel") {
				t.Fatalf("the answer key leaks into the roster: %s", text)
			}
		}
	}
}

func TestRhythmFollowsTheWeekAndTheDeadline(t *testing.T) {
	staff := people.Company(42, 400, people.Sparse)
	var perDay [31]float64 // of commits, by days before the epoch
	weekend, night, routine := 0, 0, 0
	for _, a := range Month(staff, 30) {
		switch a.Verb {
		case activity.Commit, activity.SignIn, activity.ReviewSubmitted, activity.TicketUpdated:
		default:
			if a.Verb == activity.OffHoursAccess && a.At.Hour() >= 7 && a.At.Hour() < 20 {
				t.Errorf("off-hours access at %v", a.At)
			}
			continue
		}
		routine++
		if d := a.At.Weekday(); d == time.Saturday || d == time.Sunday {
			weekend++
		} else if a.Verb == activity.Commit {
			perDay[int(risk.Epoch.Truncate(24*time.Hour).Sub(a.At.Truncate(24*time.Hour)).Hours()/24)]++
		}
		if a.At.Hour() < 7 || a.At.Hour() >= 20 {
			night++
		}
	}
	week := func(from, to int) float64 { // mean of the working days in phase [from, to) of the 30 days
		sum, n := 0.0, 0.0
		for phase := from; phase < to; phase++ {
			if c := perDay[30-phase]; c > 0 {
				sum, n = sum+c, n+1
			}
		}
		return sum / n
	}
	base := (week(2, 7) + week(7, 14)) / 2
	if r := week(14, 21) / base; math.Abs(r-3) > .3 {
		t.Errorf("week 3 has %.2f times the base rate, want 3", r)
	}
	if r := week(21, 28) / base; math.Abs(r-.8) > .12 {
		t.Errorf("week 4 has %.2f times the base rate, want 0.8", r)
	}
	if share := float64(weekend) / float64(routine); share > .04 || weekend == 0 {
		t.Errorf("%.3f of the work is done on weekends, want a few people's", share)
	}
	if night > 0 {
		t.Errorf("%d acts of ordinary work at night", night)
	}
}

func BenchmarkMonth(b *testing.B) {
	staff := people.Company(42, 50, people.Published)
	for b.Loop() {
		Month(staff, 30)
	}
}
