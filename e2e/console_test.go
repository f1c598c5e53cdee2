package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"example.org/security-training/lab"
	"example.org/security-training/services/mesh/probe"
	"example.org/security-training/services/topology"
)

// signInAs opens a one-time link of a role and presses its button.
func signInAs(t *testing.T, ctx context.Context, role string) {
	t.Helper()
	link, err := l.op.LinkAs(t.Context(), l.st.Dashboard, role)
	if err != nil {
		t.Fatal(err)
	}
	do(
		t,
		ctx,
		chromedp.Navigate(link),
		chromedp.Click(css("#sign-in")),
		chromedp.WaitVisible(css(`form[action="/sign-out"]`)),
	)
}

// now is the text of the element that a selector finds, or empty if the page is just replacing the element.
func now(t *testing.T, ctx context.Context, selector string) string {
	t.Helper()
	return see(
		t,
		ctx,
		chromedp.Evaluate[string](
			`[...document.querySelectorAll(`+strconv.Quote(selector)+`)].map(e => e.innerText).join("\n")`,
		),
	)
}

// press waits for the element that a selector finds and clicks it. It finds and clicks in one script, since the page
// may replace the element in between.
func press(t *testing.T, ctx context.Context, selector string) {
	t.Helper()
	await(t, slack(10*time.Second, 60*time.Second), selector+" to press", func() bool {
		return see(
			t,
			ctx,
			chromedp.Evaluate[bool](
				`(e => { if (!e || e.disabled) return false; e.click(); return true })(document.querySelector(`+strconv.Quote(
					selector,
				)+`))`,
			),
		)
	})
}

// shows waits until a selector finds an element.
func shows(t *testing.T, ctx context.Context, selector string) {
	t.Helper()
	await(t, 20*time.Second, selector, func() bool {
		return see(t, ctx, chromedp.Evaluate[bool](`document.querySelector(`+strconv.Quote(selector)+`) !== null`))
	})
}

func TestAnInstructorStepsThroughAnExerciseAndResetsInSeconds(t *testing.T) {
	ctx, foreign := browser(t)
	signInAs(t, ctx, "instructor")
	do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/console"))
	press(t, ctx, "#step-leaked-secret")
	shows(t, ctx, `#run [data-state="paused"]`)
	// Take most steps one by one, then let the rest play by itself. The test never reloads the page.
	text := "" // what the feed told at any step: the company's own events push what is old out of it
	for step := range 6 {
		press(t, ctx, "#step")
		shows(t, ctx, fmt.Sprintf("#run #took-%d", step))
		text += now(t, ctx, "#feed")
		if step == 0 {
			shoot(t, ctx, "console")
		}
	}
	press(t, ctx, "#resume")
	shows(t, ctx, `#run [data-state="passed"]`)
	text += now(t, ctx, "#feed")
	for _, want := range []string{"git: secret", "scores", "MEDIUM"} {
		if !strings.Contains(text, want) {
			t.Errorf("the feed does not tell of %q:\n%s", want, text)
		}
	}
	do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/console?view=projector"), chromedp.WaitVisible(css(".projector")))
	shoot(t, ctx, "console-projector")
	do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/console"), chromedp.WaitVisible(css("#reset")))
	began := time.Now()
	press(t, ctx, "#reset")
	shows(t, ctx, "#run .empty")
	shows(t, ctx, "#orders li:first-child .good")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a reset from the console took %s, want at most 5 s", took)
	} else {
		t.Logf("a reset from the console took %s", took)
	}
	if stray := foreign(); len(stray) > 0 {
		t.Errorf("the pages ask for %v", stray)
	}
}

