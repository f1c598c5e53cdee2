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

func (c *Console) feedRows(most int) []feedRow {
	c.hub.mu.Lock()
	lines := slices.Clone(c.hub.feed)
	c.hub.mu.Unlock()
	var rows []feedRow
	for _, line := range slices.Backward(lines) {
		icon := map[string]string{"event": "pending", "score": "risk", "lesson": "training", "sign-in": "team"}[line.Kind]
		rows = append(rows, feedRow{line, cmp.Or(icon, "audit")})
		if len(rows) == most {
			break
		}
	}
	return rows
}

// lineOf is a row of the audit as a line of the feed, if it is one for people.
func lineOf(r audited.Row, at time.Time) (exercise.FeedLine, bool) {
	what, ok := feedWords[r.Kind]
	kind := "lesson"
	if r.Kind == "sign_in" {
		kind = "sign-in"
		var who site.Principal
		if r.Person == "" && json.Unmarshal([]byte(r.Detail), &who) == nil && who.Role != "" {
			what = "an " + who.Role + " signs in"
		}
	}
	return exercise.FeedLine{At: at, Kind: kind, Person: r.Person, What: what, Event: r.Event}, ok
}

var feedWords = map[string]string{
	"lesson.asked": "asks for a lesson", "lesson.written": "gets a lesson about these acts", "lesson.refused": "has to wait for a lesson",
	"attempt": "hands a quiz in", "completion": "completes a lesson", "sign_in": "signs in",
}

// recall reads the feed of before this process, once.
func (c *Console) recall(ctx context.Context) error {
	h := c.hub
	h.recalling.Lock()
	defer h.recalling.Unlock()
	if h.recalled {
		return nil
	}
	lines, err := c.store.feedOf(ctx, c.log, h.begun)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(lines)
	h.recalled = true
	return nil
}
