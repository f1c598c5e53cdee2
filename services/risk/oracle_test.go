package risk

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/security-training/services/activity"
)

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
