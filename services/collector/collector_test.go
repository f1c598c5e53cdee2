package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/mesh/meshtest"
	"example.org/security-training/services/source"
)

var secret = []byte("a secret of this source")

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func row(t testing.TB, s activity.Source) source.Row {
	t.Helper()
	r, err := source.Find(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start opens a collector on a spool of its own.
func start(t testing.TB, s activity.Source, limit uint64) *Collector {
	t.Helper()
	spool, err := openSpool(filepath.Join(t.TempDir(), "spool.db"), row(t, s), limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := spool.Close(); err != nil {
			t.Error(err)
		}
	})
	return newCollector(row(t, s), secret, spool, func(context.Context, audit.Entry) {})
}

// killed is what a collector finds that starts after this one was killed now, without any chance to tidy up.
func killed(t testing.TB, c *Collector) *Collector {
	t.Helper()
	b, err := os.ReadFile(c.spool.db.Path())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "spool.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	spool, err := openSpool(path, c.row, c.spool.limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := spool.Close(); err != nil {
			t.Error(err)
		}
	})
	return newCollector(c.row, secret, spool, func(context.Context, audit.Entry) {})
}

// counted checks the promise that nothing accepted is unaccounted for, and gives the counters.
func counted(t testing.TB, c *Collector) collectorapi.Spool {
	t.Helper()
	n, err := c.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if n.Accepted != n.Spooled+n.Stored+n.Duplicate+n.DeadLettered+n.Rejected {
		t.Fatalf("accepted is not the sum of its ends: %+v", n)
	}
	list, err := c.spool.head(1<<20, func(uint64) bool { return false })
	if err != nil || uint64(len(list)) != n.Spooled {
		t.Fatalf("%d entries are spooled, the counter says %d (%v)", len(list), n.Spooled, err)
	}
	return n
}

func push(sha string) []byte {
	at := time.Date(2026, 9, 14, 10, 0, 0, 0, time.UTC)
	commit := source.GitCommit{ID: sha, Distinct: true, Timestamp: at, Author: source.GitAuthor{Username: "mira-k"},
		Added: []string{"a.go"}}
	b, err := json.Marshal(source.GitPush{Ref: "refs/heads/topic", After: sha, Commits: []source.GitCommit{commit},
		Repository: source.NewGitRepository("example", "payments", 1, at),
		Sender:     source.NewGitUser("mira-k", 2)})
	if err != nil {
		panic(err)
	}
	return b
}

// send delivers body as the source's vendor does.
func send(c *Collector, id string, body []byte, change ...func(http.Header)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	switch c.row.Source {
	case activity.Git:
		r.Header.Set("X-GitHub-Event", "push")
		r.Header.Set("X-GitHub-Delivery", id)
		r.Header.Set("X-Hub-Signature-256", source.Sign(secret, body))
	case activity.SIEM:
		r.Header.Set("Authorization", "Splunk "+string(secret))
	}
	for _, f := range change {
		f(r.Header)
	}
	w := httptest.NewRecorder()
	if err := c.accept(c.row.Pushed[0])(w, r); err != nil {
		httpjson.WriteError(w, err)
	}
	return w
}

func want(t testing.TB, w *httptest.ResponseRecorder, status int) {
	t.Helper()
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
}

func TestAcceptedDeliverySurvivesAKillRightAfterTheAnswer(t *testing.T) {
	c := start(t, activity.Git, 1000)
	for i := range 5 {
		want(t, send(c, fmt.Sprint("d", i), push(fmt.Sprint("sha", i))), http.StatusAccepted)
		after := killed(t, c)
		if n := counted(t, after); n.Spooled != uint64(2*(i+1)) || n.Seq != n.Accepted {
			t.Fatalf("after %d deliveries of two events and a kill: %+v", i+1, n)
		}
		// The vendor that got no answer delivers again.
		want(t, send(after, fmt.Sprint("d", i), push(fmt.Sprint("sha", i))), http.StatusOK)
	}
}

func TestRedeliveryIsADuplicateAndItsIdWithAnotherBodyIsRefused(t *testing.T) {
	c := start(t, activity.Git, 1000)
	want(t, send(c, "d", push("one")), http.StatusAccepted)
	before := counted(t, c)
	want(t, send(c, "d", push("one")), http.StatusOK)
	want(t, send(c, "d", push("two")), http.StatusConflict)
	after := counted(t, c)
	if after.Accepted != before.Accepted || after.Redelivered != 1 || after.Refused["delivery_replayed"] != 1 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	// The delivery id is not signed: under a new one the same body is the same events, which the scorer knows by their
	// ids.
	want(t, send(c, "e", push("one")), http.StatusAccepted)
	list, err := c.spool.head(10, func(uint64) bool { return false })
	if err != nil || len(list) != 4 {
		t.Fatal(list, err)
	}
	if !bytes.Equal(list[0].event, list[2].event) || !bytes.Equal(list[1].event, list[3].event) {
		t.Error("one body under two delivery ids gave different events")
	}
}

