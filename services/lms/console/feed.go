package console

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/postgres/audited"
)

type feedRow struct {
	exercise.FeedLine
	Icon string
}

// feedRows are the latest lines of the feed, the newest first, at most most.
func (c *Console) feedRows(most int) []feedRow {
	c.hub.mu.Lock()
	lines := slices.Clone(c.hub.feed)
	c.hub.mu.Unlock()
	var rows []feedRow
	for _, line := range slices.Backward(lines) {
		rows = append(rows, feedRow{line, cmp.Or(feedIcons[line.Kind], "audit")})
		if len(rows) == most {
			break
		}
	}
	return rows
}

// lineOf is an audit row as a line of the feed; false if the feed does not show rows of this kind.
func lineOf(r audited.Row, at time.Time) (exercise.FeedLine, bool) {
	what, ok := feedWords[r.Kind]
	kind := "lesson"
	if r.Kind == "sign_in" {
		kind = "sign-in"
		var p site.Principal
		if r.Person == "" && json.Unmarshal([]byte(r.Detail), &p) == nil && p.Role != "" {
			what = "an " + p.Role + " signs in"
		}
	}
	return exercise.FeedLine{At: at, Kind: kind, Person: r.Person, What: what, Event: r.Event}, ok
}

// feedIcons are the icons of a line, by its kind.
var feedIcons = map[string]string{"event": "pending", "score": "risk", "lesson": "training", "sign-in": "team"}

// feedWords say what happened, by the kind of an audit row.
var feedWords = map[string]string{
	"lesson.asked":   "asks for a lesson",
	"lesson.written": "gets a lesson about these acts",
	"lesson.refused": "has to wait for a lesson",
	"attempt":        "hands a quiz in",
	"completion":     "completes a lesson",
	"sign_in":        "signs in",
}

// restoreFeed adds the lines from before this process started to the feed, once.
func (c *Console) restoreFeed(ctx context.Context) error {
	h := c.hub
	h.restoring.Lock()
	defer h.restoring.Unlock()
	if h.restored {
		return nil
	}
	lines, err := c.store.feedOf(ctx, c.log, h.begun)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(lines)
	h.restored = true
	return nil
}
