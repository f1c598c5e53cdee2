package risk

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.org/security-training/services/activity"
)

var (
	t0  = time.Date(2026, 10, 1, 10, 0, 0, 0, time.UTC)
	day = 24 * time.Hour
)

func event(id int, verb activity.Verb, ago time.Duration) activity.Event {
	return activity.Event{ID: fmt.Sprintf("%s:%d", verb.Source(), id), At: t0.Add(-ago), Person: "mira",
		Source: verb.Source(), Verb: verb}
}

// published is the tables of the model, typed from the paper and not read from the profile.
var published = struct {
	weights    map[Role][4]float64
	severities map[activity.Verb]float64
}{
	weights: map[Role][4]float64{
		"backend_developer": {.35, .25, .20, .20}, "frontend_developer": {.30, .20, .25, .25},
		"devops_engineer": {.25, .40, .15, .20}, "devsecops_engineer": {.25, .30, .25, .20},
		"cloud_security_analyst": {.20, .30, .30, .20}, "data_analyst": {.15, .35, .20, .30},
		"data_engineer": {.20, .45, .15, .20}, "sre": {.20, .40, .20, .20}, "juggler": {.25, .30, .25, .20},
	},
	severities: map[activity.Verb]float64{
		"git.secret_committed": .30, "git.vulnerable_dependency": .15, "git.force_push": .10, "git.unreviewed_commit": .05,
		"git.large_file":           .05,
		"iam.privilege_escalation": .25, "iam.service_account_key": .20, "iam.off_hours_access": .15,
		"iam.cross_account_access": .15, "iam.unused_permission": .10,
		"siem.malware_detected": .30, "siem.data_exfiltration": .25, "siem.phishing_click": .20,
		"siem.failed_authentication": .10, "siem.policy_violation": .10,
		"training.stale": .30, "training.overdue_module": .20, "training.failed_assessment": .15,
		"jira.overdue_security_ticket": .10,
	},
}

func TestProfilesHoldThePublishedTables(t *testing.T) {
	for _, p := range Profiles() { // the project's own profile keeps the tables, and may add to them
		name := p.Name
		for role, want := range published.weights {
			w := p.weights(role)
			if got := [4]float64{w.Git.Float(), w.IAM.Float(), w.SIEM.Float(), w.Training.Float()}; got != want {
				t.Errorf("%s: weights of %s are %v, want %v", name, role, got, want)
			}
		}
		got := map[activity.Verb]float64{}
		for v, a := range p.Severities {
			if _, known := published.severities[v]; known || name != Default {
				got[v] = a.Float()
			}
		}
		if d := cmp.Diff(published.severities, got); d != "" {
			t.Errorf("%s: severities differ (-published +profile):\n%s", name, d)
		}
	}
}

func TestEachVerbAloneWeighsItsSeverityTimesItsWeight(t *testing.T) {
	sources := []activity.Source{activity.Git, activity.IAM, activity.SIEM, activity.Training}
	for _, p := range Profiles() {
		for role, weights := range published.weights {
			for verb, alpha := range published.severities {
				i := slices.Index(sources, verb.Source())
				if verb.Source() == activity.Jira {
					i = 3
				}
				want := Score(math.Round(alpha * weights[i] * 1e12))
				if got := p.Score(role, []activity.Event{event(1, verb, 0)}, t0); got != want {
					t.Errorf("%s: %s of a %s scores %d, want %d", p.Name, verb, role, got, want)
				}
			}
		}
	}
}

func TestLevelsBeginAtTheirBounds(t *testing.T) {
	p := MustProfile(Default)
	for s, want := range map[Score]Level{
		0: Low, 299_999_999_999: Low, 300_000_000_000: Medium, 599_999_999_999: Medium, 600_000_000_000: High,
		799_999_999_999: High, 800_000_000_000: Critical, One: Critical,
	} {
		if got := p.Level(s); got != want {
			t.Errorf("level of %d is %s, want %s", s, got, want)
		}
	}
	for l, want := range map[Level]Frequency{Low: Quarterly, Medium: Monthly, High: Weekly, Critical: Immediate} {
		if got := l.Frequency(); got != want {
			t.Errorf("frequency at %s is %s, want %s", l, got, want)
		}
	}
}

