package conductor

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
)

// story collects everything that the chains say about an event: what a collector accepted, what the scorer made of it,
// and the lessons that the person got from then on.
func (c *conductor) story(ctx context.Context, event string) ([]exercise.StoryLine, error) {
	var lines []exercise.StoryLine
	for _, w := range c.op.Node.Topology().Workloads {
		if w.Kind == topology.KindOperator {
			continue
		}
		entries, err := lab.Entries(ctx, c.target, w.Name)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Event == event {
				detail := strings.TrimSpace(strings.Join([]string{e.Route, e.Outcome, e.Reason, e.Line()}, " "))
				if e.Peer != "" {
					detail += ", from " + e.Peer + ", serial number " + e.Serial
				}
				lines = append(
					lines,
					exercise.StoryLine{At: e.At, Where: w.Name, What: e.Kind, Person: e.Person, Detail: detail, Hash: e.Hash},
				)
			}
		}
	}
	person, since := "", time.Time{}
	for _, w := range c.op.Node.Topology().Serving(audit.RouteRows) {
		rows, err := c.op.RowsAbout(ctx, w.Name, url.Values{"event": {event}})
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if strings.HasPrefix(r.Kind, "order") || r.Kind == "search" {
				continue // a query about the event does not belong to its story
			}
			if r.Event == event || mentions(r, event) {
				lines = append(
					lines,
					exercise.StoryLine{At: r.At, Where: w.Name, What: r.Kind, Person: r.Person, Detail: lineOf(r), Hash: r.Hash},
				)
				if r.Kind == scorerapi.KindAssessment && person == "" {
					person, since = r.Person, r.At
				}
			}
		}
	}
	if person != "" {
		more, err := c.lessons(ctx, person, since)
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
	}
	slices.SortStableFunc(lines, func(a, b exercise.StoryLine) int { return a.At.Compare(b.At) })
	return lines, nil
}

// lessons returns the rows about what person was taught from since on.
func (c *conductor) lessons(ctx context.Context, person string, since time.Time) ([]exercise.StoryLine, error) {
	var lines []exercise.StoryLine
	for _, w := range c.op.Node.Topology().Serving(audit.RouteRows) {
		if w.Kind != topology.KindDashboard {
			continue
		}
		rows, err := c.op.RowsAbout(
			ctx,
			w.Name,
			url.Values{"person": {person}, "since": {since.UTC().Format(time.RFC3339Nano)}},
		)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			if r.Person == person && r.At.After(since) &&
				slices.Contains([]string{"lesson.asked", "lesson.written", "attempt", "completion", "delivery"}, r.Kind) &&
				len(lines) < 20 {
				lines = append(
					lines,
					exercise.StoryLine{At: r.At, Where: w.Name, What: r.Kind, Person: r.Person, Detail: lineOf(r), Hash: r.Hash},
				)
			}
		}
	}
	return lines, nil
}

// mentions says whether a row is an assessment of an event.
func mentions(r audit.Row, event string) bool {
	var a scorerapi.Assessed
	return r.Kind == scorerapi.KindAssessment && detailOf(r, &a) == nil && slices.Contains(a.Events, event)
}

// lineOf writes a row's detail as one line for people. A detail that it does not know is shown as it is.
func lineOf(r audit.Row) string {
	var a scorerapi.Assessed
	if r.Kind == scorerapi.KindAssessment && detailOf(r, &a) == nil {
		return a.String()
	}
	return oneLine(r.Detail)
}
