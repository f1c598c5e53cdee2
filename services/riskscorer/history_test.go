package riskscorer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

// rows are all stored scores of a person.
func (l *lab) rows(person string) []scorerapi.StoredScore {
	l.t.Helper()
	rows, err := l.pool.Query(l.t.Context(), `
		SELECT at, position, profile, version, role, score, level FROM risk.score
		WHERE person = $1 ORDER BY position, profile`, person)
	if err != nil {
		l.t.Fatal(err)
	}
	defer rows.Close()
	var list []scorerapi.StoredScore
	for rows.Next() {
		var s scorerapi.StoredScore
		var score int64
		if err := rows.Scan(&s.At, &s.Position, &s.Profile, &s.Version, &s.Role, &score, &s.Level); err != nil {
			l.t.Fatal(err)
		}
		s.Score = risk.Score(score)
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		l.t.Fatal(err)
	}
	return list
}

// Late events, events that find their owner later, and changes of the roster: each stored score can be computed again,
// exactly.
func TestStoredScoreDerivesAgainAfterAllThatCameLater(t *testing.T) {
	l := newLab(t)
	l.Shadow(risk.MustProfile("classic-v1"))
	mira := person("mira", risk.BackendDeveloper)
	l.roster(mira)
	send := func(from uint64, events ...activity.Event) {
		t.Helper()
		if code, receipts := l.send(gitCollector, from, events...); code != 200 || receipts[0].Status != activity.Stored {
			t.Fatalf("%d %+v", code, receipts)
		}
	}
	send(1, commit(1, "mira", activity.SecretCommitted, time.Hour), commit(2, "mira", activity.ForcePush, 2*time.Hour))
	send(3, commit(3, "stray", activity.VulnerableDependency, 30*time.Hour)) // no owner yet
	send(4, commit(4, "mira", activity.SecretCommitted, 20*24*time.Hour))    // late
	send(5, commit(5, "mira", activity.LargeFile, 5*time.Hour))              //
	// a new job, and an account found
	mira.Role, mira.Accounts = risk.CloudSecurityAnalyst, append(mira.Accounts, "github:stray")
	l.roster(mira)
	send(6, commit(6, "mira", activity.UnreviewedCommit, 6*time.Hour))
	send(7, commit(7, "mira", activity.SecretCommitted, 9*24*time.Hour)) // late again
	var flood []activity.Event
	for i := range 250 {
		flood = append(flood, commit(100+i, "mira", activity.LargeFile, 3*time.Hour+time.Duration(i)*time.Second))
	}
	send(8, flood...)

	stored := l.rows("mira")
	if len(stored) != 12 {
		t.Fatalf("%d stored scores, want six by each of two profiles", len(stored))
	}
	fresh := replica(t, l.pool) // another process, with an empty cache
	for _, s := range stored {
		for _, reader := range []*lab{l, fresh} {
			var a scorerapi.Rescored
			reader.get(fmt.Sprintf("/v1/people/mira/risk?profile=%s&at=%s&as_of=%d", s.Profile,
				s.At.UTC().Format(time.RFC3339Nano), s.Position), &a)
			if a.Score != s.Score || a.Level != s.Level || a.Stored == nil || a.Stored.Score != s.Score ||
				a.Position != s.Position || a.Role != s.Role {
				t.Errorf("%s at position %d: derived %d %s as %s, stored %d %s as %s (%+v)", s.Profile, s.Position, a.Score,
					a.Level, a.Role, s.Score, s.Level, s.Role, a.Stored)
			}
		}
	}
	var early, late risk.Assessment
	l.get(fmt.Sprintf("/v1/people/mira/risk?at=%s&as_of=%d", stored[0].At.UTC().Format(time.RFC3339Nano),
		stored[0].Position), &early)
	l.get(fmt.Sprintf("/v1/people/mira/risk?at=%s", stored[0].At.UTC().Format(time.RFC3339Nano)), &late)
	if early.Score >= late.Score {
		t.Errorf("late events change nothing: %v without, %v with them", early.Score, late.Score)
	}
	for query, want := range map[string]int{"as_of=-1": 400, "as_of=x": 400, "at=yesterday": 400, "profile=none": 400,
		"as_of=1": 200} {
		if code, _ := l.call(instructor, "GET", "/v1/people/mira/risk?"+query, "", ""); code != want {
			t.Errorf("?%s: %d, want %d", query, code, want)
		}
	}
	if n := l.one(`SELECT count(*) FROM risk.event WHERE late`); n != 2 {
		t.Errorf("%d events are marked late, want 2", n)
	}
}

