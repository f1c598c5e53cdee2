package console

import (
	"maps"
	"slices"
	"strings"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/site"
)

type storyView struct {
	pageFrame
	Event   string
	Order   *placed
	Waiting bool
	Verify  *placed
	Recent  []string
}

// ShowStory is the page that follows an event through the lab.
func (c *Console) ShowStory(req *site.Request) error {
	m := storyView{
		pageFrame: c.frameOf(req, "/console/story"),
		Event:     strings.TrimSpace(req.R.URL.Query().Get("event")),
	}
	if err := c.restoreFeed(req.Ctx()); err != nil {
		return err
	}
	stories, err := c.store.orders(req.Ctx(), 100, exercise.OrderStory)
	if err != nil {
		return err
	}
	for i, s := range stories {
		if s.Event == m.Event && m.Event != "" {
			m.Order = &stories[i]
			m.Waiting = s.State == exercise.OrderWaiting || s.State == exercise.ReportTaken
			break
		}
	}
	verified, err := c.store.orders(req.Ctx(), 1, exercise.OrderVerify)
	if err != nil {
		return err
	}
	if len(verified) > 0 {
		m.Verify = &verified[0]
	}
	ids := map[string]bool{}
	for _, f := range c.feedRows(feedKept) {
		if f.Event != "" && len(ids) < 12 {
			ids[f.Event] = true
		}
	}
	m.Recent = slices.Sorted(maps.Keys(ids))
	return c.site.Render(req, "console_story", "Follow an event", "/console", m)
}
