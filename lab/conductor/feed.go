package conductor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"example.org/security-training/lab/auditor"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/httpjson"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/topology"
	"example.org/security-training/services/wait"
)

// pushFeed sends news to the console twice a second while it is open: what the scorer made of which events, and the
// state of the identities.
func (c *conductor) pushFeed(ctx context.Context) {
	scorer := ""
	for _, w := range c.op.Node.Topology().OfKind(topology.KindScorer) {
		scorer = w.Name
	}
	after, err := c.newest(ctx, scorer)
	if err != nil {
		return // the console was closed
	}
	last := ""
	for tick := 0; ; tick++ {
		rows, err := c.op.BusinessPage(ctx, scorer, after, 500)
		if err != nil {
			rows = nil // the scorer does not answer, which the state of the identities shows
		}
		f := exercise.Feed{}
		for _, r := range rows {
			after = r.Seq
			lines, err := linesOf(r)
			if err != nil {
				c.log.Warn("tell the console", "error", err.Error())
			}
			f.Lines = append(f.Lines, lines...)
		}
		if n := len(f.Lines); n > 120 {
			f.Lines = f.Lines[n-120:]
		}
		if st, err := c.target.Status(ctx); err == nil {
			for _, w := range st.Workloads {
				f.Identities = append(
					f.Identities,
					exercise.Identity{Workload: w.Name, SPIFFEID: w.SPIFFEID, State: w.State, Serial: w.Serial, Expires: w.Expires},
				)
			}
		}
		if f.Revoked, err = c.removedCallers(); err != nil {
			c.log.Warn("tell the console", "error", err.Error())
		}
		now := fmt.Sprint(f.Identities, f.Revoked)
		if len(f.Lines) > 0 || now != last ||
			tick%10 == 0 { // now and then in any case: the dashboard may have been restarted
			if err := c.op.Ask(ctx, lmsapi.RoutePostFeed, f, nil); err == nil {
				last = now
			}
		}
		if wait.For(ctx, 500*time.Millisecond) != nil {
			return
		}
	}
}

// newest returns the last row of a workload's business chain: earlier rows are not news. It asks until it gets an
// answer or ctx ends.
func (c *conductor) newest(ctx context.Context, workload string) (int64, error) {
	said := ""
	for {
		pins, err := auditor.TipsOf(ctx, c.target, workload)
		if err == nil {
			return int64(pins.Last(audit.RowsOf(workload))), nil
		}
		if err.Error() != said {
			said = err.Error()
			c.log.Warn("tell the console", "error", said)
		}
		if err := wait.For(ctx, 500*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// linesOf returns the lines of the feed for a row of the scorer's chain.
func linesOf(r audit.Row) ([]exercise.FeedLine, error) {
	switch r.Kind {
	case scorerapi.KindAssessment:
		var a scorerapi.Assessed
		if err := detailOf(r, &a); err != nil {
			return nil, err
		}
		return append(arrivals(r, a.Events), exercise.FeedLine{
			At:     r.At,
			Kind:   "score",
			Person: r.Person,
			What:   "scores " + a.Score.String(),
			Level:  string(a.Level),
			Event:  r.Event,
		}), nil
	case scorerapi.KindDeadLetter, scorerapi.KindRejected:
		var u scorerapi.Unfit
		if err := detailOf(r, &u); err != nil {
			return nil, err
		}
		return []exercise.FeedLine{note(r, u.Reason)}, nil
	case scorerapi.KindRoster:
		var e scorerapi.Enrolled
		if err := detailOf(r, &e); err != nil {
			return nil, err
		}
		return []exercise.FeedLine{note(r, fmt.Sprintf("%d people added, %d changed", e.Added, len(e.Changed)))}, nil
	case scorerapi.KindReset:
		var f scorerapi.Forgotten
		if err := detailOf(r, &f); err != nil {
			return nil, err
		}
		return []exercise.FeedLine{note(r, fmt.Sprintf("%d events, %d people", f.Events, f.People))}, nil
	}
	return nil, nil
}

// detailOf decodes a row's detail as strictly as an answer.
func detailOf(r audit.Row, v any) error {
	if err := httpjson.Strict([]byte(r.Detail), v); err != nil {
		return fmt.Errorf("row %d of %s, %s: %w", r.Seq, r.Chain, r.Kind, err)
	}
	return nil
}

func note(r audit.Row, text string) exercise.FeedLine {
	what := exercise.Short(strings.ReplaceAll(r.Kind, "_", " ") + ": " + text)
	return exercise.FeedLine{At: r.At, Kind: "order", Person: r.Person, What: what, Event: r.Event}
}

// mostArrivals is how many events of one assessment the feed names.
const mostArrivals = 4

// arrivals returns a line for each event of an assessment, by source and kind: "git: secret committed".
func arrivals(r audit.Row, events []string) []exercise.FeedLine {
	line := func(what, event string) exercise.FeedLine {
		return exercise.FeedLine{At: r.At, Kind: "event", Person: r.Person, What: what, Event: event}
	}
	var lines []exercise.FeedLine
	for i, id := range events {
		if i == mostArrivals {
			return append(lines, line(fmt.Sprintf("and %d more", len(events)-i), ""))
		}
		source, rest, _ := strings.Cut(id, ":")
		what := source
		if kind, _, named := strings.Cut(rest, "/"); named && !strings.ContainsAny(kind, "0123456789") {
			what += ": " + strings.ReplaceAll(kind, "_", " ")
		}
		lines = append(lines, line(what, id))
	}
	return lines
}
