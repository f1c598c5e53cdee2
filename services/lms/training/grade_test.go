package training

import (
	"errors"
	"os"
	"testing"
	"time"

	"example.org/security-training/services/lesson"
	"example.org/security-training/services/lms/store"
	"example.org/security-training/services/postgres/pgtest"
	"example.org/security-training/services/topology"
)

// server is a real PostgreSQL, one for all tests of the package; each test has a database of its own.
var server pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &server)) }

var at = time.Date(2026, 10, 1, 10, 0, 0, 0, time.UTC)

// The page asks whose lesson it is, and so does the write: neither relies on the other.
func TestTheLessonOfAnotherPersonIsNotGraded(t *testing.T) {
	s := &Store{&store.Store{Pool: server.Database(t, topology.KindDashboard)}}
	l := lesson.BuiltIn("phishing")
	id, err := s.begin(t.Context(), "mira.keller", lesson.Request{Module: "phishing"}, at)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.written(t.Context(), id, l); err != nil {
		t.Fatal(err)
	}
	var right []int
	for _, q := range l.Quiz {
		right = append(right, q.Answer)
	}
	for _, person := range []string{"tom.brandt", "", "Mira.Keller", "mira.kelle"} {
		g, err := s.grade(t.Context(), id, person, 1, right, nil, at)
		if !errors.Is(err, store.ErrNotFound) || g.Event != "" {
			t.Errorf("graded for %q: %+v, %v", person, g, err)
		}
	}
	for table, query := range map[string]string{
		"attempts":    `SELECT count(*) FROM training.attempt`,
		"completions": `SELECT count(*) FROM training.completion`,
		"events":      `SELECT count(*) FROM training.outbox`,
		"audit rows":  `SELECT count(*) FROM audit.own WHERE kind IN ('attempt', 'completion')`,
	} {
		var n int
		if err := s.Pool.QueryRow(t.Context(), query).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d %s of a lesson that none of these owns (%v)", n, table, err)
		}
	}
	if g, err := s.grade(t.Context(), id, "mira.keller", 1, right, nil, at); err != nil || !g.Passed || g.Event == "" {
		t.Errorf("graded for its own person: %+v, %v", g, err)
	}
}

// Three quarters pass, and not one answer less.
func TestThreeQuartersOfTheAnswersPass(t *testing.T) {
	for _, c := range []struct {
		correct, questions int
		want               bool
	}{
		{3, 4, true}, {2, 4, false}, {4, 5, true}, {3, 5, false},
		{6, 8, true}, {5, 8, false}, {75, 100, true}, {74, 100, false},
	} {
		if got := enough(c.correct, c.questions); got != c.want {
			t.Errorf("%d of %d: passed %v, want %v", c.correct, c.questions, got, c.want)
		}
		need := 0
		for !enough(need, c.questions) {
			need++
		}
		if said := (passPercent*c.questions + 99) / 100; said != need {
			t.Errorf("of %d the quiz says that %d are needed, and %d are", c.questions, said, need)
		}
	}
}

// What the gateway writes after a reset took the lesson away, or after it was written, changes nothing.
func TestALessonIsWrittenOnceAndNotAfterItIsGone(t *testing.T) {
	s := &Store{&store.Store{Pool: server.Database(t, topology.KindDashboard)}}
	first, second := lesson.BuiltIn("phishing"), lesson.BuiltIn("phishing")
	second.Title = "Another one"
	id, err := s.begin(t.Context(), "mira.keller", lesson.Request{Module: "phishing"}, at)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []lesson.Lesson{first, second} {
		if err := s.written(t.Context(), id, l); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.refuse(t.Context(), id, at, "over_quota"); err != nil {
		t.Fatal(err)
	}
	got, err := s.lesson(t.Context(), id)
	if err != nil || got.State != StateReady || got.Lesson == nil || got.Lesson.Title != first.Title {
		t.Errorf("the lesson is %+v, %v", got, err)
	}
	var rows int
	query := `SELECT count(*) FROM audit.own WHERE kind IN ('lesson.written', 'lesson.refused')`
	if err := s.Pool.QueryRow(t.Context(), query).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d audit rows say that it was written or refused, %v", rows, err)
	}
}
