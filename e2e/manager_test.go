package e2e

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"example.org/security-training/services/env/needtest"
	"example.org/security-training/synth/people"
)

func TestAManagerSeesTheirOwnTeamAndNobodyElse(t *testing.T) {
	staff := people.Company(l.st.Spec.Seed, l.st.Spec.People, people.Published)
	reports := map[string]int{}
	for _, p := range staff {
		if p.Left == "" {
			reports[p.Manager]++
		}
	}
	who := ""
	for _, p := range staff {
		if p.Left == "" && reports[p.ID] >= 5 && (who == "" || reports[p.ID] > reports[who]) {
			who = p.ID
		}
	}
	if who == "" {
		needtest.Lacks(t, needtest.Team, "no person of this company leads five people")
	}
	ctx, foreign := browser(t)
	signIn(t, ctx, who)
	do(t, ctx, chromedp.Navigate(l.st.Dashboard+"/team"), chromedp.WaitVisible(css("#who")))
	page := see(t, ctx, chromedp.Text(css("main")))
	for _, p := range staff {
		if p.Left != "" || p.ID == who {
			continue
		}
		if shown := strings.Contains(page, p.Name); shown != (p.Manager == who) {
			t.Errorf("%s, who reports to %q, shown: %v", p.Name, p.Manager, shown)
		}
	}
	for _, want := range []string{
		"Mean of the team", "the last 30 days", "Roles in the team", "Repeated after the lesson",
		"Who needs which training by when",
		"Escalated",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	shoot(t, ctx, "team")
	do(
		t,
		ctx,
		chromedp.Navigate(l.st.Dashboard+"/organisation"),
		chromedp.WaitVisible(css(`[data-code="not_for_this_role"]`)),
	)
	shoot(t, ctx, "forbidden")
	if stray := foreign(); len(stray) > 0 {
		t.Errorf("the pages ask for %v", stray)
	}
}
