package riskscorer

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

func TestLeaversAndJoinersAreNotInTheOrganisation(t *testing.T) {
	l := newLab(t)
	gone, soon := person("gone", risk.SRE), person("soon", risk.SRE)
	gone.Left, soon.Joined = "2026-09-01", "2026-10-05"
	l.roster(person("mira", risk.SRE), gone, soon)
	l.send(gitCollector, 1, commit(1, "gone", activity.SecretCommitted, 0), commit(2, "mira", activity.ForcePush, 0))
	var list []risk.Standing
	l.get("/v1/people", &list)
	if len(list) != 1 || list[0].ID != "mira" || list[0].Score == 0 {
		t.Errorf("people %+v, want mira alone", list)
	}
	var o risk.Organisation
	l.get("/v1/organisation", &o)
	if o.People != 1 || len(o.Trend) != trendDays+1 || o.Trend[trendDays].Score != o.Score {
		t.Errorf("organisation %+v", o)
	}
}

// TestReplicasAgreeWithARecomputation lets two replicas take the same events in different batches, with redeliveries,
// at the same time, and compares every person's score with one made from what was stored.
func TestReplicasAgreeWithARecomputation(t *testing.T) {
	pool := database(t)
	replicas := []*lab{replica(t, pool), replica(t, pool)}
	// few enough to meet, many enough to stay below R_git = 1
	names := []string{"ada", "bob", "cid", "dan", "eve", "fay", "gus", "hal"}
	for _, n := range names {
		replicas[0].roster(person(n, risk.BackendDeveloper))
	}
	r := rand.New(rand.NewPCG(1, 2))
	verbs := []activity.Verb{activity.UnreviewedCommit, activity.ForcePush, activity.LargeFile, activity.Commit,
		activity.Commit, activity.Commit}
	var all []activity.Event
	for i := range 400 {
		all = append(all, commit(i, names[r.IntN(len(names))], verbs[r.IntN(len(verbs))],
			time.Duration(r.IntN(40*24))*time.Hour))
	}
	var mu sync.Mutex
	stored := 0
	var wg sync.WaitGroup
	for w := range 4 { // a quarter of their own, and some of the others'
		shuffled := append(append([]activity.Event(nil), all[w*100:w*100+100]...), all[(w*100+100)%400:(w*100+100)%400+25]...)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		wg.Go(func() {
			for i := 0; i < len(shuffled); i += 5 {
				code, receipts := replicas[w%2].send(gitCollector, uint64(i+1), shuffled[i:i+5]...)
				if code != 200 {
					t.Errorf("batch: %d", code)
				}
				mu.Lock()
				for _, r := range receipts {
					if r.Status == activity.Stored {
						stored++
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if n := replicas[0].one(`SELECT count(*) FROM risk.event`); n != 400 || stored != 400 {
		t.Errorf("%d events in the table, %d receipts say stored, want 400", n, stored)
	}
	mine := map[string][]activity.Event{}
	for _, e := range all {
		name := strings.ToLower(strings.TrimPrefix(e.Accounts[1], "GitHub:"))
		mine[name] = append(mine[name], e)
	}
	for _, l := range append(replicas, replica(t, pool)) { // the third has forgotten everything
		for _, n := range names {
			var a risk.Assessment
			l.get("/v1/people/"+n+"/risk", &a)
			if want := risk.MustProfile(risk.Default).Score(risk.BackendDeveloper, mine[n], a.At); a.Score != want || want == 0 {
				t.Errorf("%s scores %d, recomputed %d", n, a.Score, want)
			}
			var then risk.Assessment
			l.get("/v1/people/"+n+"/risk?profile=classic-v1&at=2026-09-20T00:00:00Z", &then)
			if want := risk.MustProfile("classic-v1").Score(risk.BackendDeveloper, mine[n], then.At); then.Score != want ||
				then.Profile != "classic-v1" {
				t.Errorf("%s scored %d under %s, recomputed %d", n, then.Score, then.Profile, want)
			}
		}
	}
	bad := replicas[0].one(`
		SELECT count(*) FROM audit.own a LEFT JOIN audit.own b ON b.seq = a.seq - 1
		WHERE a.prev <> coalesce(b.hash, '')`)
	if bad != 0 || replicas[0].one(`SELECT count(*) FROM audit.own`) == 0 {
		t.Errorf("the audit's chain is broken in %d places", bad)
	}
}

func TestAChangeOfTheRosterCommitsWithItsAuditRow(t *testing.T) {
	l := newLab(t)
	mira, otto := person("mira", risk.SRE), person("otto", risk.SRE)
	otto.Accounts = nil
	l.send(gitCollector, 1, commit(1, "mira", activity.SecretCommitted, time.Hour))
	rows := func() (list []scorerapi.Enrolled) {
		for row, err := range audited.Export(t.Context(), l.pool, 0, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if row.Kind != scorerapi.KindRoster {
				continue
			}
			var e scorerapi.Enrolled
			if err := httpjson.Strict([]byte(row.Detail), &e); err != nil {
				t.Fatal(err)
			}
			list = append(list, e)
		}
		return list
	}
	want := []scorerapi.Enrolled{{Added: 2, Changed: []string{}, Attributed: 1}}
	l.roster(mira, otto)
	l.roster(mira, otto) // nothing is different
	moved := mira
	moved.Role = risk.BackendDeveloper
	l.roster(moved, otto)
	want = append(want, scorerapi.Enrolled{Changed: []string{"mira"}})
	moved.Accounts = moved.Accounts[:1]
	l.roster(moved)
	want = append(want, scorerapi.Enrolled{Changed: []string{"mira"}})
	if diff := cmp.Diff(want, rows()); diff != "" {
		t.Errorf("rows of the roster (-want +got):\n%s", diff)
	}

	// A roster that is refused has no row.
	thief := person("thief", risk.SRE)
	thief.Accounts = mira.Accounts[:1]
	if code, _ := l.put(instructor, "PUT", "/v1/people", []risk.Person{thief}); code != http.StatusConflict {
		t.Errorf("another person's account: %d", code)
	}
	if got := len(rows()); got != len(want) {
		t.Errorf("%d rows after a refusal, want %d", got, len(want))
	}
}

func TestResetForgetsWhatCameAfter(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE))
	l.send(gitCollector, 1, commit(1, "mira", activity.ForcePush, time.Hour))
	var before, after risk.Assessment
	var p scorerapi.Progress
	l.get("/v1/watermarks", &p)
	l.get("/v1/people/mira/risk?at=2026-10-01T10:00:00Z", &before)
	l.roster(person("cast", risk.SRE))
	l.send(gitCollector, 2, commit(2, "mira", activity.SecretCommitted, time.Hour), commit(3, "cast",
		activity.SecretCommitted, time.Hour))
	code, body := l.put(instructor, "POST", "/v1/reset", scorerapi.ResetOrder{After: &p.Position})
	if code != 200 || body != `{"events":2,"people":1}`+"\n" {
		t.Fatalf("reset: %d %s", code, body)
	}
	l.get("/v1/people/mira/risk?at=2026-10-01T10:00:00Z", &after)
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("mira differs after a reset:\n%s", d)
	}
	if code, _ := l.call(instructor, "GET", "/v1/people/cast/risk", "", ""); code != 404 {
		t.Errorf("the cast is still there: %d", code)
	}
	if _, r := l.send(gitCollector, 4, commit(2, "mira", activity.SecretCommitted,
		time.Hour)); r[0].Status != activity.Stored {
		t.Errorf("the scenario played again: %+v", r)
	}
	l.get("/v1/people/mira/risk", &after)
	if len(after.Contributions) != 2 {
		t.Errorf("%d contributions, want 2", len(after.Contributions))
	}
}

func TestResetOfPeopleForgetsThemAloneWithWhatTheyDid(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.SRE), person("cast", risk.SRE))
	l.send(gitCollector, 1, commit(1, "mira", activity.ForcePush, time.Hour), commit(2, "cast", activity.SecretCommitted,
		time.Hour), commit(3, "stray", activity.ForcePush, time.Hour))
	var before, after risk.Assessment
	l.get("/v1/people/mira/risk?at=2026-10-01T10:00:00Z", &before)
	for what, order := range map[string]scorerapi.ResetOrder{"a position and people": {After: new(int64),
		People: []string{"cast"}}, "neither": {}} {
		if code, body := l.put(instructor, "POST", "/v1/reset", order); code != 422 {
			t.Errorf("%s: %d %s", what, code, body)
		}
	}
	if code, body := l.put(instructor, "POST", "/v1/reset", scorerapi.ResetOrder{People: []string{"cast",
		"nobody"}}); code != 200 ||
		body != `{"events":1,"people":1}`+"\n" {
		t.Fatalf("reset: %d %s", code, body)
	}
	if code, _ := l.call(instructor, "GET", "/v1/people/cast/risk", "", ""); code != 404 {
		t.Errorf("the cast is still there: %d", code)
	}
	l.get("/v1/people/mira/risk?at=2026-10-01T10:00:00Z", &after)
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("another person differs:\n%s", d)
	}
	if n := l.one(`SELECT count(*) FROM risk.score WHERE person = 'cast'`); n != 0 {
		t.Errorf("%d scores of the cast are left", n)
	}
	if n := l.one(`SELECT sum(events) FROM risk.unknown_account`); n != 1 {
		t.Errorf("%d events of unknown accounts, want the stranger's one", n)
	}
}