func TestOrganisationFollowsTheFormula(t *testing.T) {
	p := MustProfile(Default)
	var people []Standing
	for i, s := range []Score{100_000_000_000, 500_000_000_000, 600_000_000_000, 900_000_000_000} {
		people = append(people, Standing{Person: Person{Role: Roles[i/2]}, Score: s})
	}
	o := p.Organise(people, t0)
	// 0.4 · 0.525 + 0.3 · 0.9 + 0.3 · 2/4
	if want := Score(630_000_000_000); o.Score != want || o.Level != High {
		t.Errorf("score %d %s, want %d HIGH", o.Score, o.Level, want)
	}
	if want := (LevelCounts{Low: 1, Medium: 1, High: 1, Critical: 1}); o.Levels != want {
		t.Errorf("levels %+v, want %+v", o.Levels, want)
	}
	if o.Roles[0].Role != FrontendDeveloper || o.Roles[0].Mean != 750_000_000_000 {
		t.Errorf("roles %+v: want frontend at 0.75 first", o.Roles)
	}
	for s, want := range map[Score]Level{299_999_999_999: Low, 300_000_000_000: Medium, 500_000_000_000: High,
		700_000_000_000: Critical} {
		if got := p.Company.Levels.level(s); got != want {
			t.Errorf("organisation's level of %d is %s, want %s", s, got, want)
		}
	}
	if empty := p.Organise(nil, t0); empty.Score != 0 || empty.Level != Low {
		t.Errorf("without people: %+v", empty)
	}
}

func TestModulesCoverEveryRiskyVerb(t *testing.T) {
	ids := map[string]bool{}
	for _, m := range Modules {
		if ids[m.ID] || m.Title == "" || len(m.Teaches) == 0 {
			t.Errorf("module %+v: id twice, or no title or subject", m)
		}
		ids[m.ID] = true
		for _, v := range m.Teaches {
			if published.severities[v] == 0 {
				t.Errorf("module %s teaches %s, which carries no risk", m.ID, v)
			}
		}
	}
	for v := range published.severities {
		if len(ModulesFor(v)) == 0 {
			t.Errorf("no module teaches %s", v)
		}
		if row, _ := v.Words(); row.Once == "" || !strings.Contains(row.Often, "%d") {
			t.Errorf("no words for %s", v)
		}
	}
}

func TestFaultyProfileReportsAllFaultsAtOnce(t *testing.T) {
	_, err := ParseProfile([]byte("name: x\nversion: 1\nwindow: 720h\n" +
		"otherwise: {git: 0.5, iam: 0.1, siem: 0.1, training: 0.1}\nseverities: {git.oops: 2}\n"))
	if err == nil {
		t.Fatal("a profile full of faults is accepted")
	}
	for _, want := range []string{"no row for sre", "sum to 0.8", "git.oops", "iamCounts", "levels"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not mention %q:\n%v", want, err)
		}
	}
	if _, err := ParseProfile([]byte("name: x\nunheard: 1\n")); err == nil {
		t.Error("an unknown key is accepted")
	}
}

func TestWeightHalvesInSevenDays(t *testing.T) {
	life := 7 * day
	if got := halve(7*day, life); math.Abs(float64(got)/float64(one)-0.5) > 1e-12 {
		t.Errorf("weight after 7 days is %v", float64(got)/float64(one))
	}
	if halve(0, life) != one {
		t.Error("weight at age 0 is not 1")
	}
	rapid.Check(t, func(t *rapid.T) {
		age := time.Duration(rapid.Int64Range(0, int64(400*day)).Draw(t, "age"))
		want := math.Exp2(-float64(age) / float64(life))
		if got := float64(halve(age, life)) / float64(one); math.Abs(got-want) > 1e-14 {
			t.Fatalf("halve(%v) = %v, want %v", age, got, want)
		}
		if halve(age+1, life) > halve(age, life) {
			t.Fatalf("weight rises after %v", age)
		}
	})
}

