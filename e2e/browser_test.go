package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/topology"
	"example.org/security-training/synth/people"
)

// chromium is the browser that all tests share, except those that need a profile of their own. It ends with the tests.
var chromium struct {
	ctx  context.Context
	stop func()
}

func stopChromium() {
	if chromium.stop != nil {
		chromium.stop()
	}
}

// browser opens a tab in a headless Chromium that can reach the dashboard only. It has no cookies of an earlier test.
// It collects the URLs that the page would have fetched from other hosts.
func browser(t *testing.T) (ctx context.Context, foreign func() []string) {
	t.Helper()
	if chromium.ctx == nil || chromium.ctx.Err() != nil {
		alloc, stop := chromedp.NewExecAllocator(context.Background(), append(
			chromedp.DefaultExecAllocatorOptions[:],
			chromedp.ExecPath(
				needtest.Browser(t),
			),
			chromedp.NoSandbox,
			chromedp.DisableGPU,
			chromedp.WindowSize(1280, 900),
			chromedp.WSURLReadTimeout(2*time.Minute),
			chromedp.Flag(
				"disable-quic",
				true,
			),
			chromedp.Flag("disable-background-networking", true),
			chromedp.Flag("disable-component-update", true),
			chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.*"),
		)...)
		first, _ := chromedp.NewContext(alloc)
		if err := chromedp.Do(first); err != nil { // starts it, and keeps it when a tab is closed
			stop()
			t.Fatal(err)
		}
		chromium.ctx, chromium.stop = first, stop
	}
	ctx, cancel := chromedp.NewContext(chromium.ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, slack(time.Minute, 4*time.Minute))
	t.Cleanup(cancel)
	var mu sync.Mutex
	var stray []string
	if err := chromedp.Listen(ctx, func(ev any) {
		if r, ok := ev.(*network.EventRequestWillBeSent); ok && !strings.HasPrefix(r.Request.URL, l.st.Dashboard+"/") &&
			!strings.HasPrefix(r.Request.URL, "data:") && r.Request.URL != "about:blank" {
			mu.Lock()
			defer mu.Unlock()
			stray = append(stray, r.Request.URL)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.ClearBrowserCookies, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return stray
	}
}

// do runs steps, and see reads something; both end the test on an error.
func do(t *testing.T, ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

func see[T any](t *testing.T, ctx context.Context, what chromedp.Action[T]) T {
	t.Helper()
	v, err := chromedp.Run(ctx, what)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// troubled is the person with the highest score among those who still have a lesson to do.
func troubled(t *testing.T) risk.Assessment {
	t.Helper()
	var worst risk.Assessment
	for _, p := range people.Company(l.st.Spec.Seed, l.st.Spec.People, people.Published) {
		if p.Left != "" {
			continue
		}
		a := assess(t, p.ID)
		if a.Score > worst.Score && len(a.Lower) > 0 && a.Score < risk.One {
			worst = a
		}
	}
	if worst.Person == "" {
		t.Fatal("no person has a lesson to do")
	}
	return worst
}

// signIn opens a one-time link and presses its button.
func signIn(t *testing.T, ctx context.Context, person string) {
	t.Helper()
	link, err := l.op.Link(t.Context(), l.st.Dashboard, person)
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

// css is a selector.
func css(s string) chromedp.CSS { return chromedp.CSS(s) }

// key reads a lesson's right answers from the database. They are stored nowhere else.
func key(t *testing.T, id string) []int {
	t.Helper()
	lms := named(t, topology.KindDashboard, "")
	conn, err := connect(t, lms, lms)
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	if err := conn.QueryRow(t.Context(), "SELECT lesson FROM training.lesson WHERE id = $1", id).Scan(&text); err != nil {
		t.Fatal(err)
	}
	var content lesson.Lesson
	if err := json.Unmarshal(text, &content); err != nil {
		t.Fatal(err)
	}
	var answers []int
	for _, q := range content.Quiz {
		answers = append(answers, q.Answer)
	}
	return answers
}

func TestALearnerSeesReasonsTakesALessonAboutThemAndTheScoreFalls(t *testing.T) {
	who := troubled(t)
	ctx, foreign := browser(t)
	signIn(t, ctx, who.Person)

	do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/"))
	page := see(t, ctx, chromedp.Text(css("main")))
	for _, r := range who.Reasons[:min(3, len(who.Reasons))] {
		if !strings.Contains(page, r.Words) && !strings.Contains(strings.ToLower(page), strings.ToLower(r.Words)) {
			t.Errorf("the page does not give the reason %q", r.Words)
		}
	}
	shoot(t, ctx, "risk")
	if dir := os.Getenv("LAB_SCREENSHOTS"); dir != "" { // the README's picture: what a screen shows
		if err := os.WriteFile(
			filepath.Join(dir, "dashboard.png"), see(t, ctx, chromedp.CaptureScreenshot()), 0o644,
		); err != nil {
			t.Fatal(err)
		}
	}

	// Start the module that would lower the score most.
	do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/training"), chromedp.WaitVisible(css(".next button")))
	shoot(t, ctx, "training")
	do(t, ctx, chromedp.Click(css(".next button")), chromedp.WaitVisible(css("#take-quiz")))
	origin := see(t, ctx, chromedp.AttributeValue(css("[data-origin]"), "data-origin")).Value
	because := see(t, ctx, chromedp.Text(css(".because")))
	address := see(t, ctx, chromedp.Location())
	if origin != string(lesson.Stub) {
		t.Errorf("the lesson is marked %q, want %q", origin, lesson.Stub)
	}
	if strings.TrimSpace(because) == "" {
		t.Error("the lesson does not say which of the learner's reasons it is about")
	}
	shoot(t, ctx, "lesson")

	do(t, ctx, chromedp.Click(css("#take-quiz")), chromedp.WaitVisible(css("#quiz")))
	html := see(t, ctx, chromedp.OuterHTML(css("html")))
	if strings.Contains(html, `"answer"`) {
		t.Error("the quiz page holds its key")
	}
	for i, answer := range key(t, path.Base(address)) {
		do(t, ctx, chromedp.Click(choice(i+1, answer)))
	}
	shoot(t, ctx, "quiz")
	do(t, ctx, chromedp.Click(css("#grade")), chromedp.WaitVisible(css("#effect-card")))
	shoot(t, ctx, "result")
	after := assess(t, who.Person)
	if after.Score >= who.Score {
		t.Errorf("the score was %s and is %s: it did not fall", who.Score, after.Score)
	}
	shown := see(t, ctx, chromedp.Text(css("#effect-card")))
	if !strings.Contains(shown, "fell by") {
		t.Errorf("the result page does not show that the score fell: %q", shown)
	}
	if stray := foreign(); len(stray) > 0 {
		t.Errorf("the pages ask for %v", stray)
	}
}

// choice is the radio button of an option. Options are counted from 0, in the key and in the form.
func choice(question, option int) chromedp.CSS {
	return css(`input[name="q` + strconv.Itoa(question) + `"][value="` + strconv.Itoa(option) + `"]`)
}

func TestAnInstructorSeesTheCompanyAndTheExercises(t *testing.T) {
	ctx, foreign := browser(t)
	signIn(t, ctx, "")
	for _, p := range []string{"organisation", "people", "exercises", "audit", "console/records"} {
		do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/"+p), chromedp.WaitVisible(css("h1")))
		shoot(t, ctx, strings.ReplaceAll(p, "/", "-"))
	}
	if stray := foreign(); len(stray) > 0 {
		t.Errorf("the pages ask for %v", stray)
	}
}

// shoot writes screenshots into the folder LAB_SCREENSHOTS, if that is set: light, dark, and of a phone's size.
func shoot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("LAB_SCREENSHOTS")
	if dir == "" {
		return
	}
	for _, scheme := range []string{"dark", "light"} {
		if _, err := chromedp.Call(
			ctx, emulation.SetEmulatedMedia,
			emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}},
		); err != nil {
			t.Fatal(err)
		}
		png := see(t, ctx, chromedp.FullScreenshot(100))
		if err := os.WriteFile(filepath.Join(dir, name+"-"+scheme+".png"), png, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	do(t, ctx, chromedp.EmulateViewport(390, 844)) // a phone
	png := see(t, ctx, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(dir, name+"-phone.png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, chromedp.EmulateViewport(1280, 900))
}
