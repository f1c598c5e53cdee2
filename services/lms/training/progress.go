package training

import (
	"encoding/json"
	"fmt"
	"time"

	"example.org/security-training/services/lms/riskclient"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/words"
)

// progressEvery is the time between two progress notes.
const progressEvery = 500 * time.Millisecond

// progressNote is one event of the feed: the seconds since the request to the gateway, its timeout in seconds, and a
// text.
type progressNote struct {
	Seconds float64 `json:"seconds"`
	Of      float64 `json:"of"`
	Words   string  `json:"words"`
}

// noteAt is the progress of a lesson begun at a time.
func noteAt(begun, now time.Time) progressNote {
	waited := max(0, now.Sub(begun))
	n := progressNote{Seconds: min(waited, writeWithin).Seconds(), Of: writeWithin.Seconds()}
	switch {
	case waited < 2*time.Second:
		n.Words = "The gateway was asked, with your role and the reasons and without your name."
	case waited < 15*time.Second:
		n.Words = fmt.Sprintf("The model is writing; %s so far.", words.Span(waited))
	default:
		n.Words = fmt.Sprintf(
			"This takes longer than usual: %s so far. After %s you get the built-in lesson.",
			words.Span(waited),
			words.Span(writeWithin),
		)
	}
	return n
}

// ShowProgress is a feed of server-sent events about a lesson that is being written: events "writing" with a
// progressNote as JSON, then one event "done". It ends after that, or when the client disconnects.
func (tr *Training) ShowProgress(req *site.Request) error {
	t, err := tr.ownLesson(req)
	if err != nil {
		return err
	}
	out := site.NewStream(req.W)
	say := func(event string, m any) bool {
		b, err := json.Marshal(m)
		if err != nil {
			return false
		}
		return out.Send(fmt.Sprintf("event: %s\ndata: %s\n\n", event, b)) == nil
	}
	begun := t.Made
	if t.State == stateWriting {
		written := tr.WriteLesson(t.ID)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		end := time.NewTimer(writeWithin + riskclient.AskWithin)
		defer end.Stop()
		for waiting := true; waiting; {
			if !say("writing", noteAt(begun, tr.cfg.Now())) {
				return nil
			}
			select {
			case <-written:
				waiting = false
			case <-end.C:
				waiting = false
			case <-req.Ctx().Done():
				return nil
			case <-tick.C:
			}
		}
	}
	say("done", struct{}{})
	return nil
}
