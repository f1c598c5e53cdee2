package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/activity"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/world"
)

// batch is one act of each vendor, of one person who was hired for this test.
func batch(person, id string, at time.Time) []routine.Act {
	act := func(source activity.Source, verb activity.Verb) routine.Act {
		return routine.Act{
			ID:         fmt.Sprintf("%s-%s", id, source),
			At:         at,
			Person:     person,
			Source:     source,
			Verb:       verb,
			Repository: "payments",
			Path:       "main.go",
			Ticket:     "PAY-1",
			Resource:   "console",
			Detail:     "kill test",
		}
	}
	return []routine.Act{
		act(activity.Git, activity.Commit), act(activity.Jira, activity.TicketUpdated),
		act(activity.IAM, activity.SignIn), act(activity.SIEM, activity.PolicyViolation),
	}
}

// hire adds a person to the roster for one test.
func hire(t *testing.T, id string) risk.Person {
	t.Helper()
	dashed := strings.ReplaceAll(id, ".", "-")
	p := risk.Person{
		ID:     id,
		Name:   "Newly Hired",
		Email:  id + "@example.org",
		Role:   "sre",
		Team:   "test",
		Joined: "2025-01-01",
		Zone:   "Europe/Berlin",
		Accounts: []string{
			"github:" + dashed,
			"email:" + id + "@example.org",
			"jira:" + dashed,
			"okta:" + id + "@example.org",
			"aws:" + dashed,
		},
	}
	if err := l.op.Call(
		t.Context(), serving(t, "PUT /v1/people"), http.MethodPut, "/v1/people", []risk.Person{p}, nil,
	); err != nil {
		t.Fatal(err)
	}
	return p
}

// insist gives a play to every simulator and repeats it after each fault, until each simulator has had every record
// acknowledged. It stands for the vendor, which does not end when its simulator is killed.
func insist(ctx context.Context, play world.Play) error {
	for {
		err := l.op.Perform(ctx, play)
		if err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stored lists the ids of the events that the database holds of a person.
func stored(t *testing.T, person string) []string {
	t.Helper()
	scorer := serving(t, "POST /v1/events")
	conn, err := connect(t, scorer, scorer)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), "SELECT id FROM risk.event WHERE person = $1 ORDER BY id", person)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestNothingIsLostOrDoubledWhileEachProcessIsKilledOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), slack(2*time.Minute, 10*time.Minute))
	defer cancel()
	clock, err := l.op.Clock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	run := fmt.Sprintf("kill-%d", time.Now().UnixNano())

	// This is the result of one batch when no process is killed.
	calm := hire(t, "calm."+run)
	if err := l.op.Perform(
		ctx,
		world.Play{
			ID: run + "-calm", Kind: world.Timeline, Cast: []risk.Person{calm}, Acts: batch(calm.ID, run+"-calm", clock.Now),
		},
	); err != nil {
		t.Fatal(err)
	}
	if err := l.op.AwaitScored(ctx); err != nil {
		t.Fatal(err)
	}
	each := len(stored(t, calm.ID))
	if each < 4 {
		t.Fatalf("a batch of four acts came to %d events", each)
	}

	// Repeat the batch while processes are killed.
	victim := hire(t, "victim."+run)
	over := make(chan struct{})
	var wave sync.WaitGroup
	var issued atomic.Int64
	for range 12 { // at once: the log that is polled makes each wait
		wave.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				id := fmt.Sprintf("%s-%d", run, issued.Add(1))
				if err := insist(
					ctx, world.Play{ID: id, Kind: world.Timeline, Cast: []risk.Person{victim}, Acts: batch(victim.ID, id, clock.Now)},
				); err != nil {
					t.Errorf("batch %s: %v", id, err)
					return
				}
			}
		})
	}
	kills := 0
	for _, name := range processes(t) {
		kill(t, name)
		kills++
	}
	awaitHealthy(t)
	close(over)
	wave.Wait()
	if err := l.op.AwaitScored(ctx); err != nil {
		t.Fatal(err)
	}
	batches := int(issued.Load())
	got := stored(t, victim.ID)
	if len(got) != batches*each {
		t.Errorf("%d batches of %d events came to %d, want %d", batches, each, len(got), batches*each)
	}
	if unique := slices.Compact(slices.Clone(got)); len(unique) != len(got) {
		t.Errorf("%d events are there twice", len(got)-len(unique))
	}
	if batches < kills {
		t.Errorf("only %d batches for %d kills: this proves nothing", batches, kills)
	}
	for _, w := range l.topo.OfKind(topology.KindCollector) {
		var s collectorapi.Spool
		if err := l.op.Call(ctx, w.Name, http.MethodGet, "/v1/spool", nil, &s); err != nil {
			t.Fatal(err)
		}
		if s.Accepted != s.Spooled+s.Stored+s.Duplicate+s.DeadLettered+s.Rejected || s.DeadLettered+s.Rejected > 0 {
			t.Errorf("%s does not add up: %+v", w.Name, s)
		}
	}
	t.Logf("%d kills, %d batches, %d events", kills, batches, len(got))
}

// processes are all processes of the lab except the supervisor: when that ends, all end.
func processes(t *testing.T) []string {
	t.Helper()
	st := awaitHealthy(t)
	var names []string
	for _, w := range st.Workloads {
		names = append(names, w.Name)
	}
	for _, p := range st.Processes {
		if p.Name != "supervisor" {
			names = append(names, p.Name)
		}
	}
	return names
}

// kill ends a process with -9 and waits until the supervisor has another in its place.
func kill(t *testing.T, name string) {
	t.Helper()
	before, err := pidOf(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, slack(20*time.Second, 2*time.Minute), name+" to be started again", func() bool {
		now, err := pidOf(t.Context(), name)
		return err == nil && now != 0 && now != before
	})
}

func TestUpRepairsAfterTheSupervisorIsKilled(t *testing.T) {
	pid, err := pidOf(t.Context(), "supervisor")
	if err != nil {
		t.Fatal(err)
	}
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	position := watermarks(t).Position
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, w := range st.Workloads {
		if l.inCluster() {
			break // which needs no supervisor
		}
		await(t, 5*time.Second, w.Name+" to die with its supervisor", func() bool {
			cmdline, err := procFile(w.PID, "cmdline")
			return err != nil || !bytes.Contains(cmdline, []byte(l.StateDir()))
		})
	}
	if out, err := command(t.Context(), l.name, "status").run(); code(err) != lab.ExitPartly {
		t.Errorf("status without a supervisor: %v, want exit %d\n%s", err, lab.ExitPartly, out)
	}
	if out, err := command(t.Context(), l.name, "up").run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	awaitHealthy(t)
	if after := watermarks(t).Position; after < position {
		t.Errorf("the log ends at %d, it ended at %d before", after, position)
	}
}

func watermarks(t *testing.T) scorerapi.Progress {
	t.Helper()
	var w scorerapi.Progress
	if err := l.op.Call(
		t.Context(), serving(t, "GET /v1/watermarks"), http.MethodGet, "/v1/watermarks", nil, &w,
	); err != nil {
		t.Fatal(err)
	}
	return w
}
