package lms

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/mesh"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer"
	"example.org/security-training/services/topology"
)

const (
	manyPeople = 5_000
	manyEvents = 1_000_000

	pageWithin = 50 * time.Millisecond // at the median
)

// BenchmarkPagesOfALargeCompany measures every kind of page in a company of 5,000 people and 1,000,000 events: real
// PostgreSQL, the real risk scorer in the same process (so without TLS between the two), pages over HTTP with gzip.
func BenchmarkPagesOfALargeCompany(b *testing.B) {
	pool := database(b)
	ctx := context.Background()
	owner, err := pgxpool.NewWithConfig(ctx, server.Config(b, pool.Config().ConnConfig.Database, "postgres"))
	if err != nil {
		b.Fatal(err)
	}
	defer owner.Close()
	fill(b, owner)

	call := scorerOf(owner)
	gateway := &fakeGateway{}
	l, err := New(
		Config{Pool: pool, Scorer: call, Gateway: gateway.call, Log: slog.New(slog.NewTextHandler(io.Discard, nil))},
	)
	if err != nil {
		b.Fatal(err)
	}
	s := &fixture{LMS: l, t: b, gateway: gateway, web: httptest.NewServer(l.Pages())}
	defer s.web.Close()

	warmUp(b, l, call)
	lessonOf := s.one(`SELECT id::text FROM training.lesson WHERE person = 'p10' AND state = 'ready' LIMIT 1`)
	letter := s.one(`SELECT id::text FROM training.mail WHERE person = 'p10' LIMIT 1`)
	passed := s.one(`SELECT lesson::text FROM training.completion WHERE person = 'p10' LIMIT 1`)
	campaign := s.one(`SELECT id::text FROM training.campaign LIMIT 1`)
	why, err := l.scorer.Risk(ctx, "p10")
	if err != nil || len(why.Reasons) == 0 {
		b.Fatal(len(why.Reasons), err)
	}
	for _, c := range []struct {
		who   string
		paths []string
	}{
		{"p10", []string{
			"/", "/training", "/training/" + lessonOf, "/training/" + lessonOf + "/quiz", "/training/" + passed + "/result",
			"/certificates/" + passed, "/mailbox", "/mailbox/" + letter, "/team", "/reasons/" + string(why.Reasons[0].Verb),
		}},
		{site.RoleInstructor, []string{
			"/organisation", "/people", "/people?q=person+49", "/people?from=4000", "/people/p77", "/exercises", "/drills",
			"/drills/" + campaign, "/audit", "/audit?person=p77", "/audit?kind=export", "/console", "/console/identities",
		}},
		// 252 people report to this one: as many as in the largest team that the project generates.
		{fmt.Sprintf("p%d", manyPeople), []string{"/team"}},
		{"", []string{"/sign-in", "/verify"}},
	} {
		s.t = b
		browser := s.as(c.who)
		for _, path := range c.paths {
			name := strings.NewReplacer(lessonOf, "{lesson}", passed, "{passed}", letter, "{mail}", campaign, "{campaign}").
				Replace(path)
			b.Run(url.PathEscape(c.who)+name, func(b *testing.B) {
				s.t = b
				measure(b, browser, path)
			})
		}
	}
}

// scorerOf calls a risk scorer in the same process, as the learning system would over the mesh.
func scorerOf(owner *pgxpool.Pool) riskclient.Call {
	scorer := riskscorer.New(
		owner,
		risk.MustProfile(risk.Default),
		"security-training.example.org",
		nil,
		slog.New(slog.DiscardHandler),
	)
	mux := http.NewServeMux()
	for pattern, h := range map[string]mesh.HandlerFunc{
		"GET /v1/people": scorer.People, "GET /v1/people/{person}/risk": scorer.Risk,
		"GET /v1/organisation": scorer.Organisation, "GET /v1/clock": scorer.Clock, "POST /v1/events": scorer.Events,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				httpjson.WriteError(w, err)
			}
		})
	}
	return func(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
		r := httptest.NewRequestWithContext(
			mesh.WithCaller(ctx, topology.Workload{Name: "lms", Kind: topology.KindDashboard}, "1f"),
			method,
			path,
			strings.NewReader(string(body)),
		)
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Result(), ctx.Err()
	}
}

