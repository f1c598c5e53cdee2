package lms

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/risk"
)

var labNow = time.Date(2026, 10, 1, 10, 0, 0, 0, time.UTC)

// fakeScorer is a risk scorer with the real model and events in memory.
type fakeScorer struct {
	profile *risk.Profile

	mu          sync.Mutex
	people      []risk.Person
	events      map[string][]activity.Event
	seen        map[string]bool
	accounts    int
	missing     []activity.Source // silent sources
	unavailable bool
	loseAnswers int            // number of answers to POST /v1/events that are lost after the events are stored
	failRisks   int            // number of requests for a risk that fail after the next POST /v1/events
	asked       map[string]int // by path
	posts       int
	elapsed     time.Duration // by which the lab's clock is after labNow
}

func newFakeScorer(t testing.TB) *fakeScorer {
	p, err := risk.ProfileByName(risk.Default)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeScorer{profile: p, events: map[string][]activity.Event{}, seen: map[string]bool{}, asked: map[string]int{}}
}

func (f *fakeScorer) set(change func()) { f.mu.Lock(); defer f.mu.Unlock(); change() }

func (f *fakeScorer) call(_ context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unavailable {
		return nil, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	path, query, _ := strings.Cut(path, "?")
	f.asked[path]++
	if f.posts > 0 && f.failRisks > 0 && strings.HasSuffix(path, "/risk") {
		f.failRisks--
		return nil, errors.New("connection reset")
	}
	switch {
	case method == "GET" && path == "/v1/people":
		return answer(w, f.standings(query))
	case method == "GET" && path == "/v1/organisation":
		return answer(w, f.organisation())
	case method == "GET" && path == "/v1/clock":
		return answer(w, risk.Clock{Now: labNow.Add(f.elapsed), Pace: 1})
	case method == "GET" && strings.HasSuffix(path, "/risk"):
		id := strings.TrimSuffix(strings.TrimPrefix(path, "/v1/people/"), "/risk")
		i := slices.IndexFunc(f.people, func(p risk.Person) bool { return p.ID == id })
		if i < 0 {
			httpjson.WriteError(w, httpjson.Errorf(404, "unknown_person", "nobody"))
			return w.Result(), nil
		}
		return answer(w, f.assessment(f.people[i]))
	case method == "POST" && path == "/v1/events" && contentType == "application/x-ndjson":
		return f.take(w, body)
	}
	return nil, fmt.Errorf("no route %s %s %s", method, path, contentType)
}

// standings are the people with scores, the highest first: by query those of runs as well, or a shadow profile.
func (f *fakeScorer) standings(query string) []risk.Standing {
	list := []risk.Standing{}
	for _, p := range f.people {
		if p.Run != "" && query != "runs=all" {
			continue
		}
		s := f.profile.Score(p.Role, f.events[p.ID], labNow)
		standing := risk.Standing{
			Person:    p,
			At:        labNow.Add(f.elapsed),
			Score:     s,
			Level:     f.profile.Level(s),
			Frequency: f.profile.Level(s).Frequency(),
		}
		standing.Due, _ = f.profile.Due(p.Role, f.events[p.ID], standing.Level, labNow)
		standing.Escalation = standing.Frequency.Escalate(standing.Due, labNow.Add(f.elapsed))
		if name, ok := strings.CutPrefix(query, "shadow="); ok {
			other := risk.MustProfile(name)
			score := other.Score(p.Role, f.events[p.ID], labNow)
			standing.Shadow = &risk.Shadow{Profile: name, Version: other.Version, Score: score, Level: other.Level(score)}
		}
		list = append(list, standing)
	}
	slices.SortStableFunc(list, func(a, b risk.Standing) int { return int(min(1, max(-1, b.Score-a.Score))) })
	return list
}

func (f *fakeScorer) organisation() risk.Organisation {
	var list []risk.Standing
	for _, p := range f.people {
		if p.Run == "" {
			list = append(list, risk.Standing{Person: p, Score: f.profile.Score(p.Role, f.events[p.ID], labNow)})
		}
	}
	o := f.profile.Organise(list, labNow)
	o.Accounts, o.Missing = f.accounts, f.missing
	for i := range 31 {
		at := labNow.Add(time.Duration(i-30) * 24 * time.Hour)
		var then []risk.Standing
		for _, p := range f.people {
			then = append(then, risk.Standing{Person: p, Score: f.profile.Score(p.Role, f.events[p.ID], at)})
		}
		o.Trend = append(o.Trend, risk.Point{At: at, Score: f.profile.Organise(then, at).Score})
	}
	return o
}

func (f *fakeScorer) assessment(p risk.Person) risk.Assessment {
	// A moment later than any passed training, which lowers the parts of earlier events.
	a := f.profile.Assess(p.ID, p.Role, f.events[p.ID], labNow.Add(f.elapsed+time.Second))
	var times []time.Time
	for i := range 31 {
		times = append(times, labNow.Add(time.Duration(i-30)*24*time.Hour))
	}
	a.Trend, a.Missing = f.profile.Trend(p.Role, f.events[p.ID], times), f.missing
	return a
}

// take stores events. Its answer is lost if loseAnswers says so.
func (f *fakeScorer) take(w *httptest.ResponseRecorder, body []byte) (*http.Response, error) {
	f.posts++
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		var e activity.Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, err
		}
		r := activity.Receipt{Seq: e.Seq, ID: e.Event.ID, Status: activity.Stored}
		if err := e.Event.Validate(); err != nil || e.Event.Source != activity.Training {
			r.Status, r.Reason = activity.Rejected, fmt.Sprint(err)
		} else if f.seen[e.Event.ID] {
			r.Status = activity.Duplicate
		} else {
			f.seen[e.Event.ID] = true
			f.events[e.Event.Person] = append(f.events[e.Event.Person], *e.Event)
		}
		_ = json.NewEncoder(w).Encode(r)
	}
	if f.loseAnswers > 0 {
		f.loseAnswers--
		return nil, errors.New("connection reset")
	}
	return w.Result(), nil
}

func answer(w *httptest.ResponseRecorder, v any) (*http.Response, error) {
	err := httpjson.Write(w, 200, v)
	return w.Result(), err
}

// fakeGateway answers with the built-in lesson as if a model had written it.
type fakeGateway struct {
	mu    sync.Mutex
	asked []lesson.Request
	edit  func(*lesson.Lesson)
	fail  error
	hold  chan struct{} // when set, answers wait for it
}

func (g *fakeGateway) call(ctx context.Context, _, path, _ string, body []byte) (*http.Response, error) {
	var req lesson.Request
	if err := json.Unmarshal(body, &req); err != nil || path != "/v1/generate" {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	g.mu.Lock()
	g.asked = append(g.asked, req)
	edit, fail, hold := g.edit, g.fail, g.hold
	g.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w := httptest.NewRecorder()
	if fail != nil {
		httpjson.WriteError(w, fail)
		return w.Result(), nil
	}
	l := lesson.BuiltIn(req.Module)
	l.Origin, l.Model = lesson.Stub, "gemini-2.5-flash"
	if edit != nil {
		edit(&l)
	}
	return answer(w, l)
}

func (g *fakeGateway) set(change func()) { g.mu.Lock(); defer g.mu.Unlock(); change() }
