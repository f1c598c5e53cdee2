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
	for _, p := range Profiles() { // lab-v1 keeps the tables, and adds to them
		name := p.Name
		for role, want := range published.weights {
			w := p.weights(role)
			if got := [4]float64{w.Git.Float(), w.IAM.Float(), w.SIEM.Float(), w.Training.Float()}; got != want {
				t.Errorf("%s: weights of %s are %v, want %v", name, role, got, want)
			}
		}
		got := map[activity.Verb]float64{}
		for v, a := range p.Severities {
			got[v] = a.Float()
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

// naive is the model from its description, in float64 and without sharing anything with the package.
func naive(profile string, role Role, events []activity.Event, at time.Time) float64 {
	decay, courses := profile != "classic-v1", profile == "lab-v1"
	var known []activity.Event
	for _, e := range events {
		if !e.At.After(at) && !slices.ContainsFunc(known, func(k activity.Event) bool { return k.ID == e.ID }) {
			known = append(known, e)
		}
	}
	inWindow := func(e activity.Event) bool { return e.At.After(at.Add(-720 * time.Hour)) }
	r := [4]float64{}
	var iam, siem, commits, weekend, pushes, tickets int
	var off, export bool
	for _, e := range known {
		alpha := published.severities[e.Verb]
		n := 1.0
		passes := map[string]bool{}
		ended := false
		for _, p := range known {
			if !p.At.After(e.At) {
				continue
			}
			if p.Verb == "training.passed" {
				ended = ended || e.Verb == "training.stale" || e.Verb == "training.overdue_module" && p.Module == e.Module
				if slices.Contains(p.Teaches, e.Verb) {
					passes[p.Module] = true
				}
			}
			ended = ended || p.Verb == "jira.security_ticket_closed" && e.Verb == "jira.overdue_security_ticket" &&
				p.Ticket == e.Ticket
		}
		switch {
		case e.Verb == "training.stale" || e.Verb == "training.overdue_module" || e.Verb == "jira.overdue_security_ticket":
			if ended {
				n = 0
			}
		default:
			if decay {
				n = math.Pow(2, -at.Sub(e.At).Hours()/168)
			} else if !inWindow(e) {
				n = 0
			}
			if len(passes) == 1 {
				n /= 2
			} else if len(passes) > 1 {
				n /= 4
			}
		}
		i := map[activity.Source]int{"git": 0, "iam": 1, "siem": 2, "jira": 3, "training": 3}[e.Source]
		r[i] += alpha * n
		if !inWindow(e) {
			continue
		}
		if e.Source == "iam" && (!decay || alpha > 0) {
			iam++
		}
		if e.Source == "siem" {
			siem++
		}
		switch e.Verb {
		case "git.commit":
			commits++
			if e.At.Weekday() == time.Saturday || e.At.Weekday() == time.Sunday {
				weekend++
			}
		case "git.force_push":
			pushes++
		case "jira.overdue_security_ticket":
			tickets++
		case "iam.off_hours_access":
			off = true
		case "iam.data_export":
			if e.Bytes >= 1<<30 {
				ok := false
				for _, a := range known {
					ok = ok || a.Verb == "jira.export_approved" && a.Resource == e.Resource && a.At.Before(e.At) &&
						!a.At.Before(e.At.Add(-7*24*time.Hour))
				}
				export = export || !ok
			}
		}
	}
	c := 1.0
	switch {
	case commits == 0 && iam > 20 && siem > 3:
		c = 2
	case off && export:
		c = 1.5
	case pushes > 3 && tickets > 5 && weekend > 0:
		c = 1.2
	}
	w, ok := published.weights[role]
	if !ok {
		w = published.weights["juggler"]
	}
	total := 0.0
	for i := range r {
		total += w[i] * math.Min(1, r[i])
	}
	if !courses {
		return math.Min(1, c*total)
	}
	floor := 0.0
	if commits == 0 && iam > 18 && siem > 2 || off && export {
		floor = .8
	} else if pushes > 3 && tickets > 5 && weekend > 0 {
		floor = .6
	}
	for _, k := range kinds {
		for _, opening := range known {
			if k.floor > floor && inWindow(opening) && k.holds(known, opening) {
				floor = k.floor
			}
		}
	}
	if floor > 0 {
		total = math.Max(total, floor+.1*total)
	}
	return math.Min(1, total)
}

// kinds are the sequences of lab-v1, written from its description and not read from the profile.
var kinds = []kind{
	{"token-theft", .8, 0, []part{{"iam.cross_account_access", 2, 3}, {"iam.privilege_escalation", 1, 4},
		{"siem.data_exfiltration", 1, 12}}},
	{"leaked-secret", .6, 0, []part{{"git.secret_committed", 1, 0}, {"iam.cross_account_access", 1, 2},
		{"iam.service_account_key", 1, 4}}},
	{"shared-service-key", .6, 0, []part{{"iam.service_account_key", 1, 0}, {"git.secret_committed", 1, 2},
		{"iam.cross_account_access", 2, 14}}},
	{"phish-to-malware", .6, 0, []part{{"siem.phishing_click", 1, 0}, {"siem.malware_detected", 1, 1},
		{"siem.failed_authentication iam.off_hours_access", 1, 12}}},
	{"mfa-fatigue", .6, 0, []part{{"iam.mfa_denied", 5, 1}, {"iam.off_hours_access iam.cross_account_access", 1, 20}}},
	{"supply-chain", .6, 0, []part{{"git.vulnerable_dependency", 2, 1}, {"git.unreviewed_commit", 1, 2},
		{"siem.malware_detected", 1, 6}}},
	{"dormant-account", .6, 14, []part{{"siem.failed_authentication", 1, 0}, {"iam.off_hours_access", 1, 36},
		{"iam.unused_permission", 2, 24}}},
	{"off-boarding", .6, 0, []part{{"iam.data_export", 1, 0}, {"siem.data_exfiltration", 1, 12}, {"git.large_file", 1,
		12}}},
	{"privilege-creep", .6, 0, []part{{"iam.privilege_escalation", 4, 384}, {"iam.unused_permission", 3, 408}}},
}

type kind struct {
	name  string
	floor float64
	quiet int // days
	parts []part
}

type part struct {
	verbs string
	count int
	hours int
}

func (p part) takes(e activity.Event) bool {
	return slices.Contains(strings.Fields(p.verbs), string(e.Verb)) && (e.Verb != "iam.data_export" || e.Bytes >= 1<<30)
}

func (k kind) holds(known []activity.Event, opening activity.Event) bool {
	if !k.parts[0].takes(opening) {
		return false
	}
	for _, p := range k.parts {
		n := 0
		for _, e := range known {
			if after := e.At.Sub(opening.At); p.takes(e) && after >= 0 && after <= time.Duration(p.hours)*time.Hour {
				n++
			}
		}
		if n < p.count {
			return false
		}
	}
	return k.quiet == 0 || !slices.ContainsFunc(known, func(e activity.Event) bool {
		before := opening.At.Sub(e.At)
		return before > 0 && before <= time.Duration(k.quiet)*day &&
			slices.Contains([]activity.Verb{"git.commit", "git.review_submitted", "iam.sign_in"}, e.Verb)
	})
}

var allVerbs = []activity.Verb{
	activity.SecretCommitted, activity.VulnerableDependency, activity.ForcePush, activity.UnreviewedCommit,
	activity.LargeFile,
	activity.PrivilegeEscalation, activity.ServiceAccountKey, activity.OffHoursAccess, activity.CrossAccountAccess,
	activity.UnusedPermission,
	activity.MalwareDetected, activity.DataExfiltration, activity.PhishingClick, activity.FailedAuthentication,
	activity.PolicyViolation,
	activity.TrainingStale, activity.OverdueModule, activity.FailedAssessment, activity.OverdueSecurityTicket,
	activity.Commit, activity.SignIn, activity.DataExport, activity.ExportApproved, activity.SecurityTicketClosed,
	activity.PhishingReported, activity.TrainingPassed,
}

// ages are spread evenly over a window and a half, the future included; rapid's integers are mostly small.
var ages = rapid.Custom(func(t *rapid.T) time.Duration {
	step := rapid.Uint64().Draw(t, "step") * 0x9E3779B97F4A7C15 >> 32
	return time.Duration(step%(40*24*60))*time.Minute - day
})

// lives generates a person's events, with a bias to what patterns need.
func lives(t *rapid.T) []activity.Event {
	var list []activity.Event
	n := 0
	add := func(verb activity.Verb) {
		n++
		e := event(n, verb, ages.Draw(t, "age"))
		e.At = e.At.In(time.FixedZone("", rapid.SampledFrom([]int{0, 7200, -28800, 43200}).Draw(t, "offset")))
		switch verb {
		case activity.OverdueModule:
			e.Module = rapid.SampledFrom([]string{"phishing", "policy", "house-rules"}).Draw(t, "module")
		case activity.TrainingPassed:
			m := rapid.SampledFrom(Modules).Draw(t, "passed")
			e.Module, e.Teaches = m.ID, m.Teaches
		case activity.OverdueSecurityTicket, activity.SecurityTicketClosed:
			e.Ticket = rapid.SampledFrom([]string{"SEC-1", "SEC-2", "SEC-3", "SEC-4"}).Draw(t, "ticket")
		case activity.DataExport, activity.ExportApproved:
			e.Resource = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "resource")
			e.Bytes = rapid.SampledFrom([]int64{1, 1 << 30}).Draw(t, "bytes")
		}
		list = append(list, e)
	}
	for range rapid.IntRange(0, 25).Draw(t, "events") {
		add(rapid.SampledFrom(allVerbs).Draw(t, "verb"))
	}
	burst := func(count int, verb activity.Verb) {
		for range count {
			add(verb)
		}
	}
	switch rapid.IntRange(0, 8).Draw(t, "life") {
	case 5, 6, 7, 8: // a sequence of lab-v1, or almost one
		k := rapid.SampledFrom(kinds).Draw(t, "kind")
		began := time.Duration(rapid.IntRange(1, 31*24).Draw(t, "began")) * time.Hour
		if k.quiet > 0 && rapid.Bool().Draw(t, "quiet") {
			list = slices.DeleteFunc(list, func(e activity.Event) bool { return isRoutineWork(e.Verb) })
		}
		for i, p := range k.parts {
			for j := range p.count {
				add(activity.Verb(rapid.SampledFrom(strings.Fields(p.verbs)).Draw(t, "of")))
				e := &list[len(list)-1]
				e.Bytes = 1 << 30
				late := time.Duration(rapid.IntRange(0, 60*p.hours+2).Draw(t, "minutes")) * time.Minute
				if i+j == 0 {
					late = 0
				}
				e.At = t0.Add(late - began)
			}
		}
	case 0:
		list = slices.DeleteFunc(list, func(e activity.Event) bool { return e.Verb == activity.Commit })
		burst(45, rapid.SampledFrom([]activity.Verb{activity.SignIn, activity.UnusedPermission,
			activity.OffHoursAccess}).Draw(t, "iam"))
		burst(9, activity.PolicyViolation)
	case 1:
		burst(1, activity.OffHoursAccess)
		burst(2, activity.DataExport)
		burst(1, activity.ExportApproved)
	case 3: // two modules about the same thing
		burst(4, activity.SecretCommitted)
		for _, id := range []string{"secret-hygiene", "keys-and-service-accounts"} {
			burst(1, activity.TrainingPassed)
			m, _ := ModuleByID(id)
			list[len(list)-1].Module, list[len(list)-1].Teaches = m.ID, m.Teaches
		}
	case 2:
		burst(10, activity.ForcePush)
		burst(14, activity.OverdueSecurityTicket)
		burst(6, activity.Commit)
	}
	return list
}

var anyRole = rapid.SampledFrom(append(slices.Clone(Roles), "juggler"))

func TestScoreAgreesWithAnIndependentRecomputation(t *testing.T) {
	patterns := map[string]int{}
	check := func(t *rapid.T) {
		events, role := lives(t), anyRole.Draw(t, "role")
		for _, p := range Profiles() {
			a := p.Assess("mira", role, events, t0)
			patterns[a.Pattern]++
			if want := naive(p.Name, role, events, t0); math.Abs(a.Score.Float()-want) > 1e-9 {
				t.Fatalf("%s scores %v, recomputed %v", p.Name, a.Score.Float(), want)
			}
		}
	}
	names := []string{"", "compromised", "insider", "burnout"}
	for _, k := range kinds {
		names = append(names, k.name)
	}
	// Lives are drawn by chance, so the number of them that is enough for every
	// pattern is not known beforehand: draw until each came up, within a bound
	// that chance does not reach.
	unseen := func() (missing []string) {
		for _, name := range names {
			if patterns[name] == 0 {
				missing = append(missing, name)
			}
		}
		return missing
	}
	for pass := 0; pass < 10 || pass < 200 && len(unseen()) > 0; pass++ {
		rapid.Check(t, check)
		if t.Failed() {
			return
		}
	}
	for _, name := range unseen() {
		t.Errorf("no generated life had the pattern %q: the test shows nothing about it", name)
	}
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
		{"today", burst(3 * time.Hour), midnight.Add(8 * day), ToNobody},
		{"five days ago", burst(5 * day), midnight.Add(3 * day), ToNobody},
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