// warmUp waits until the risk scorer has read all events, and fills the caches.
func warmUp(b *testing.B, l *LMS, call riskclient.Call) {
	b.Helper()
	begun := time.Now()
	for {
		_, err := l.scorer.People()
		if err == nil {
			break
		}
		if time.Since(begun) > 3*time.Minute {
			b.Fatal(err)
		}
	}
	b.Logf(
		"the first roster: %v; the next: %v",
		time.Since(begun).Round(time.Millisecond),
		l.scorer.Roster.Took().Round(time.Millisecond),
	)

	for _, warm := range []string{"/organisation", "/v1/people"} {
		at := time.Now()
		if warm == "/organisation" {
			for _, err := l.scorer.Organisation(); err != nil; _, err = l.scorer.Organisation() {
			}
			_, _ = l.scorer.Reasons()
		} else if resp, err := call(context.Background(), "GET", warm, "", nil); err == nil {
			resp.Body.Close()
		}
		b.Logf("%s again: %v", warm, time.Since(at).Round(time.Millisecond))
	}
}

// measure requests a page in a loop, and reports how long that takes.
func measure(b *testing.B, browser *browser, path string) {
	b.Helper()
	var times []time.Duration
	for b.Loop() {
		r, err := http.NewRequest("GET", browser.s.web.URL+path, nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", "gzip")
		at := time.Now()
		p := browser.send(r)
		times = append(times, time.Since(at))
		if p.status != 200 {
			b.Fatalf("%d", p.status)
		}
	}
	slices.Sort(times)
	median := times[len(times)/2]
	b.ReportMetric(float64(median.Microseconds())/1e3, "ms/median")
	b.ReportMetric(float64(times[len(times)*95/100].Microseconds())/1e3, "ms/p95")
	if median > pageWithin && len(times) >= 20 {
		b.Errorf("%s: %v at the median, want under %v", path, median, pageWithin)
	}
}

// fill inserts the people, their events and their training into the database.
func fill(b *testing.B, owner *pgxpool.Pool) {
	b.Helper()
	begun := time.Now()
	for _, q := range []string{
		fmt.Sprintf(`INSERT INTO people.person (id, name, email, role, team, manager, joined, zone, accounts)
			SELECT 'p' || i, 'Person ' || i, 'p' || i || '@example.org', (ARRAY['backend_developer','frontend_developer',
			'devops_engineer','devsecops_engineer','cloud_security_analyst','data_analyst','data_engineer','sre'])[1 + i %% 8],
				'team' || i / 10, CASE WHEN i %% 10 = 0 THEN '' WHEN i > %[1]d - 280 THEN 'p%[1]d' ELSE 'p' || i - i %% 10 END,
				'2025-01-01', 'Europe/Berlin', ARRAY['github:p' || i] FROM generate_series(1, %[1]d) i`, manyPeople),
		fmt.Sprintf(`INSERT INTO risk.event (id, person, source, verb, at, event, collector, serial, late)
			SELECT split_part(verb, '.', 1) || ':' || i, 'p' || 1 + i %% %[2]d, split_part(verb, '.', 1), verb, at,
				jsonb_build_object('id', split_part(verb, '.', 1) || ':' || i, 'at', to_char(at AT TIME ZONE 'UTC',
				'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'source', split_part(verb, '.', 1), 'verb', verb, 'detail', 'something'), 'c', '1',
				false
			FROM (SELECT i, timestamptz '2026-10-01 09:00Z' - interval '1 minute' * (i / %[2]d * 432 + i %% 400) AS at,
				CASE WHEN (i / %[2]d + i) %% 50 < 1 + i %% 4 THEN (ARRAY['git.secret_committed','git.unreviewed_commit',
				'iam.service_account_key','iam.off_hours_access','siem.phishing_click','siem.policy_violation','git.force_push'])[1
				+ (i + i / 7) %% 7] ELSE (ARRAY['git.commit','iam.sign_in','git.push'])[1 + i %% 3] END AS verb
				FROM generate_series(0, %[1]d) i ORDER BY i DESC) e`, manyEvents-1, manyPeople),
		`UPDATE people.person p SET position = e.position FROM (SELECT person, max(position) AS position FROM risk.event
			GROUP BY person) e WHERE e.person = p.id`,
		`INSERT INTO audit.entry (chain, seq, at, kind, person, event, detail, prev, hash) SELECT 'lms', i, now(),
			'delivery', 'p' || i % 5000, 'training:' || i, '{"seq":1}', repeat('a', 64), repeat('b', 64) FROM generate_series(1,
			100000) i`,
		`INSERT INTO audit.tip (chain, seq, hash) VALUES ('lms', 100000, repeat('b', 64))`,
		`INSERT INTO training.campaign (id, lure, team, begun) VALUES (gen_random_uuid(), 'mfa-reset', '',
			'2026-09-30 10:00Z')`,
		`INSERT INTO training.mail (campaign, person, lure, sent, opened) SELECT c.id, p.id, c.lure, c.begun, c.begun FROM
			training.campaign c, people.person p`,
		`INSERT INTO training.outbox (id, event, delivered) SELECT 'training:' || i, jsonb_build_object('id', 'training:' ||
			i, 'at', '2026-08-01T10:00:00Z', 'person', 'p' || 1 + i % 5000, 'source', 'training',
			'verb', 'training.passed', 'module', 'phishing', 'teaches', jsonb_build_array('siem.phishing_click')),
			now() FROM generate_series(1, 50000) i`,
	} {
		if _, err := owner.Exec(context.Background(), q); err != nil {
			b.Fatalf("%.80s: %v", q, err)
		}
	}
	seedLessons(b, owner)
	for _, table := range []string{
		"risk.event", "people.person", "audit.entry", "training.lesson", "training.mail", "training.outbox",
	} {
		if _, err := owner.Exec(
			context.Background(), "ANALYZE "+pgx.Identifier(strings.Split(table, ".")).Sanitize(),
		); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("filled in %v", time.Since(begun).Round(time.Second))
}

// seedLessons inserts two lessons for each person, one passed and one open.
func seedLessons(b *testing.B, owner *pgxpool.Pool) {
	b.Helper()
	g := &fakeGateway{}
	resp, err := g.call(
		context.Background(),
		"POST",
		"/v1/generate",
		"",
		[]byte(`{"subject":"s","role":"sre","module":"phishing"}`),
	)
	if err != nil {
		b.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	for _, q := range []string{
		`INSERT INTO training.lesson (person, module, state, request, lesson, asked) SELECT id, 'phishing', 'ready',
			'{"subject":"s","role":"sre","module":"phishing"}', $1, '2026-09-30 10:00Z' FROM people.person`,
		`INSERT INTO training.lesson (person, module, state, request, lesson, asked) SELECT id, 'phishing', 'passed',
			'{"subject":"s","role":"sre","module":"phishing"}', $1, '2026-09-20 10:00Z' FROM people.person`,
		`INSERT INTO training.attempt (lesson, number, answers, correct, questions, passed, at) SELECT id, 1, array_fill(0,
			ARRAY[jsonb_array_length($1::jsonb->'quiz')]), jsonb_array_length($1::jsonb->'quiz'),
			jsonb_array_length($1::jsonb->'quiz'), true, asked FROM training.lesson WHERE state = 'passed'`,
		`INSERT INTO training.completion (lesson, person, module, event, passed, share, at, before, after) SELECT id, person,
			module, 'training:' || id, true, 1, asked,
			500000000000, 400000000000 FROM training.lesson WHERE state = 'passed' AND $1 <> ''`,
	} {
		if _, err := owner.Exec(context.Background(), q, string(body)); err != nil {
			b.Fatalf("%.80s: %v", q, err)
		}
	}
}
