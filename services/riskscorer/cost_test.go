package riskscorer

import (
	"context"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
)

// past gives a person n events of up to a year ago, the last hundred of them within the window, straight into the
// table.
func (l *lab) past(owner *pgxpool.Pool, who string, n int) {
	l.t.Helper()
	if _, err := owner.Exec(context.Background(), `
		INSERT INTO risk.event (id, person, source, verb, at, event, late, collector, serial)
		SELECT 'git:old/' || $1 || i, $1, 'git', 'git.unreviewed_commit', at,
			jsonb_build_object('id', 'git:old/' || $1 || i,
				'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'source', 'git',
				'verb', 'git.unreviewed_commit', 'accounts', jsonb_build_array('github:' || $1)),
			false, 'spiffe://x/git-collector', '2a'
		FROM (
			SELECT i, $3::timestamptz - CASE WHEN i > $2::int - 100 THEN ($2 - i + 1) * interval '6 hours'
				ELSE interval '40 days' + ($2 - i) * (interval '325 days' / $2) END AS at
			FROM generate_series(1, $2) i
		) x`,
		who, n, risk.Epoch); err != nil {
		l.t.Fatal(err)
	}
}

// BenchmarkOneMoreEvent is what a batch of one event costs, by the length of its person's history. The last line
// compares the longest with the shortest in the same run.
func BenchmarkOneMoreEvent(b *testing.B) {
	l := newLab(b)
	owner, err := pgxpool.NewWithConfig(context.Background(), cluster.Config(b, l.pool.Config().ConnConfig.Database,
		"postgres"))
	if err != nil {
		b.Fatal(err)
	}
	defer owner.Close()
	seq := uint64(0)
	median := map[int]time.Duration{}
	for _, n := range []int{100, 10_000, 100_000} {
		who := fmt.Sprintf("p%d", n)
		l.roster(person(who, risk.BackendDeveloper))
		l.past(owner, who, n)
		one := func() {
			seq++
			e := commit(int(seq), who, activity.UnreviewedCommit, time.Duration(seq%500)*time.Minute)
			if code, receipts := l.send(gitCollector, seq, e); code != 200 || receipts[0].Status != activity.Stored {
				b.Fatalf("%d %v", code, receipts)
			}
		}
		one() // reads the history once
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var times []time.Duration
			for b.Loop() {
				at := time.Now()
				one()
				times = append(times, time.Since(at))
			}
			slices.Sort(times)
			median[n] = times[len(times)/2]
			b.ReportMetric(float64(median[n].Microseconds())/1e3, "ms/median")
		})
	}
	if median[100] > 0 && median[100_000] > 0 {
		b.Logf("after 100,000 events %.2f times what it is after 100, at the median",
			float64(median[100_000])/float64(median[100]))
	}
}

// An event is added to its person's state, which is rebuilt only for a cause, and each stored score is exactly the
// score of all the person's events: on time, late, from an account that is known only now, after a leaver came back,
// and after a reset.
func TestAPersonStateScoresAsTheWholeHistoryAndIsRebuiltOnlyForACause(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.BackendDeveloper))
	seq := uint64(0)
	send := func(verb activity.Verb, who string, ago ...time.Duration) *personState {
		t.Helper()
		for _, d := range ago {
			seq++
			if code, receipts := l.send(gitCollector, seq, commit(int(seq), who, verb, d)); code != 200 ||
				receipts[0].Status != activity.Stored {
				t.Fatalf("%d %v", code, receipts)
			}
		}
		rows, err := l.pool.Query(t.Context(), `SELECT event FROM risk.event WHERE person = 'mira'`)
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowTo[activity.Event])
		if err != nil {
			t.Fatal(err)
		}
		var at time.Time
		var score int64
		var role risk.Role
		if err := l.pool.QueryRow(t.Context(),
			`SELECT at, score, role FROM risk.score WHERE person = 'mira' ORDER BY position DESC LIMIT 1`).Scan(&at, &score,
			&role); err != nil {
			t.Fatal(err)
		}
		if want := risk.MustProfile(risk.Default).Score(role, risk.Capped(all), at); int64(want) != score {
			t.Errorf("after %s of %v ago: stored %d, all %d events give %d", verb, ago, score, len(all), want)
		}
		if e := l.cache.states["mira"]; e != nil {
			return e.Value.(*cacheEntry).state
		}
		return nil
	}
	first := send(activity.SecretCommitted, "mira", time.Hour)
	same := func(what string, b *personState) {
		t.Helper()
		if b != first {
			t.Errorf("%s: the state was rebuilt", what)
		}
	}
	rebuilt := func(what string, b *personState) {
		t.Helper()
		if b == first || b == nil {
			t.Errorf("%s: the state is still the old one, or missing", what)
		}
		first = b
	}
	same("on time", send(activity.ForcePush, "mira", 50*time.Minute, 40*time.Minute, 30*time.Minute))
	same("ahead of the clock", send(activity.LargeFile, "mira", -5*time.Minute))
	same("an hour late", send(activity.ForcePush, "mira", 2*time.Hour))
	rebuilt("a week late", send(activity.SecretCommitted, "mira", 7*24*time.Hour))
	same("on time again", send(activity.UnreviewedCommit, "mira", time.Minute))
	if code, body := l.put(instructor, "PUT", "/v1/clock", map[string]any{"now": risk.Epoch.Add(time.Hour)}); code != 200 {
		t.Fatalf("clock: %d %s", code, body)
	}
	same("after the clock has reached what lay ahead", send(activity.UnreviewedCommit, "mira", -time.Hour+time.Minute))

	// Events of an account that is Mira's only from now on.
	for range 3 {
		seq++
		if code, _ := l.send(gitCollector, seq, commit(int(seq), "mira-at-home", activity.SecretCommitted,
			time.Hour)); code != 200 {
			t.Fatal(code)
		}
	}
	more := person("mira", risk.SRE)
	more.Accounts = append(more.Accounts, "github:mira-at-home")
	position := l.one(`SELECT max(position) FROM risk.event`)
	l.roster(more)
	rebuilt("a new account, and another role", send(activity.UnreviewedCommit, "mira", 0))

	if code, body := l.put(instructor, "POST", "/v1/reset", map[string]any{"after": position - 5}); code != 200 {
		t.Fatalf("reset: %d %s", code, body)
	}
	rebuilt("after a reset", send(activity.UnreviewedCommit, "mira", -time.Minute))

	// What another replica stores is read from the log.
	other := replica(t, l.pool)
	seq++
	if code, _ := other.send(gitCollector, seq, commit(int(seq), "mira", activity.ForcePush, 0)); code != 200 {
		t.Fatal(code)
	}
	same("another replica stored one meanwhile", send(activity.ForcePush, "mira", -time.Second))
}