func TestScoreDoesNotDependOnOrderOrDuplicates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events, role := lives(t), anyRole.Draw(t, "role")
		mixed := slices.Concat(events, events)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 1)).Shuffle(len(mixed), func(i, j int) {
			mixed[i],
				mixed[j] = mixed[j], mixed[i]
		})
		for _, p := range Profiles() {
			if d := cmp.Diff(p.Assess("mira", role, events, t0), p.Assess("mira", role, mixed, t0)); d != "" {
				t.Fatalf("%s differs:\n%s", p.Name, d)
			}
		}
	})
}

// A careless person whose key is stolen is told of the theft, too.
func TestAPatternIsToldWhenTheEventsAloneComeToMoreThanItsFloor(t *testing.T) {
	p := MustProfile("lab-v1")
	for _, k := range kinds {
		events := append(course(k), event(999, activity.Commit, 25*day))
		for i := range 600 {
			for j, v := range []activity.Verb{activity.ForcePush, activity.UnusedPermission, activity.PolicyViolation,
				activity.FailedAssessment} {
				events = append(events, event(1000+4*i+j, v, 25*day))
			}
		}
		a := p.Assess("mira", SRE, events, t0)
		i := slices.IndexFunc(a.Contributions, func(c Contribution) bool { return c.Line == PatternLine })
		if a.Pattern == "" || i < 0 || a.Contributions[i].Part != 0 || len(a.Contributions[i].Events) == 0 {
			t.Errorf(
				"%s: pattern %q, floor %v, score %v, its line is %d",
				k.name,
				a.Pattern,
				a.Floor.Float(),
				a.Score.Float(),
				i,
			)
		}
		if a.Score.Float() <= a.Floor.Float() {
			t.Errorf("%s: score %v is not above the floor %v: this proves nothing", k.name, a.Score, a.Floor.Float())
		}
	}
}

func TestContributionsSumExactlyToTheScore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events, role := lives(t), anyRole.Draw(t, "role")
		for _, p := range Profiles() {
			a := p.Assess("mira", role, events, t0)
			var sum, reasons, patternAndCap int64
			for _, c := range a.Contributions {
				sum += c.Part
				switch c.Line {
				case EventLine:
					if c.Part <= 0 || c.Event == "" {
						t.Fatalf("line %+v: an event takes nothing away", c)
					}
				case PatternLine:
					patternAndCap += c.Part
					if c.Part < 0 || c.Detail == "" || a.Pattern != c.Detail || len(c.Events) == 0 ||
						a.Multiplier == 1e6 && a.Floor == 0 {
						t.Fatalf("line %+v at multiplier %v", c, a.Multiplier.Float())
					}
				case CapLine:
					patternAndCap += c.Part
					if c.Part >= 0 || a.Score != One {
						t.Fatalf("line %+v at score %v", c, a.Score)
					}
				}
			}
			if told := slices.ContainsFunc(
				a.Contributions,
				func(c Contribution) bool { return c.Line == PatternLine },
			); told != (a.Pattern != "") {
				t.Fatalf("%s: pattern %q, and that it has a line is %v", p.Name, a.Pattern, told)
			}
			for _, r := range a.Reasons {
				reasons += r.Part
			}
			if sum != a.Score.Micro() || reasons != sum-patternAndCap {
				t.Fatalf("%s: lines sum to %d and reasons to %d, score is %d", p.Name, sum, reasons, a.Score.Micro())
			}
			if a.Score < 0 || a.Score > One || a.Level != p.Level(a.Score) {
				t.Fatalf("score %d %s", a.Score, a.Level)
			}
		}
	})
}

func TestRiskyEventNeverLowersTheScore(t *testing.T) {
	var risky []activity.Verb
	for v := range published.severities {
		risky = append(risky, v)
	}
	slices.Sort(risky)
	rapid.Check(t, func(t *rapid.T) {
		events, role := lives(t), anyRole.Draw(t, "role")
		more := append(slices.Clone(events), event(9999, rapid.SampledFrom(risky).Draw(t, "more"),
			time.Duration(rapid.Int64Range(0, int64(40*day)).Draw(t, "age"))))
		for _, p := range Profiles() {
			if before, then := p.Score(role, events, t0), p.Score(role, more, t0); then < before {
				t.Fatalf("%s fell from %v to %v", p.Name, before, then)
			}
		}
	})
}