func TestUnprovenOrMalformedDeliveryLeavesNoTrace(t *testing.T) {
	c := start(t, activity.Git, 1000)
	for _, try := range []struct {
		name   string
		status int
		reason string
		body   []byte
		change func(http.Header)
	}{
		{"no signature", 401, source.SignatureMissing, push("a"), func(h http.Header) { h.Del("X-Hub-Signature-256") }},
		{"rotated secret", 401, source.SignatureFalse, push("a"), func(h http.Header) {
			h.Set("X-Hub-Signature-256", source.Sign([]byte("the old one"), push("a")))
		}},
		{"no delivery id", 400, "delivery_id", push("a"), func(h http.Header) { h.Del("X-GitHub-Delivery") }},
		{"no JSON", 400, "malformed", []byte("{"), nil},
		{"no commit time", 400, "malformed",
			[]byte(`{"ref":"refs/heads/x","after":"1","repository":{"name":"r"},"commits":[{"id":"1","distinct":true}]}`), nil},
		{"wrong type", 415, "", push("a"), func(h http.Header) { h.Set("Content-Type", "text/plain") }},
	} {
		change := try.change
		if change == nil {
			change = func(http.Header) {}
		}
		w := send(c, "d", try.body, change)
		if w.Code != try.status || try.reason != "" && !strings.Contains(w.Body.String(), try.reason) {
			t.Errorf("%s: %d %s, want %d %s", try.name, w.Code, w.Body, try.status, try.reason)
		}
		if n := counted(t, c); n.Accepted != 0 || n.Deliveries != 0 || try.reason != "" && n.Refused[try.reason] == 0 {
			t.Errorf("%s: left %+v", try.name, n)
		}
	}
	// The refused delivery id was not used up.
	want(t, send(c, "d", push("a")), http.StatusAccepted)
}

func TestMalformedDeliveriesAreNoFaultOfTheServer(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, s := range []activity.Source{activity.Git, activity.Jira, activity.IAM, activity.SIEM} {
		c := start(t, s, 1<<40)
		good := map[activity.Source][]byte{activity.Git: push("abc"), activity.SIEM: []byte(finding("1") + finding("2")),
			activity.Jira: []byte(`{"timestamp":1789372800000,"webhookEvent":"jira:issue_updated","user":{"accountId":"5b"},` +
				`"issue":{"id":"1","key":"SEC-1","fields":{"labels":["security"],"duedate":"2026-01-01"}},` +
				`"changelog":{"id":"7","items":[]}}`),
			activity.IAM: []byte(`{"Records":[{"eventID":"1","eventName":"CreateAccessKey","eventTime":"2026-09-14T10:00:00Z",` +
				`"userIdentity":{"userName":"m"}}]}`)}[s]
		answers := map[int]int{}
		var maxGroup sync.WaitGroup
		var mu sync.Mutex
		for worker := range 8 {
			seed := r.Uint64()
			maxGroup.Go(func() {
				r := rand.New(rand.NewPCG(seed, 1))
				for i := range 1250 {
					body := slices.Clone(good)
					for range r.IntN(6) {
						body[r.IntN(len(body))] = byte(r.IntN(256))
					}
					body = body[:len(body)-r.IntN(2)*r.IntN(len(body))]
					w := send(c, fmt.Sprint(worker, "-", i), body, func(h http.Header) {
						if s == activity.Jira {
							h.Set("X-Atlassian-Webhook-Identifier", fmt.Sprint(worker, "-", i))
							h.Set("X-Hub-Signature", source.Sign(secret, body))
						}
					})
					mu.Lock()
					answers[w.Code]++
					mu.Unlock()
				}
			})
		}
		maxGroup.Wait()
		for code, n := range answers {
			if code != http.StatusOK && code != http.StatusAccepted && code != http.StatusBadRequest {
				t.Errorf("%s: %d times status %d", s, n, code)
			}
		}
		if answers[http.StatusBadRequest] < 1000 {
			t.Errorf("%s: hardly anything was malformed: %v", s, answers)
		}
		counted(t, c)
	}
}

