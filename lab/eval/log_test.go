package eval

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
)

// logOf is a company's log, and each person's events.
func logOf(tb testing.TB, size, days int) ([]risk.Person, []byte, map[string][]activity.Event) {
	tb.Helper()
	staff := people.Company(5, size, people.Published)
	var log bytes.Buffer
	e := json.NewEncoder(&log)
	lives := map[string][]activity.Event{}
	for _, a := range routine.Recorded(5, routine.Month(staff, days)) {
		if err := e.Encode(a.Event()); err != nil {
			tb.Fatal(err)
		}
		lives[a.Person] = append(lives[a.Person], a.Event())
	}
	return people.Roster(staff), log.Bytes(), lives
}

func TestLogIsScoredAsEachPersonIs(t *testing.T) {
	roster, log, lives := logOf(t, 250, 30)
	for _, p := range risk.Profiles() {
		standings, n, err := ScoreLog(bytes.NewReader(log), roster, p, risk.Epoch)
		if err != nil || n != bytes.Count(log, []byte("\n")) || len(standings) != 250 {
			t.Fatalf("%d events, %d people, %v", n, len(standings), err)
		}
		for _, s := range standings {
			if want := p.Score(s.Role, lives[s.ID], risk.Epoch); s.Score != want {
				t.Errorf("%s: %s scores %d from the log, %d by itself", p.Name, s.ID, s.Score, want)
			}
		}
	}
	if _, _, err := ScoreLog(
		strings.NewReader("{}\nnonsense\n"), roster, risk.MustProfile(risk.Default), risk.Epoch,
	); err == nil ||
		!strings.Contains(err.Error(), "line 2") {
		t.Errorf("a line that is no event: %v", err)
	}
}

// BenchmarkLog scores 5,000 people from the log of their month, a million events. Run it with -benchtime 1x.
func BenchmarkLog(b *testing.B) {
	roster, log, _ := logOf(b, 5000, 30)
	p := risk.MustProfile(risk.Default)
	events := 0
	for b.Loop() {
		_, n, err := ScoreLog(bytes.NewReader(log), roster, p, risk.Epoch)
		if err != nil || n < 900_000 {
			b.Fatalf("%d events, %v", n, err)
		}
		events += n
	}
	b.ReportMetric(float64(events)/float64(b.N), "events")
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