func TestAnInstructorTriesRefusedCallsRevokesACallerAndFollowsAnEvent(t *testing.T) {
	ctx, _ := browser(t)
	signInAs(t, ctx, "instructor")
	gateway, lms := serving(t, generate), named(t, topology.KindDashboard, "")
	page := l.st.Dashboard + "/console/matrix?" + url.Values{"callee": {gateway}}.Encode()
	cell := func(caller string) string {
		return `#matrix button[value="` + caller + "|" + gateway + "|" + string(generate) + `"]`
	}
	for _, c := range []struct{ caller, reason string }{
		{named(t, topology.KindCollector, "git"), "not_admitted"},
		{"forged", "unknown_issuer"}, {"nobody", "no_certificate"}, {"plaintext", "plaintext"},
	} {
		do(t, ctx, chromedp.Navigate(page), chromedp.WaitVisible(css("#matrix")))
		press(t, ctx, cell(c.caller))
		await(t, slack(10*time.Second, 60*time.Second), "both ends of a call as "+c.caller, func() bool {
			text := now(t, ctx, "#tries article:first-of-type")
			return strings.Contains(text, c.caller+" → ") && strings.Contains(text, c.reason)
		})
	}
	shoot(t, ctx, "console-matrix")

	// Remove the learning system from the gateway's list, then add it again. The old list still decides a call that is
	// made before the gateway has read the new one.
	svid, _, err := l.Mint(t.Context(), l.topo.ID(lms), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	decided := func(want topology.Outcome) {
		t.Helper()
		await(t, slack(5*time.Second, 90*time.Second), "the gateway to use the new list", func() bool {
			return probe.Once(t.Context(), addr(t, gateway), probe.Caller{SVID: svid}, generate).Outcome == want
		})
	}
	before, err := os.ReadFile(l.Topology())
	if err != nil {
		t.Fatal(err)
	}
	undo := keepTopology(t)
	press(t, ctx, `#callers button[value="`+lms+"|"+gateway+"|"+string(generate)+`"]`)
	shows(t, ctx, "#callers .revoked button")
	decided(topology.Refused)
	for _, w := range l.topo.Workloads {
		other, _, err := l.Mint(t.Context(), l.topo.ID(w.Name), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if r := probe.Once(
			t.Context(),
			addr(t, gateway),
			probe.Caller{SVID: other},
			generate,
		); r.Outcome != topology.Refused {
			t.Errorf("the only caller is struck off, and %s is %s", w.Name, r.Outcome)
		}
	}
	press(t, ctx, cell(lms))
	await(t, slack(10*time.Second, 60*time.Second), "the refusal of a caller that was struck off", func() bool {
		return strings.Contains(now(t, ctx, "#tries article:first-of-type"), "not_admitted")
	})
	press(t, ctx, "#callers .revoked button")
	await(
		t,
		slack(10*time.Second, 60*time.Second),
		"the caller to be let in again",
		func() bool { return now(t, ctx, "#callers .revoked") == "" },
	)
	decided(topology.Allowed)
	if after, err := os.ReadFile(l.Topology()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("after striking off and letting in again the topology is another: %v\n%s", err, after)
	}
	undo()

	do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/console/story"), chromedp.WaitVisible(css("#verify")))
	press(t, ctx, "#verify")
	shows(t, ctx, "#verified .good")
	event := anEvent(t)
	do(
		t,
		ctx,
		chromedp.Navigate(l.st.Dashboard+"/console/story?"+url.Values{"event": {event}}.Encode()),
		chromedp.WaitVisible(css("#follow")),
	)
	press(t, ctx, "#follow")
	shows(t, ctx, "#story .story li")
	text := now(t, ctx, "#story")
	for _, want := range []string{"collector", "Accepted", named(t, topology.KindScorer, ""), "Assessment"} {
		if !strings.Contains(text, want) {
			t.Errorf("the story of %s does not tell of %q:\n%s", event, want, text)
		}
	}
	shoot(t, ctx, "console-story")
}

// anEvent is the latest event that the git collector has accepted.
func anEvent(t *testing.T) string {
	t.Helper()
	entries, err := lab.Entries(t.Context(), l.Lab, named(t, topology.KindCollector, "git"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range slices.Backward(entries) {
		if e.Kind == "accepted" && strings.HasPrefix(e.Event, "git:commit/") {
			return e.Event
		}
	}
	t.Fatal("the git collector has accepted no commit")
	return ""
}

func TestAnAdminRotatesWithdrawsAndGivesAnIdentityBack(t *testing.T) {
	ctx, _ := browser(t)
	signInAs(t, ctx, "admin")
	gateway := serving(t, generate)
	in := func(s string) string { return `tr[data-workload="` + gateway + `"] ` + s }
	do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/console/identities"))
	shows(t, ctx, in("button[value=rotate]"))
	before := now(t, ctx, in(".serial"))
	press(t, ctx, in("button[value=rotate]"))
	await(t, slack(10*time.Second, 60*time.Second), "another serial number on the page", func() bool {
		serial := now(t, ctx, in(".serial"))
		return serial != "" && serial != before
	})
	shoot(t, ctx, "console-identities")
	t.Cleanup(func() {
		if err := l.Restore(context.WithoutCancel(t.Context()), gateway); err != nil {
			t.Error(err)
		}
	})
	press(t, ctx, in("button[value=withdraw]"))
	shows(t, ctx, in("button[value=return]"))
	await(t, slack(10*time.Second, 60*time.Second), "the gateway to be without an identity", func() bool {
		st, err := l.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range st.Workloads {
			if w.Name == gateway {
				return !w.Ready
			}
		}
		return false
	})
	press(t, ctx, in("button[value=return]"))
	shows(t, ctx, in("button[value=withdraw]"))
	awaitHealthy(t)
}
