package lms

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"html"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/risk"
)

func TestASilentSourceIsShownAsMissingAndNotAsInnocence(t *testing.T) {
	s := newFixture(t)
	const words = "For days, no events have come from: "
	learner, instructor := s.as("mira.keller"), s.as("instructor")
	for path, who := range map[string]*browser{"/": learner, "/organisation": instructor} {
		if strings.Contains(who.get(path).text(), words) {
			t.Errorf("%s: every source is heard from, and one is called silent", path)
		}
	}
	s.scorer.set(func() { s.scorer.missing = []activity.Source{activity.SIEM, activity.Git} })
	s.LMS.scorer.Figures.Forget()
	if text := learner.get("/").text(); !strings.Contains(text, words+"alerts, code.") {
		t.Errorf("my risk does not name the silent sources: %.600s", text)
	}
	if text := instructor.get("/organisation").text(); !strings.Contains(text, words+"alerts, code.") {
		t.Errorf("the organisation does not name the silent sources: %.600s", text)
	}
}

// packed is the compressed size of a page in bytes.
func packed(t *testing.T, body string) int {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Len()
}

func TestEveryEventOfAScoreCanBeReachedFromItsPage(t *testing.T) {
	s := newFixture(t)
	for _, many := range []int{60, 4000} {
		s.scorer.set(func() {
			var events []activity.Event
			for i := range many {
				events = append(
					events,
					activity.Event{
						ID:     fmt.Sprintf("git:secret/%06d", i),
						At:     labNow.Add(-time.Duration(i) * time.Minute),
						Person: "tom.brandt",
						Source: activity.Git,
						Verb:   activity.SecretCommitted,
						Detail: fmt.Sprintf("payments: %x.env", i*7919),
					},
					activity.Event{
						ID:     fmt.Sprintf("siem:policy/%06d", i),
						At:     labNow.Add(-time.Duration(i) * time.Hour / 20),
						Person: "tom.brandt",
						Source: activity.SIEM,
						Verb:   activity.PolicyViolation,
					},
				)
			}
			s.scorer.events["tom.brandt"] = events
		})
		a := s.assess("tom.brandt")
		want := map[string]bool{}
		for _, c := range a.Contributions {
			if c.Line == risk.EventLine {
				want[c.Event] = true
			}
		}
		if len(want) < 2*min(many, 500) {
			t.Fatalf("%d events add something", len(want))
		}
		for who, home := range map[string]string{"tom.brandt": "/", site.RoleInstructor: "/people/tom.brandt"} {
			b, seen, queue, pages := s.as(who), map[string]bool{}, []string{home}, map[string]bool{}
			for len(queue) > 0 {
				path := queue[0]
				queue = queue[1:]
				if pages[path] {
					continue
				}
				pages[path] = true
				p := b.get(path)
				if p.status != 200 || packed(t, p.body) > 100<<10 {
					t.Fatalf("%s: %d, %d bytes packed", path, p.status, packed(t, p.body))
				}
				for _, id := range regexp.MustCompile(`<small class="id">([^<]+)</small>`).FindAllStringSubmatch(p.body, -1) {
					seen[html.UnescapeString(id[1])] = true
				}
				for _, link := range regexp.MustCompile(`href="([^"]*/reasons/[^"]*)"`).FindAllStringSubmatch(p.body, -1) {
					queue = append(queue, html.UnescapeString(link[1]))
				}
			}
			for id := range want {
				if !seen[id] {
					t.Fatalf("%d events, as %s: %s is on none of %d pages", many, who, id, len(pages))
				}
			}
			if many == 60 && len(pages) != 1 {
				t.Errorf("as %s: so few events are on %d pages", who, len(pages))
			}
		}
	}
	if p := s.as("tom.brandt").get("/reasons/iam.off_hours_access"); p.status != 404 {
		t.Errorf("what is no reason: %d", p.status)
	}
}

func TestHowAReasonLosesItsWeightIsSaidOfTheProfileThatMadeTheScore(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	if p := b.get("/"); !strings.Contains(
		p.text(),
		"What happened weighs half as much 7 days later. "+
			"What lasts, such as an overdue ticket, weighs in full until it ends.",
	) ||
		!strings.Contains(p.text(), "It weighs in full until the ticket is closed.") ||
		!strings.Contains(p.text(), "It weighs in full until the module is passed.") {
		t.Errorf("%s", p.text())
	}
	s.scorer.set(func() { s.scorer.profile = risk.MustProfile("classic-v1") })
	if p := b.get("/"); strings.Contains(p.text(), "half as much") ||
		!strings.Contains(p.text(), "What happened weighs in full for 30 days, and nothing after that.") {
		t.Errorf("of a profile without decay: %s", p.text())
	}
}

func TestAPatternIsExplainedInWordsAndNotByIdsAlone(t *testing.T) {
	s := newFixture(t)
	b := s.as(site.RoleInstructor)
	_, page, _ := strings.Cut(b.get("/people/luca.moretti").body, `<details class="pattern">`)
	page, _, _ = strings.Cut(page, "</details>")
	for _, want := range []string{
		"events make the pattern", "Gained higher privileges: prod-ledger, session 0",
		"Had malware detected on a device: loader in ~/Downloads",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the pattern's events do not say %q: %.900s", want, page)
		}
	}
	if p := b.get("/people/luca.moretti/reasons/pattern"); p.status != 200 ||
		!strings.Contains(p.text(), "Gained higher privileges: prod-ledger, session 0") {
		t.Errorf("the pattern's own page: %d %s", p.status, p.text())
	}
	if p := b.get("/people/tom.brandt/reasons/pattern"); p.status != 404 {
		t.Errorf("a pattern that is none: %d", p.status)
	}
}