func TestFailedWriteIsA503AndNotReadyAndTheProcessGoesOn(t *testing.T) {
	c := start(t, activity.Git, 1000)
	size := c.spool.db.MaxSize
	c.spool.db.MaxSize = 1 // as if the disk were full
	var w *httptest.ResponseRecorder
	for i := range 200 {
		if w = send(c, fmt.Sprint("d", i), push(fmt.Sprint("sha", i))); w.Code != http.StatusAccepted {
			break
		}
	}
	want(t, w, http.StatusServiceUnavailable)
	if w.Header().Get("Retry-After") == "" || c.spool.ready(t.Context()) == nil {
		t.Errorf("Retry-After %q, ready %v", w.Header().Get("Retry-After"), c.spool.ready(t.Context()))
	}
	before := counted(t, c)
	c.spool.db.MaxSize = size
	want(t, send(c, "again", push("again")), http.StatusAccepted)
	if n := counted(t, c); n.Accepted != before.Accepted+2 || c.spool.ready(t.Context()) != nil {
		t.Errorf("%+v after %+v", n, before)
	}
}

func finding(uid string) string {
	return `{"time":1789372800.5,"event":{"class_uid":2004,"activity_id":1,"type_uid":200401,"finding_info":{"uid":"` +
		uid + `","title":"x","types":["Malware"]},"evidences":[{"user":{"email_addr":"m@example.org"}}]}}`
}

func TestOneBadEnvelopeRefusesTheWholeBatch(t *testing.T) {
	c := start(t, activity.SIEM, 1000)
	want(t, send(c, "", []byte(finding("1")+finding("2")+`{"event":{}}`)), http.StatusBadRequest)
	if n := counted(t, c); n.Accepted != 0 {
		t.Fatalf("a refused batch left %+v", n)
	}
	w := send(c, "", []byte(finding("1")+"\n"+finding("2")))
	want(t, w, http.StatusOK)
	if got := strings.TrimSpace(w.Body.String()); got != `{"text":"Success","code":0}` {
		t.Errorf("answer %s", got)
	}
	if n := counted(t, c); n.Accepted != 2 {
		t.Errorf("accepted %+v", n)
	}
}

func TestFullSpoolTurnsAwayUntilThereIsRoom(t *testing.T) {
	c := start(t, activity.Git, 3)
	want(t, send(c, "1", push("a")), http.StatusAccepted)
	w := send(c, "2", push("b"))
	want(t, w, http.StatusServiceUnavailable)
	if w.Header().Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
	if err := c.spool.acknowledge(t.Context(), []activity.Receipt{{Seq: 1, Status: activity.Stored}}); err != nil {
		t.Fatal(err)
	}
	want(t, send(c, "2", push("b")), http.StatusAccepted)
	if n := counted(t, c); n.Spooled != 3 || n.Watermark != 1 {
		t.Errorf("%+v", n)
	}
}

// What a collector accepted and had to give up is counted by reason, without the words behind a colon, and not without
// bound.
func TestWhatIsGivenUpIsCountedByReason(t *testing.T) {
	c := start(t, activity.Git, 1000)
	for i := range 30 {
		want(t, send(c, fmt.Sprint(i), push(fmt.Sprint("sha", i))), http.StatusAccepted)
	}
	seq := uint64(0)
	give := func(status activity.Status, reason string) {
		t.Helper()
		seq++
		if err := c.spool.acknowledge(t.Context(), []activity.Receipt{{Seq: seq, Status: status,
			Reason: reason}}); err != nil {
			t.Fatal(err)
		}
	}
	give(activity.Rejected, activity.TooFarAhead)
	give(activity.Rejected, activity.TooFarAhead)
	give(activity.DeadLettered, activity.CannotBeStored+": failed 5 times: a long story")
	give(activity.Stored, "")
	before := counted(t, c)
	if want := map[string]uint64{activity.TooFarAhead: 2, activity.CannotBeStored: 1}; !maps.Equal(want, before.GivenUp) {
		t.Errorf("given up %v, want %v", before.GivenUp, want)
	}
	for i := range 26 {
		give(activity.Rejected, fmt.Sprint("made-up-", i))
	}
	n := counted(t, c)
	if len(n.GivenUp) > maxReasons+1 || n.GivenUp["other"] == 0 || n.Rejected != 28 || n.DeadLettered != 1 {
		t.Errorf("given up: %+v", n)
	}
	if len(before.GivenUp) != 2 {
		t.Error("counters that were handed out have changed")
	}
}

