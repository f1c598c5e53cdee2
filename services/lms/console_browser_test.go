package lms

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/site"
)

// whole waits until the text of an element contains want.
func (s *fixture) whole(ctx context.Context, css, want string) {
	s.t.Helper()
	s.await(css+" to say "+want, func() bool {
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector("`+css+`").innerText`))
		if err != nil {
			s.t.Fatal(err)
		}
		return strings.Contains(text, want)
	})
}

func TestAnOrderThatFailsSaysSoOnTheConsole(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	skipIfShort(t)
	ctx, stop := context.WithTimeout(chromium(t), pageTimeout)
	defer stop()
	s := withConductor(t)
	s.exercise("leaked-secret-1", "passed")
	enter(t, ctx, s, site.RoleInstructor)
	do(t, ctx, chromedp.Navigate(s.web.URL+"/console"), chromedp.WaitVisible(chromedp.CSS("#play-leaked-secret")))
	if role := look(
		t, ctx,
		chromedp.Evaluate[string](`document.querySelector("#trouble").role + document.querySelector("#trouble").innerText`),
	); role != "alert" {
		t.Errorf("before anything failed: %q", role)
	}
	s.exec(`DELETE FROM training.scenario`) // as if the conductor played something else now
	do(t, ctx, chromedp.Click(chromedp.CSS("#play-leaked-secret")))
	s.whole(ctx, "#trouble", `There is no scenario "leaked-secret".`)
	// What goes well takes it away.
	do(t, ctx, chromedp.Click(chromedp.CSS("#reset")))
	s.whole(ctx, "#orders", "Reset")
	if text := look(t, ctx, chromedp.Evaluate[string](`document.querySelector("#trouble").innerText`)); text != "" {
		t.Errorf("after an order that was taken: %q", text)
	}
	s.web.Listener.Close() // first: the page would come back at once, by a connection of its stream
	s.web.CloseClientConnections()
	do(t, ctx, chromedp.Click(chromedp.CSS("#reset")))
	s.whole(ctx, "#trouble", "The learning system could not be reached")
}

func TestWhatHappensIsPutInPlaceAndLeavesTheRestOfThePageAlone(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	skipIfShort(t)
	ctx, stop := context.WithTimeout(chromium(t), pageTimeout)
	defer stop()
	s := withConductor(t)
	s.exercise("one", exercise.Passed)
	s.exercise("two", exercise.Passed)
	enter(t, ctx, s, site.RoleInstructor)
	do(t, ctx, chromedp.Navigate(s.web.URL+"/exercises"), chromedp.WaitVisible(chromedp.CSS("#timeline-one")))
	look(t, ctx, chromedp.Evaluate[bool](`(() => {
		document.querySelector("#timeline-one").open = true;
		document.querySelector("#timeline-one summary").focus();
		window.first = document.querySelector("#exercise-one");
		window.added = [];
		new MutationObserver(list => list.forEach(m => m.addedNodes.forEach(n => added.push(n.id || n.nodeName))))
		.observe(document.querySelector("#played"), {childList: true, subtree: true});
		return true;
	})()`))
	const state = `JSON.stringify([document.querySelector("#timeline-one").open,
		document.activeElement.closest("details")?.id, window.first.isConnected,
		!!document.querySelector("#timeline-two").open, added.filter(n => n != "#text")])`
	s.exercise("three", exercise.Playing)
	s.whole(ctx, "#played", "Playing")
	if got := look(
		t, ctx, chromedp.Evaluate[string](state),
	); got != `[true,"timeline-one",true,false,["exercise-three"]]` {
		t.Errorf("after a third exercise began: %s", got)
	}
	// Held still, it stays as it is until it may go on.
	do(t, ctx, chromedp.Click(chromedp.CSS("#still")))
	look(t, ctx, chromedp.Evaluate[bool](`new Promise(done => {
		const ask = window.fetch, second = new EventSource("/console/events");
		window.looked = window.heard = 0;
		window.fetch = (...what) => { looked++; return ask(...what); };
		second.addEventListener("changed", () => heard++);
		second.onopen = () => done(true);
	})`, chromedp.EvalAwaitPromise))
	s.exercise("three", exercise.Failed)
	for n := range 3 { // by the last of them, the page has heard of the first
		s.exercise(fmt.Sprintf("later-%d", n), exercise.Passed)
		s.await("another reader of the stream", func() bool { return look(t, ctx, chromedp.Evaluate[int](`heard`)) > n })
	}
	if n := look(
		t, ctx, chromedp.Evaluate[int](`looked + document.querySelectorAll("[id^=exercise-later]").length`),
	); n != 0 {
		t.Errorf("a page that is held still looks, or changes: %d", n)
	}
	do(t, ctx, chromedp.Click(chromedp.CSS("#still")))
	s.whole(ctx, "#played", "Failed")
	if got := look(t, ctx, chromedp.Evaluate[bool](
		`!!document.querySelector("#exercise-later-2") && document.querySelector("#still").ariaPressed == "false"`,
	)); !got {
		t.Error("a page that may go on does not catch up")
	}
}