func TestDoingWhatWouldLowerTheScoreGivesThatScore(t *testing.T) {
	did := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		events, role := lives(t), anyRole.Draw(t, "role")
		for _, p := range Profiles() {
			a := p.Assess("mira", role, events, t0)
			for i, l := range a.Lower {
				if l.After >= a.Score {
					t.Fatalf("%s %s does not lower %v but gives %v", l.Act, l.ID, a.Score, l.After)
				}
				if i > 0 && l.After < a.Lower[i-1].After {
					t.Fatal("the list is not sorted")
				}
				done := event(9999, activity.TrainingPassed, 0)
				done.Module, done.Teaches = l.ID, l.Teaches
				if l.Act == CloseTicket {
					done = event(9999, activity.SecurityTicketClosed, 0)
					done.Ticket = l.ID
				}
				did[l.Act]++
				if got := p.Score(role, append(slices.Clone(events), done), t0); got != l.After {
					t.Fatalf("%s: %s %s gives %d, promised %d", p.Name, l.Act, l.ID, got, l.After)
				}
			}
		}
	})
	if did[PassModule] == 0 || did[CloseTicket] == 0 {
		t.Errorf("nothing was done: %v", did)
	}
}

func TestEveryLevelIsReachableForEveryRole(t *testing.T) {
	ladder := []activity.Verb{activity.SecretCommitted, activity.PrivilegeEscalation, activity.MalwareDetected,
		activity.TrainingStale}
	for _, p := range Profiles() {
		for role := range published.weights {
			seen := map[Level]bool{}
			var events []activity.Event
			for i := range 40 {
				seen[p.Level(p.Score(role, events, t0))] = true
				events = append(events, event(i, ladder[i%4], 0))
			}
			if len(seen) != len(Levels) {
				t.Errorf("%s: a %s reaches only %v", p.Name, role, seen)
			}
		}
	}
}

func TestStatesCountUntilTheyEnd(t *testing.T) {
	p := MustProfile(Default)
	stale, module, ticket := event(1, activity.TrainingStale, 200*day), event(2, activity.OverdueModule, 90*day),
		event(3, activity.OverdueSecurityTicket, 60*day)
	module.Module, ticket.Ticket = "phishing", "SEC-1"
	pass, closed := event(4, activity.TrainingPassed, 5*day), event(5, activity.SecurityTicketClosed, 5*day)
	pass.Module, closed.Ticket = "policy", "SEC-2"
	score := func(events ...activity.Event) Score { return p.Score(SRE, events, t0) }
	if got, want := score(stale, module, ticket), Score(120_000_000_000); got != want {
		t.Errorf("three old states score %d, want %d", got, want)
	}
	if got, want := score(stale, module, ticket, pass, closed), Score(60_000_000_000); got != want {
		t.Errorf("after another module and another ticket: %d, want %d (only the staleness ends)", got, want)
	}
	pass.Module, closed.Ticket = "phishing", "SEC-1"
	if got := score(stale, module, ticket, pass, closed); got != 0 {
		t.Errorf("all ended: %d, want 0", got)
	}
	again := event(6, activity.OverdueSecurityTicket, day)
	again.Ticket = "SEC-1"
	if got, want := score(ticket, closed, again), Score(20_000_000_000); got != want {
		t.Errorf("overdue again: %d, want %d", got, want)
	}
}

func TestAssessmentSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := MustProfile(Default).Assess("mira", anyRole.Draw(t, "role"), lives(t), t0)
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var back Assessment
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(a, back); d != "" {
			t.Fatalf("differs:\n%s", d)
		}
	})
	for _, bad := range []string{`1.5`, `-0.1`, `0.0000000000001`, `"x"`} {
		if err := json.Unmarshal([]byte(bad), new(Score)); err == nil {
			t.Errorf("score %s is accepted", bad)
		}
	}
}