// story is what the scorer's chain says of an event.
func (l *lab) story(event string) []audit.Row {
	l.t.Helper()
	code, body := l.call(instructor, "GET", "/v1/audit?"+url.Values{"event": {event}}.Encode(), "", "")
	rows, err := audit.ReadRows(strings.NewReader(body))
	if code != 200 || err != nil {
		l.t.Fatalf("%d %v %s", code, err, body)
	}
	return rows
}

func TestTheStoryOfAnEventIsWhatTheChainSaysOfItAndNothingElse(t *testing.T) {
	l := newLab(t)
	l.roster(person("mira", risk.BackendDeveloper), person("tomas", risk.BackendDeveloper))
	first, second, other := commit(1, "mira", activity.SecretCommitted, time.Hour), commit(2, "mira", activity.ForcePush,
		time.Hour), commit(3, "mira", activity.ForcePush, time.Hour)
	l.send(gitCollector, 1, first, second, commit(9, "tomas", activity.ForcePush, time.Hour))
	l.send(gitCollector, 4, other)
	// the assessment's row is under the first of the batch and mentions both
	for _, e := range []activity.Event{first, second} {
		rows := l.story(e.ID)
		if len(rows) != 1 || rows[0].Kind != "assessment" || rows[0].Person != "mira" || !strings.Contains(rows[0].Detail,
			e.ID) || rows[0].Hash != rows[0].Sum() {
			t.Errorf("of %s: %+v", e.ID, rows)
		}
	}
	if rows := l.story(other.ID); len(rows) != 1 || strings.Contains(rows[0].Detail, first.ID) {
		t.Errorf("of %s: %+v", other.ID, rows)
	}
	if rows := l.story("git:git.force_push/mira/"); len(rows) != 0 {
		t.Errorf("the beginning of an id finds %+v", rows)
	}
	// An assessment keeps its time and score in full: with less of them the score cannot be derived again.
	var want, got scorerapi.Assessed
	want.Events = []string{other.ID}
	if err := l.pool.QueryRow(t.Context(), `
		SELECT at, profile, score, level, position FROM risk.score WHERE person = 'mira' AND profile = $1
		ORDER BY position DESC LIMIT 1`, risk.Default).
		Scan(&want.At, &want.Profile, &want.Score, &want.Level, &want.Position); err != nil {
		t.Fatal(err)
	}
	if rows := l.story(other.ID); len(rows) == 1 {
		if err := httpjson.Strict([]byte(rows[0].Detail), &got); err != nil || !got.At.Equal(want.At) {
			t.Errorf("its audit says %q: %v", rows[0].Detail, err)
		}
		if got.At = want.At; !reflect.DeepEqual(got, want) {
			t.Errorf("the score is %+v, its audit says %+v", want, got)
		}
	}
}

// BenchmarkTheStoryOfAnEvent looks for one among a million rows of the chain.
func BenchmarkTheStoryOfAnEvent(b *testing.B) {
	l := newLab(b)
	owner, err := pgxpool.NewWithConfig(context.Background(), cluster.Config(b, l.pool.Config().ConnConfig.Database,
		"postgres"))
	if err != nil {
		b.Fatal(err)
	}
	defer owner.Close()
	l.roster(person("mira", risk.BackendDeveloper))
	e := commit(2, "mira", activity.ForcePush, time.Hour)
	l.send(gitCollector, 1, commit(1, "mira", activity.SecretCommitted, time.Hour), e)
	if _, err := owner.Exec(context.Background(), `
		INSERT INTO audit.entry (chain, seq, at, kind, person, event, detail, prev, hash)
		SELECT o.chain, 100 + i, now() - i * interval '1 second', 'assessment', 'p' || i % 5000, 'git:old/' || i,
			'lab-v1 0.1 LOW at position ' || i || '; events git:old/' || i, '', ''
		FROM generate_series(1, 1000000) i, (SELECT DISTINCT chain FROM audit.entry) o`); err != nil {
		b.Fatal(err)
	}
	if _, err := owner.Exec(context.Background(), `ANALYZE audit.entry`); err != nil { // as autovacuum does
		b.Fatal(err)
	}
	for b.Loop() {
		if rows := l.story(e.ID); len(rows) != 1 {
			b.Fatalf("%d rows", len(rows))
		}
	}
}
