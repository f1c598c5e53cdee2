package riskscorer

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

// dueWithin is how far two answers may differ in when the training of a person without events is due, which is counted
// from now.
const dueWithin = time.Minute

// near says whether two scores differ by no more than a moment's decay.
func near(a, b risk.Score) bool { return max(a-b, b-a) < risk.One/1e5 }

// The list of people and the organisation's trend show what each person's events come to, in any order of arrival: late
// events, passes, another role, owners found later, days that pass, people and events that are deleted.
func TestStandingsAreWhatTheEventsComeTo(t *testing.T) {
	l := newLab(t)
	l.Shadow(risk.MustProfile("decay-v1"))
	ids := []string{"mira", "tomas", "nadia", "olof", "pia"}
	var roster []risk.Person
	for _, id := range ids {
		roster = append(roster, person(id, risk.SRE))
	}
	l.roster(roster...)
	random := rand.New(rand.NewPCG(1, 2))
	verbs := []activity.Verb{activity.Commit, activity.ForcePush, activity.SecretCommitted, activity.UnreviewedCommit}
	at, seq, n := risk.Epoch, uint64(1), 0
	check := func(what string) {
		t.Helper()
		var list []risk.Standing
		l.get("/v1/people", &list)
		var o risk.Organisation
		l.get("/v1/organisation", &o)
		if len(o.Trend) != trendDays+1 || o.Trend[trendDays].Score != o.Score ||
			!o.Trend[trendDays-1].At.Equal(midnight(o.At)) {
			t.Fatalf("%s: a trend of %d points ends at %+v", what, len(o.Trend), o.Trend[trendDays-1:])
		}
		then := make([][]risk.Standing, trendDays)
		for _, s := range list {
			var a risk.Assessment
			l.get("/v1/people/"+s.ID+"/risk", &a)
			if !near(s.Score, a.Score) || s.Level != a.Level || s.Due.Sub(a.Due).Abs() > dueWithin ||
				s.Escalation != a.Escalation ||
				s.Frequency != a.Frequency {
				t.Fatalf(
					"%s: %s stands at %d %s, due %s %s; their events come to %d %s, due %s %s",
					what,
					s.ID,
					s.Score,
					s.Level,
					s.Due,
					s.Escalation,
					a.Score,
					a.Level,
					a.Due,
					a.Escalation,
				)
			}
			l.get("/v1/people/"+s.ID+"/risk?profile=decay-v1", &a)
			if s.Shadow == nil || !near(s.Shadow.Score, a.Score) {
				t.Fatalf("%s: as shadow, %s stands at %+v, want %d", what, s.ID, s.Shadow, a.Score)
			}
			for i, p := range o.Trend[:trendDays] {
				l.get("/v1/people/"+s.ID+"/risk?at="+p.At.Format(time.RFC3339), &a)
				then[i] = append(then[i], risk.Standing{Person: s.Person, Score: a.Score})
			}
		}
		for i, p := range o.Trend[:trendDays] {
			if want := l.profile.Organise(then[i], p.At).Score; p.Score != want {
				t.Fatalf("%s: at %s the company stood at %d, want %d", what, p.At, p.Score, want)
			}
		}
	}
	for step := range 14 {
		what := fmt.Sprintf("step %d", step)
		switch step % 7 {
		case 0, 3: // what happened now, and long ago
			var events []activity.Event
			for range 6 {
				n++
				e := commit(n, ids[random.IntN(len(ids))], verbs[random.IntN(len(verbs))], 0)
				e.At = at.Add(-time.Duration(random.IntN(3)*random.IntN(12)) * 24 * time.Hour)
				events = append(events, e)
			}
			if code, r := l.send(gitCollector, seq, events...); code != 200 {
				t.Fatal(code, r)
			}
			seq += 6
		case 1: // a pass
			n++
			pass := activity.Event{
				ID:      fmt.Sprintf("training:%d", n),
				At:      at,
				Person:  "mira",
				Source:  activity.Training,
				Verb:    activity.TrainingPassed,
				Module:  "secrets",
				Teaches: []activity.Verb{activity.SecretCommitted},
			}
			if code, _ := l.send(dashboard, uint64(n), pass); code != 200 {
				t.Fatal(code)
			}
		case 2: // another role
			roster[1].Role = risk.DataAnalyst
			l.roster(roster[1])
		case 4: // days
			at = at.AddDate(0, 0, 3).Add(time.Hour)
			if code, body := l.put(instructor, "PUT", "/v1/clock", scorerapi.ClockChange{Now: at}); code != 200 {
				t.Fatal(body)
			}
		case 5: // an owner, of what happened long before
			id := fmt.Sprintf("late-%d", step)
			n++
			l.send(gitCollector, seq, commit(n, id, activity.SecretCommitted, 200*time.Hour))
			seq++
			l.roster(person(id, risk.SRE))
		case 6: // a person is forgotten
			if code, body := l.put(
				instructor,
				"POST",
				"/v1/reset",
				scorerapi.ResetOrder{People: []string{fmt.Sprintf("late-%d", step-1)}},
			); code != 200 {
				t.Fatal(body)
			}
		}
		check(what)
	}
	var p scorerapi.Progress
	l.get("/v1/watermarks", &p)
	p.Position /= 2
	if code, body := l.put(instructor, "POST", "/v1/reset", scorerapi.ResetOrder{After: &p.Position}); code != 200 {
		t.Fatal(body)
	}
	check("half of it forgotten")
}

