package riskclient

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/risk"
)

func TestACachedAnswerIsAskedForOnceAndReturnedWhileThePeerIsUnavailable(t *testing.T) {
	var mu sync.Mutex
	now, asked := time.Unix(1000, 0), 0
	var fail error
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	ask := func(context.Context) (int, error) { mu.Lock(); defer mu.Unlock(); asked++; return asked, fail }
	pass := func(d time.Duration, err error) { mu.Lock(); defer mu.Unlock(); now, fail = now.Add(d), err }
	m := Cache[int]{Fresh: time.Second, Usable: time.Second, Last: time.Minute}
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if v, err := m.Get(clock, ask); v != 1 || err != nil {
				t.Errorf("%d %v", v, err)
			}
		})
	}
	group.Wait()
	pass(2*time.Second, errors.New("unavailable"))
	var old *Stale
	if v, err := m.Get(clock, ask); v != 1 || !errors.As(err, &old) {
		t.Errorf("while the peer is unavailable: %d %v", v, err)
	}
	pass(2*time.Minute, errors.New("unavailable"))
	if _, err := m.Get(clock, ask); err == nil || errors.As(err, &old) && err == error(old) {
		t.Errorf("unavailable for long: %v", err)
	}
	pass(0, nil)
	if v, err := m.Get(clock, ask); v != 4 || err != nil {
		t.Errorf("available again: %d %v", v, err)
	}
}

func TestWhoHasLeftIsOutAfterTenSecondsHoweverLongTheScorerTakes(t *testing.T) {
	var mu sync.Mutex
	now, roster := time.Unix(1000, 0), []risk.Standing{{Person: risk.Person{ID: "mira.keller"}}}
	pass := func(d time.Duration) time.Time { mu.Lock(); defer mu.Unlock(); now = now.Add(d); return now }
	s := New(func(context.Context, string, string, string, []byte) (*http.Response, error) {
		pass(6 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		w := httptest.NewRecorder()
		err := httpjson.Write(w, 200, roster)
		return w.Result(), err
	}, func() time.Time { return pass(0) })
	if people, err := s.People(); err != nil || len(people) != 1 {
		t.Fatalf("%v, %v", people, err)
	}
	mu.Lock()
	roster = []risk.Standing{}
	mu.Unlock()
	pass(11 * time.Second)
	if people, err := s.People(); err != nil || len(people) != 0 {
		t.Errorf("eleven seconds later the roster is still %v, %v", people, err)
	}
}
