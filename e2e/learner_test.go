package e2e

import (
	"encoding/json"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"example.org/security-training/services/topology"
	"example.org/security-training/synth/people"
)

// calm is a person of the company whose score has room to rise, and whom no other test uses.
func calm(t *testing.T) string {
	t.Helper()
	best, lowest := "", 1.0
	for _, p := range people.Company(l.st.Spec.Seed, l.st.Spec.People, people.Published) {
		if p.Left != "" {
			continue
		}
		if s := assess(t, p.ID).Score.Float(); s < lowest {
			best, lowest = p.ID, s
		}
	}
	if best == "" {
		t.Fatal("the company has no people")
	}
	return best
}

// awaitScore waits until a person's score satisfies cond. It waits because events travel from the dashboard to the
// scorer.
func awaitScore(t *testing.T, person, what string, cond func(float64) bool) float64 {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		s := assess(t, person).Score.Float()
		if cond(s) {
			return s
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: the score is still %.6f after 20 s", what, s)
		}
	}
}

func TestALearnerIsDrilledClicksReportsLearnsAndPrintsACertificate(t *testing.T) {
	ctx, foreign := browser(t)
	who := calm(t)

	signIn(t, ctx, "")
	do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/drills"), chromedp.Click(css(`input[value="mfa-reset"]`)))
	shoot(t, ctx, "drills")
	do(t, ctx, chromedp.Click(css("#begin")), chromedp.WaitVisible(css("#counts")))
	drill := see(t, ctx, chromedp.Location())

	signIn(t, ctx, who)
	do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/mailbox"), chromedp.WaitVisible(css(".mails")))
	shoot(t, ctx, "mailbox")
	do(
		t,
		ctx,
		chromedp.Evaluate[chromedp.Void](
			`[...document.querySelectorAll(".mails a")].find(a => a.textContent.includes("second factor")).click()`,
		),
		chromedp.WaitVisible(css("#lure")),
	)
	letter := see(t, ctx, chromedp.Location())
	shoot(t, ctx, "mail")
	before := assess(t, who).Score.Float()
	do(t, ctx, chromedp.Click(css("#lure")), chromedp.WaitVisible(css("#submit")))
	shoot(t, ctx, "lure")
	clicked := awaitScore(t, who, "a click", func(s float64) bool { return s > before })
	do(
		t,
		ctx,
		chromedp.SendKeys(css(`input[type="password"]`), "correct horse"),
		chromedp.Click(css("#submit")),
		chromedp.WaitVisible(css(`[data-outcome="clicked"]`)),
	)
	shoot(t, ctx, "mail-clicked")
	typed := awaitScore(t, who, "typing a password", func(s float64) bool { return s > clicked })
	do(t, ctx, chromedp.Click(css("#report")), chromedp.WaitVisible(css(`[data-outcome="reported"]`)))
	shoot(t, ctx, "mail-reported")
	reported := awaitScore(t, who, "a report", func(s float64) bool { return s < typed })

	// Take the lesson about it. The page follows while the lesson is written, and afterwards the score falls again.
	do(t, ctx, chromedp.Click(css(`.outcome button`)), chromedp.WaitVisible(css("#take-quiz")))
	address := see(t, ctx, chromedp.Location())
	lesson := path.Base(address)
	do(t, ctx, chromedp.Click(css("#take-quiz")), chromedp.WaitVisible(css("#quiz")))
	for i, answer := range key(t, lesson) {
		do(t, ctx, chromedp.Click(choice(i+1, answer)))
	}
	do(t, ctx, chromedp.Click(css("#grade")), chromedp.WaitVisible(css("#effect-card")))
	awaitScore(t, who, "the lesson", func(s float64) bool { return s < reported })

	do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/certificates/"+lesson), chromedp.WaitVisible(css("#certificate-number")))
	number := strings.TrimSpace(see(t, ctx, chromedp.Text(css("#certificate-number"))))
	shoot(t, ctx, "certificate")
	// A reader without an account can verify the certificate.
	if _, err := chromedp.Call(ctx, network.ClearBrowserCookies, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	do(
		t,
		ctx,
		chromedp.Navigate(l.st.Dashboard+"/verify"),
		chromedp.SendKeys(css(`input[name="number"]`), number),
		chromedp.Click(css("#verify")),
		chromedp.WaitVisible(css(`[data-valid="true"]`)),
	)
	shoot(t, ctx, "verify")

	signIn(t, ctx, "")
	do(t, ctx, chromedp.Navigate(drill), chromedp.WaitVisible(css("#counts")))
	page := see(t, ctx, chromedp.Text(css("main")))
	for _, event := range []string{
		"Email Sent", "Email Opened", "Clicked Link", "Submitted Data", "Email Reported", "Very difficult",
	} {
		if !strings.Contains(page, event) {
			t.Errorf("the drill's page lacks %q", event)
		}
	}
	shoot(t, ctx, "drill")
	if !strings.HasPrefix(letter, l.st.Dashboard+"/mailbox/") {
		t.Errorf("the mail lies at %s", letter)
	}
	if stray := foreign(); len(stray) > 0 {
		t.Errorf("the pages ask for %v", stray)
	}
}

func TestTrainingIsExportedOverTheMeshAsXAPIWithoutNames(t *testing.T) {
	lms := named(t, topology.KindDashboard, "")
	resp, err := l.op.Node.Peer(lms).Do(t.Context(), http.MethodGet, "/v1/xapi", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Experience-API-Version") == "" {
		t.Fatalf("%s, %v", resp.Status, resp.Header)
	}
	staff := people.Company(l.st.Spec.Seed, l.st.Spec.People, people.Published)
	for d := json.NewDecoder(resp.Body); d.More(); {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			t.Fatal(err)
		}
		for _, p := range staff {
			if strings.Contains(string(raw), p.ID) || strings.Contains(string(raw), p.Name) {
				t.Fatalf("a statement names %s", p.ID)
			}
		}
	}
}