func TestHundredsOfConcurrentDeliveriesShareCommits(t *testing.T) {
	c := start(t, activity.Git, 10_000)
	before := c.spool.db.Stats().TxStats
	var maxGroup sync.WaitGroup
	for i := range 400 {
		maxGroup.Go(func() {
			if w := send(c, fmt.Sprint(i), push(fmt.Sprint("sha", i))); w.Code != http.StatusAccepted {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
		})
	}
	maxGroup.Wait()
	after := c.spool.db.Stats().TxStats
	if n := counted(t, c); n.Accepted != 800 {
		t.Errorf("%+v", n)
	}
	// A commit for each would write at least a leaf of each bucket and the meta page.
	if pages := after.Write - before.Write; pages >= 400 {
		t.Errorf("400 deliveries wrote %d pages", pages)
	}
}

func TestMemoryForgetsTheOldest(t *testing.T) {
	c := start(t, activity.Git, 10_000)
	c.spool.memoryLimit = 20
	for i := range 50 {
		want(t, send(c, fmt.Sprint("d", i), push(fmt.Sprint("sha", i))), http.StatusAccepted)
	}
	err := c.spool.db.View(func(tx *bolt.Tx) error {
		seen, memory, age := tx.Bucket(seenBucket).Stats().KeyN, tx.Bucket(memoryBucket).Stats().KeyN,
			tx.Bucket(ageBucket).Stats().KeyN
		if seen+memory != 20 || age != 20 {
			t.Errorf("%d deliveries and %d memories by %d ages are kept, want 20", seen, memory, age)
		}
		if tx.Bucket(seenBucket).Get([]byte("d49")) == nil || tx.Bucket(seenBucket).Get([]byte("d0")) != nil {
			t.Error("the newest went or the oldest stayed")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// scorer stands where the risk scorer is: answer decides about one call, by its number and its entries.
type scorer struct {
	mu     sync.Mutex
	calls  int
	stored map[string]int
	answer func(call int, entries []activity.Entry) (*http.Response, error)
}

// One event through real mutual TLS: vendor, collector, scorer; and what the topology does not list is refused.
func TestDeliveryReachesTheScorerOverTheMesh(t *testing.T) {
	text, err := os.ReadFile("../../manifests/chart/topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	net := meshtest.Start(t, text)
	events := make(chan []byte, 10)
	scorer := net.Join(t, "risk-scorer")
	for _, r := range scorer.Self().Routes() {
		scorer.Handle(r, func(w http.ResponseWriter, r *http.Request) error {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			events <- body
			w.Header().Set("Content-Type", batchType)
			for i := range bytes.Count(body, []byte("\n")) {
				fmt.Fprintf(w, `{"seq":%d,"status":"stored"}`+"\n", i+1)
			}
			return nil
		})
	}
	net.Serve(t, scorer)
	node := net.Join(t, "git-collector")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, node, t.TempDir(), secret, 1000) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	meshtest.AwaitPort(t, net.Addr("git-collector"))

	vendor := net.Join(t, "sim-git").Peer("git-collector")
	body := push("abc")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://git-collector/webhooks/github",
		bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"Content-Type": "application/json", "X-GitHub-Event": "push",
		"X-GitHub-Delivery": "d1", "X-Hub-Signature-256": source.Sign(secret, body)} {
		req.Header.Set(k, v)
	}
	resp, err := vendor.HTTP().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("status %d", resp.StatusCode)
	}
	if got := <-events; !bytes.Contains(got, []byte(`"id":"git:commit/payments/abc"`)) {
		t.Errorf("the scorer got %s", got)
	}
	instructor := net.Join(t, "instructor").Peer("git-collector")
	meshtest.Await(t, "stored", func() bool {
		resp, err := instructor.Get(t.Context(), "/v1/spool")
		if err != nil {
			t.Fatal(err)
		}
		var n collectorapi.Spool
		if err := httpjson.ReadAnswer(resp, 1<<20, &n); err != nil {
			t.Fatal(err)
		}
		return n.Stored == 2 && n.Spooled == 0
	})
	net.AwaitAudit(t, "git-collector", "the event", func(e audit.Entry) bool {
		return e.Event == "git:commit/payments/abc" && strings.HasSuffix(e.Peer, "/sim-git")
	})
	if _, err := net.Join(t, "sim-jira").Peer("git-collector").Post(t.Context(), "/webhooks/github", "application/json",
		body); err == nil {
		t.Error("another simulator reached the collector")
	}
}

func BenchmarkDeliveries(b *testing.B) {
	c := start(b, activity.Git, 1<<40)
	body := make([][]byte, 64)
	for i := range body {
		body[i] = push(fmt.Sprint("sha", i))
	}
	var n int64
	var mu sync.Mutex
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			i := n
			mu.Unlock()
			if w := send(c, fmt.Sprint(i), body[i%64]); w.Code != http.StatusAccepted {
				b.Fatal(w.Code)
			}
		}
	})
}