func TestRosterLineReportsAllFaults(t *testing.T) {
	good := Person{ID: "mira.keller", Name: "Mira Keller", Role: SRE, Joined: "2025-03-01", Zone: "Europe/Berlin",
		Accounts: []string{"github:mira"}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	err := Person{ID: "Mira Keller", Joined: "1.3.2025", Left: "soon", Accounts: []string{"mira"}}.Validate()
	for _, want := range []string{"id", "name", "role", "joined", "left", "zone", "account"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no fault about %s in: %v", want, err)
		}
	}
	for at, want := range map[string]bool{"2025-02-28": false, "2025-03-01": true, "2026-05-31": true,
		"2026-06-01": false} {
		at, _ := time.Parse(time.DateOnly, at)
		good.Left = "2026-06-01"
		if got := good.Employed(at); got != want {
			t.Errorf("employed on %v: %v", at, got)
		}
	}
}

func BenchmarkAssess(b *testing.B) {
	events := make([]activity.Event, 300)
	for i := range events {
		events[i] = event(i, allVerbs[i%len(allVerbs)], time.Duration(i)*2*time.Hour)
		events[i].Module, events[i].Ticket = "phishing", fmt.Sprintf("SEC-%d", i%10)
	}
	p := MustProfile(Default)
	b.Run("assess", func(b *testing.B) {
		for b.Loop() {
			p.Assess("mira", SRE, events, t0)
		}
	})
	b.Run("score", func(b *testing.B) {
		for b.Loop() {
			p.Score(SRE, events, t0)
		}
	})
}

// A level's interval counts from the day on which it was reached; a level reached before the last training changes
// nothing.
func TestTrainingIsDueFromTheDayOnWhichTheLevelWasReached(t *testing.T) {
	p := MustProfile(Default)
	pass := event(1, activity.TrainingPassed, 40*day)
	pass.Module = "policy"
	burst := func(ago time.Duration) []activity.Event { // what takes anybody to HIGH at once
		return []activity.Event{
			event(2, activity.SecretCommitted, ago), event(3, activity.CrossAccountAccess, ago-time.Hour),
			event(4, activity.ServiceAccountKey, ago-2*time.Hour),
		}
	}
	midnight := t0.UTC().Truncate(day)
	for _, c := range []struct {
		name   string
		events []activity.Event
		due    time.Time
		told   Escalation
	}{
		{"today", burst(3 * time.Hour), midnight.Add(8 * day), ToNoOne},
		{"five days ago", burst(5 * day), midnight.Add(3 * day), ToNoOne},
		{"nine days ago", burst(9 * day), midnight.Add(-day), ToPerson},
		{"twenty days ago", burst(20 * day), midnight.Add(-12 * day), ToSecurity},
	} {
		a := p.Assess("mira", SRE, append(c.events, pass), t0)
		if a.Level != High || !a.Due.Equal(c.due) || a.Escalation != c.told {
			t.Errorf("HIGH since %s: %s, due %v, told to %q; want due %v, told to %q", c.name, a.Level, a.Due, a.Escalation,
				c.due, c.told)
		}
	}
	late := event(5, activity.TrainingPassed, 2*day)
	late.Module = "policy"
	if a := p.Assess("mira", SRE, append(burst(5*day), pass, late), t0); !a.Due.Equal(late.At.Add(7 * day)) {
		t.Errorf("after a training since: due %v, want a week after it", a.Due)
	}
	if a := p.Assess("mira", SRE, []activity.Event{pass}, t0); !a.Due.Equal(pass.At.Add(90 * day)) {
		t.Errorf("LOW: due %v, want a quarter after the training", a.Due)
	}
}

func TestEscalationsRise(t *testing.T) {
	for i, e := range Escalations {
		if e.Rank() != i {
			t.Errorf("%q has rank %d, want %d", e, e.Rank(), i)
		}
	}
	if len(Escalations) != 4 || ToSecurity.Rank() <= ToManager.Rank() || ToManager.Rank() <= ToPerson.Rank() ||
		Escalation("boss").Rank() != -1 {
		t.Errorf("%v", Escalations)
	}
}