// People who were created for a run of an exercise count in no figure of the organisation.
func TestPeopleOfARunDoNotCountInTheCompany(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE), person("tomas", risk.SRE))
	l.send(gitCollector, 1, commit(1, "mira", activity.SecretCommitted, time.Hour))
	var before, after risk.Organisation
	l.get("/v1/organisation", &before)
	cast := person("nina", risk.SRE)
	cast.Run = "leaked-secret-1"
	l.roster(cast)
	l.send(
		gitCollector,
		2,
		commit(2, "nina", activity.SecretCommitted, time.Hour),
		commit(3, "nina", activity.SecretCommitted, 2*time.Hour),
	)
	l.get("/v1/organisation", &after)
	if after.People != 2 || !near(before.Score, after.Score) || before.Levels != after.Levels ||
		!near(before.Max, after.Max) ||
		len(after.Teams) != len(before.Teams) ||
		after.Teams[0].People != 2 {
		t.Errorf("after a run the company is %+v, before it was %+v", after, before)
	}
	for i := range before.Trend[:trendDays] {
		if before.Trend[i] != after.Trend[i] {
			t.Errorf("trend: %+v, was %+v", after.Trend[i], before.Trend[i])
		}
	}
	var own, all []risk.Standing
	l.get("/v1/people", &own)
	l.get("/v1/people?runs=all", &all)
	if len(own) != 2 || len(all) != 3 || all[0].ID != "nina" || all[0].Run != "leaked-secret-1" || all[0].Score == 0 {
		t.Errorf("the company lists %d, all are %+v", len(own), all)
	}
	if code, _ := l.call(instructor, "GET", "/v1/people?runs=some", "", ""); code != 400 {
		t.Errorf("runs=some: %d", code)
	}
	var a risk.Assessment
	l.get("/v1/people/nina/risk", &a)
	if a.Score == 0 || len(a.Contributions) != 2 {
		t.Errorf("of nina herself: %+v", a)
	}
}

// The cache is bounded, and keeps what was used last.
func TestWhatIsRememberedOfPeopleIsBoundedByBytes(t *testing.T) {
	m := newCache(1 << 20)
	events := make([]activity.Event, 100)
	for i := range events {
		events[i] = commit(i, "mira", activity.ForcePush, time.Duration(i)*time.Minute)
	}
	for i := range 200 {
		id := fmt.Sprint(i)
		m.keep(map[string]personEvents{id: {era: 1, position: 1, events: events, since: make([]int64, 100)}}, evictOldest)
		m.put(map[string]*personState{id: {PersonState: risk.PersonStateOf(risk.Profiles(), events, risk.Epoch), era: 1,
			position: 1}})
		if r := m.get("0", 1); len(r.events) != 100 { // used all the time
			t.Fatalf("after %d people what is used is forgotten", i)
		}
		sum := 0
		for e := m.recent.Front(); e != nil; e = e.Next() {
			sum += e.Value.(*cacheEntry).bytes
		}
		if m.bytes > m.most || m.bytes != sum || m.recent.Len() != len(m.people)+len(m.states) {
			t.Fatalf(
				"after %d people %d bytes are remembered, counted as %d, of at most %d, in %d things of %d",
				i,
				sum,
				m.bytes,
				m.most,
				m.recent.Len(),
				len(m.people)+len(m.states),
			)
		}
	}
	if len(m.people) < 2 || m.states["199"] == nil || m.states["1"] != nil {
		t.Errorf("%d people, the last state %v, an early one %v", len(m.people), m.states["199"], m.states["1"])
	}
	full := m.bytes
	m.keep(map[string]personEvents{"passing": {era: 1, position: 1, events: events}}, evictNothing)
	if m.people["passing"] != nil && m.bytes < full {
		t.Error("reading the whole roster removes what is used")
	}
}

