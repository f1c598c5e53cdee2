package conductor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"example.org/security-training/lab/auditor"
	"example.org/security-training/lab/operator"
	"example.org/security-training/services/audit"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/topology"
)

// pushFeed says what happens, twice a second, while the console is open: what the scorer made of which events, and how
// the identities are.
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
			rows = nil // the scorer is away, which the identities show
		}
		f := exercise.Feed{}
		for _, r := range rows {
			after = r.Seq
			f.Lines = append(f.Lines, linesOf(r)...)
		}
		if n := len(f.Lines); n > 120 {
			f.Lines = f.Lines[n-120:]
		}
		if st, err := c.stage.Status(ctx); err == nil {
			for _, w := range st.Workloads {
				f.Identities = append(
					f.Identities,
					exercise.Identity{Workload: w.Name, SPIFFEID: w.SPIFFEID, State: w.State, Serial: w.Serial, Expires: w.Expires},
				)
			}
		}
		if f.Revoked, err = c.struckOff(); err != nil {
			c.log.Warn("tell the console", "error", err.Error())
		}
		now := fmt.Sprint(f.Identities, f.Revoked)
		if len(f.Lines) > 0 || now != last ||
			tick%10 == 0 { // now and then in any case: the dashboard may have been restarted
			if err := c.op.Ask(ctx, lmsapi.RoutePostFeed, f, nil); err == nil {
				last = now
			}
		}
		if operator.Pause(ctx, 500*time.Millisecond) != nil {
			return
		}
	}
}

// newest is the row that a workload's chain of business ends with: what came before is no news. It asks until it knows,
// or ctx ends.
func (c *conductor) newest(ctx context.Context, workload string) (int64, error) {
	said := ""
	for {
		pins, err := auditor.TipsOf(ctx, c.stage, workload)
		if err == nil {
			return int64(pins.Last(audit.RowsOf(workload))), nil
		}
		if err.Error() != said {
			said = err.Error()
			c.log.Warn("tell the console", "error", said)
		}
		if err := operator.Pause(ctx, 500*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// linesOf are what a row of the scorer's chain says to a room.
func linesOf(r audit.Row) []exercise.FeedLine {
	switch r.Kind {
	case "assessment":
		// "decay-v1 0.412000 MEDIUM at position 812, 2026-…; events git:… siem:…"
		head, events, _ := strings.Cut(r.Detail, "; events ")
		var lines []exercise.FeedLine
		for i, id := range strings.Fields(events) {
			if i == 4 {
				lines = append(
					lines,
					exercise.FeedLine{
						At:     r.At,
						Kind:   "event",
						Person: r.Person,
						What:   fmt.Sprintf("and %d more", len(strings.Fields(events))-i),
					},
				)
				break
			}
			source, rest, _ := strings.Cut(id, ":")
			what := source
			if kind, _, named := strings.Cut(rest, "/"); named && !strings.ContainsAny(kind, "0123456789") {
				what += ": " + strings.ReplaceAll(kind, "_", " ")
			}
			lines = append(lines, exercise.FeedLine{At: r.At, Kind: "event", Person: r.Person, What: what, Event: id})
		}
		words := strings.Fields(head)
		if len(words) < 3 {
			return lines
		}
		return append(
			lines,
			exercise.FeedLine{
				At:     r.At,
				Kind:   "score",
				Person: r.Person,
				What:   "scores " + strings.TrimRight(words[1][:min(5, len(words[1]))], " "),
				Level:  words[2],
				Event:  r.Event,
			},
		)
	case "dead_letter", "rejected", "reset":
		return []exercise.FeedLine{
			{
				At:     r.At,
				Kind:   "order",
				Person: r.Person,
				What:   exercise.Short(strings.ReplaceAll(r.Kind, "_", " ") + ": " + r.Detail),
				Event:  r.Event,
			},
		}
	}
	return nil
}