func TestShadowScoresBesideAndShowsWhereItDiffers(t *testing.T) {
	l := newLab(t)
	l.Shadow(risk.MustProfile("decay-v1"))
	l.roster(person("mira", risk.BackendDeveloper), person("tomas", risk.BackendDeveloper))
	iam := instructor
	iam.Name, iam.Kind, iam.Source = "iam-collector", gitCollector.Kind, "iam"
	if code, _ := l.send(gitCollector, 1, commit(1, "mira", activity.SecretCommitted, 2*time.Hour), commit(2, "tomas",
		activity.SecretCommitted, time.Hour)); code != 200 {
		t.Fatal(code)
	}
	access := func(id int, verb activity.Verb, ago time.Duration) activity.Event {
		e := commit(id, "mira", verb, ago)
		e.ID, e.Source = fmt.Sprintf("iam:%d", id), activity.IAM
		return e
	}
	if code, _ := l.send(iam, 1, access(1, activity.CrossAccountAccess, 100*time.Minute),
		access(2, activity.ServiceAccountKey, 90*time.Minute)); code != 200 {
		t.Fatal(code)
	}
	var people []risk.Standing
	l.get("/v1/people", &people)
	if people[0].ID != "mira" || people[0].Level != risk.High || people[0].Shadow == nil ||
		people[0].Shadow.Profile != "decay-v1" || people[0].Shadow.Level != risk.Low {
		t.Errorf("mira: %+v, shadow %+v; want HIGH and LOW", people[0], people[0].Shadow)
	}
	var o risk.Organisation
	l.get("/v1/organisation", &o)
	if o.Shadow == nil || o.Shadow.Differ != 1 || o.Shadow.Levels.Low != 2 {
		t.Errorf("the company's shadow is %+v, want one who differs", o.Shadow)
	}
	if n := l.one(`SELECT count(DISTINCT profile) FROM risk.score WHERE person = 'mira'`); n != 2 {
		t.Errorf("%d profiles scored mira", n)
	}
	if n := l.one(`SELECT count(*) FROM audit.own WHERE kind = 'assessment' AND detail LIKE 'decay-v1%'`); n != 0 {
		t.Errorf("the shadow wrote %d assessments", n)
	}
	l.get("/v1/people?shadow=classic-v1", &people)
	if people[0].Shadow.Profile != "classic-v1" {
		t.Errorf("the shadow is %s, want classic-v1", people[0].Shadow.Profile)
	}
	if code, _ := l.call(instructor, "GET", "/v1/people?shadow=none", "", ""); code != 400 {
		t.Errorf("an unknown shadow: %d", code)
	}
}

func TestSilentFeedIsMissingAndNotInnocent(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.BackendDeveloper))
	missing := func() []activity.Source {
		t.Helper()
		var a scorerapi.Rescored
		var o risk.Organisation
		l.get("/v1/people/mira/risk", &a)
		l.get("/v1/organisation", &o)
		if !slices.Equal(a.Missing, o.Missing) {
			t.Errorf("a person misses %v, the company %v", a.Missing, o.Missing)
		}
		return o.Missing
	}
	if got := missing(); !slices.Equal(got, activity.Vendors()) {
		t.Errorf("before anything arrived %v are missing, want all", got)
	}
	send := func(seq int, ago time.Duration) {
		t.Helper()
		for _, source := range activity.Vendors() {
			w := gitCollector
			w.Name, w.Source = string(source)+"-collector", string(source)
			verb := map[activity.Source]activity.Verb{activity.Git: activity.Commit, activity.Jira: activity.TicketUpdated,
				activity.IAM: activity.SignIn, activity.SIEM: activity.PhishingReported}[source]
			e := commit(seq, "mira", verb, ago)
			e.ID, e.Source = fmt.Sprintf("%s:%d", source, seq), source
			if code, _ := l.send(w, uint64(seq), e); code != 200 {
				t.Fatal(code)
			}
		}
	}
	send(1, time.Hour)
	if got := missing(); len(got) != 0 {
		t.Errorf("%v are missing while all speak", got)
	}
	if code, body := l.put(instructor, "PUT", "/v1/clock",
		scorerapi.ClockChange{Now: risk.Epoch.Add(80 * time.Hour)}); code != 200 {
		t.Fatal(body)
	}
	if code, _ := l.send(gitCollector, 2, commit(2, "mira", activity.Commit, -79*time.Hour)); code != 200 {
		t.Fatal(code)
	}
	if got := missing(); !slices.Equal(got, []activity.Source{activity.Jira, activity.IAM, activity.SIEM}) {
		t.Errorf("%v are missing, want all but git", got)
	}
	if code, body := l.put(instructor, "POST", "/v1/reset", scorerapi.ResetOrder{After: new(int64)}); code != 200 {
		t.Fatal(body)
	}
	l.roster(person("mira", risk.BackendDeveloper))
	if got := missing(); !slices.Equal(got, activity.Vendors()) {
		t.Errorf("after a reset %v are missing, want all", got)
	}
}

// The lab's clock is the only one that training looks at.
func TestTrainingFallsDueAndEscalatesByTheLabsClock(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.BackendDeveloper))
	pass := activity.Event{ID: "training:1", At: risk.Epoch, Person: "mira", Source: activity.Training,
		Verb: activity.TrainingPassed, Module: "policy", Teaches: []activity.Verb{activity.PolicyViolation}}
	if code, _ := l.send(dashboard, 1, pass); code != 200 {
		t.Fatal(code)
	}
	for _, c := range []struct {
		days int
		want risk.Escalation
	}{{1, risk.ToNoOne}, {89, risk.ToNoOne}, {91, risk.ToPerson}, {134, risk.ToPerson}, {136, risk.ToManager},
		{179, risk.ToManager}, {181, risk.ToSecurity}} {
		if code, body := l.put(instructor, "PUT", "/v1/clock", scorerapi.ClockChange{Now: risk.Epoch.AddDate(0, 0,
			c.days)}); code != 200 {
			t.Fatal(body)
		}
		var a risk.Assessment
		l.get("/v1/people/mira/risk", &a)
		if a.Frequency != risk.Quarterly || !a.Due.Equal(risk.Epoch.AddDate(0, 0, 90)) || a.Escalation != c.want {
			t.Errorf("after %d days: %s, due %v, escalated to %q; want QUARTERLY, 90 days after the pass, %q", c.days,
				a.Frequency, a.Due, a.Escalation, c.want)
		}
	}
}