// stored are the standings as they are stored, by person.
func (l *lab) stored() map[string]storedStanding {
	l.t.Helper()
	of := map[string]storedStanding{}
	if err := l.inSnapshot(l.t.Context(), func(tx pgx.Tx, _ risk.Clock) error {
		list, err := storedStandings(l.t.Context(), tx, l.profile)
		for _, k := range list {
			of[k.ID] = k
		}
		return err
	}); err != nil {
		l.t.Fatal(err)
	}
	return of
}

// A late event may arrive between the refresh of standings and their reading: then no due date is stored, which must
// not read as a due date long ago.
func TestAPersonOfWhomAnEventCameAMomentAgoIsNotOverdue(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE), person("tomas", risk.SRE))
	var before []risk.Standing
	l.get("/v1/people", &before)
	l.send(gitCollector, 1, commit(1, "mira", activity.SecretCommitted, 48*time.Hour))
	of := l.stored()
	list := []storedStanding{of["mira"], of["tomas"]}
	if !list[0].due.IsZero() || list[1].due.IsZero() {
		t.Fatalf("a due is stored: %s, %s: this proves nothing", list[0].due, list[1].due)
	}
	clock, err := l.clock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.standings.complete(t.Context(), l.profile, clock.Now, list); err != nil {
		t.Fatal(err)
	}
	var a risk.Assessment
	l.get("/v1/people/mira/risk", &a)
	if s := list[0].standing(
		clock.Now,
	); s.ID != "mira" || s.Due.Sub(a.Due).Abs() > dueWithin || s.Escalation != a.Escalation ||
		!near(s.Score, a.Score) {
		t.Errorf("mira stands at %+v, want due %s %s", s, a.Due, a.Escalation)
	}
	if list[1].ID != "tomas" || list[1].at != of["tomas"].at {
		t.Errorf("tomas's was made again: %+v", list[1])
	}
}

// An event at midnight counts in the score of that midnight.
func TestAnEventOfMidnightIsInTheTrend(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	at := midnight(risk.Epoch).AddDate(0, 0, 1).Add(time.Hour)
	if code, body := l.put(instructor, "PUT", "/v1/clock", scorerapi.ClockChange{Now: at}); code != 200 {
		t.Fatal(body)
	}
	var o risk.Organisation
	verbs := []activity.Verb{
		activity.ForcePush,
		activity.ForcePush,
		activity.SecretCommitted,
		activity.ForcePush,
		activity.UnreviewedCommit,
		activity.ForcePush,
	}
	for i, verb := range verbs { // the level is not another one each time
		l.get("/v1/organisation", &o)
		e := commit(i, "mira", verb, 0)
		e.At = midnight(at)
		if code, r := l.send(gitCollector, uint64(i)+1, e); code != 200 {
			t.Fatal(code, r)
		}
		l.get("/v1/organisation", &o)
		var a risk.Assessment
		l.get("/v1/people/mira/risk?at="+midnight(at).Format(time.RFC3339), &a)
		want := l.profile.Organise([]risk.Standing{{Person: person("mira", risk.SRE), Score: a.Score}}, midnight(at)).Score
		if got := o.Trend[trendDays-1]; got.Score != want {
			t.Fatalf("after event %d the company stood at %d at midnight, want %d", i, got.Score, want)
		}
	}
}

// A standing whose computation began earlier and ends later does not include events that were ahead of its time.
func TestAStandingOfAnEarlierTimeDoesNotReplaceALaterOne(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	e := commit(1, "mira", activity.SecretCommitted, 0)
	e.At = risk.Epoch
	l.send(gitCollector, 1, e)
	later := l.stored()["mira"]
	p := employee{Person: person("mira", risk.SRE), position: later.upTo, era: later.in}
	earlier := computeStanding(l.profile, p, []activity.Event{e}, risk.Epoch.Add(-time.Second), nil)
	if earlier.score >= later.score {
		t.Fatalf("%d, later %d: this proves nothing", earlier.score, later.score)
	}
	if err := l.standings.store(t.Context(), l.profile, []storedStanding{earlier}); err != nil {
		t.Fatal(err)
	}
	if now := l.stored()["mira"]; now.score != later.score || !now.at.Equal(later.at) {
		t.Errorf("it was replaced by that of %s: %d, was %d", now.at, now.score, later.score)
	}
}
