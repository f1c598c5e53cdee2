package outbox

import (
	"fmt"
	"os"
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/postgres/pgtest"
	"example.org/security-training/services/topology"
)

// server is a real PostgreSQL, one for all tests of the package.
var server pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &server)) }

// The scorer refuses a batch whose numbers do not rise, and what was known is put in once.
func TestEventsLeaveInTheOrderInWhichTheyCame(t *testing.T) {
	s := &Store{&store.Store{Pool: server.Database(t, topology.KindDashboard)}}
	var events []activity.Event
	for i := range 5 {
		events = append(events, activity.Event{
			ID: fmt.Sprintf("training:%d", 9-i), At: time.Date(2026, 10, 1, 10, 0, 0, 0, time.UTC), Person: "mira",
			Source: activity.Training, Verb: activity.TrainingPassed, Module: "phishing",
		})
	}
	for range 2 {
		if err := s.Add(t.Context(), events, "instructor"); err != nil {
			t.Fatal(err)
		}
	}
	for limit, want := range map[int]int{3: 3, 5: 5, 50: 5} {
		got, err := s.waiting(t.Context(), limit)
		if err != nil || len(got) != want {
			t.Fatalf("of at most %d: %d, %v; want %d", limit, len(got), err, want)
		}
		for i, w := range got {
			if w.ID != events[i].ID || i > 0 && w.Seq <= got[i-1].Seq {
				t.Errorf("at place %d is %s with number %d, want %s", i, w.ID, w.Seq, events[i].ID)
			}
		}
	}
}
