package lms

import (
	"encoding/json"
	"fmt"
	"html/template"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/net/html"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lesson"
	"example.org/security-training/services/lms/console"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/lms/training"
	"example.org/security-training/services/risk"
)

// attacks are texts that try to become active on a page: elements, addresses, invisible and reordering characters, and
// ends of attributes, templates, SVG and JSON.
var attacks = []string{
	`<script>alert(1)</script>`, `"><script src=https://evil.example/x.js></script>`, `<img src=x onerror=alert(1)>`,
	`<svg onload=alert(1)>`, `</title><script>x()</script>`, `javascript:alert(1)`, `<a href="javascript:alert(1)">x</a>`,
	`<iframe src="https://evil.example"></iframe>`, `<form action="https://evil.example"><input name=q></form>`,
	`<meta http-equiv="refresh" content="0;url=https://evil.example">`, `<base href="https://evil.example/">`,
	`<link rel=stylesheet href=//evil.example/a.css>`, `<style>*{background:url(https://evil.example)}</style>`,
	`" onmouseover="alert(1)`, `' autofocus onfocus='alert(1)`, "`${alert(1)}`", `{{.Viewer}}`, `{{template "layout"}}`,
	`<object data=https://evil.example>`, `<embed src=https://evil.example>`, `<video><source onerror=alert(1)>`,
	`<details open ontoggle=alert(1)>`, `<math><mtext><script>alert(1)</script>`,
	`<noscript><p title="</noscript><img src=x onerror=alert(1)>">`, "\u202egnp.exe", "a\u200bb\u2060c\ufeff",
	"\U000e0041\U000e0042 tags", "\u2066x\u2069", "\x00nul", "line\r\nSet-Cookie: a=b", `](https://evil.example) [x`,
	`![i](https://evil.example/p.png)`, `<!-- --><script>`, `<![CDATA[<script>]]>`,
	`&lt;script&gt;alert(1)&lt;/script&gt;`, `%3Cscript%3E`, `\u003cscript\u003e`,
	`data:text/html,<script>alert(1)</script>`, `<ScRiPt>`, `<x onclick=alert(1)>`,
}

// hostile is the n-th of an unlimited series of texts: attacks cut and joined.
func hostile(n int) string {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	text := attacks[n%len(attacks)]
	for range r.IntN(3) {
		other := attacks[r.IntN(len(attacks))]
		at := r.IntN(len(text) + 1)
		text = text[:at] + other[:r.IntN(len(other)+1)] + text[at:]
	}
	return text
}

// allowed are the elements that pages may have.
var allowed = func() map[string]bool {
	m := map[string]bool{}
	for _, e := range strings.Fields(`
		html head meta title link body a header nav ul li ol svg path rect circle text span img div p strong
		form button main section h1 h2 h3 small table caption thead tbody tfoot tr th td dl dt dd time input
		label select option fieldset legend article aside details summary code noscript progress br script
	`) {
		m[e] = true
	}
	return m
}()

// harmless returns an error for an active element, a foreign address or an invisible character of a page.
func harmless(body string) error {
	for z := html.NewTokenizer(strings.NewReader(body)); ; {
		switch z.Next() {
		case html.ErrorToken:
			for _, r := range body {
				if unicode.Is(unicode.Cf, r) || r == 0 || unicode.Is(unicode.Co, r) || r >= 0xE0000 {
					return fmt.Errorf("the page holds the invisible character %U", r)
				}
			}
			return nil
		case html.StartTagToken, html.SelfClosingTagToken:
			token := z.Token()
			if !allowed[token.Data] {
				return fmt.Errorf("element %s", token)
			}
			for _, a := range token.Attr {
				value := strings.ToLower(strings.TrimSpace(a.Val))
				switch {
				case strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "srcdoc", a.Key == "formaction":
					return fmt.Errorf("attribute %s of %s", a.Key, token)
				case a.Key == "href", a.Key == "src", a.Key == "action", a.Key == "data-feed", a.Key == "xlink:href":
					if value != "" &&
						(!strings.HasPrefix(value, "/") && !strings.HasPrefix(
							value, "#",
						) && !strings.HasPrefix(value, "?") || strings.HasPrefix(value, "//") || strings.HasPrefix(value, `/\`)) {
						return fmt.Errorf("address %q of %s", a.Val, token.Data)
					}
				}
			}
			if token.Data == "script" &&
				!regexp.MustCompile(`^<script src="/static/[a-z]+\.[0-9a-f]{16}\.js" defer="">$`).MatchString(token.String()) {
				return fmt.Errorf("script %s", token)
			}
		}
	}
}

// TestAThousandHostileLessonsShowNothingActive renders hostile texts as the content of a lesson, its quiz and its
// result.
func TestAThousandHostileLessonsShowNothingActive(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	pages, err := site.New(site.Config{Words: []template.FuncMap{console.Words()}})
	if err != nil {
		t.Fatal(err)
	}
	who := &site.Viewer{Principal: site.Principal{Role: site.RolePerson, Person: "mira.keller"}, Name: "Mira"}
	module, _ := risk.ModuleByID("phishing")
	show := func(n int, name string, model any) {
		t.Helper()
		w := httptest.NewRecorder()
		if err := pages.Render(&site.Request{
			W: w, R: httptest.NewRequest("GET", "/", nil), Viewer: who,
		}, name, hostile(n), "/training", model); err != nil {
			t.Fatal(err)
		}
		if err := harmless(w.Body.String()); err != nil {
			t.Errorf("lesson %d, %s: %v", n, name, err)
		}
	}
	for n := range 1000 {
		x := func(i int) string { return hostile(n*31 + i) }
		content := lesson.BuiltIn("phishing")
		content.Objectives, content.Practices, content.Quiz = slices.Clone(
			content.Objectives,
		), slices.Clone(
			content.Practices,
		), slices.Clone(
			content.Quiz,
		)
		content.Title, content.Summary, content.Model, content.Origin = x(0), x(1), x(2), lesson.Gemini
		for i := range content.Objectives {
			content.Objectives[i] = x(3 + i)
		}
		for i := range content.Practices {
			content.Practices[i] = lesson.Practice{Title: x(20 + i), Why: x(21 + i), How: x(22 + i)}
		}
		for i := range content.Quiz {
			content.Quiz[i] = lesson.Question{
				Question: x(30 + i),
				Options:  []string{x(40 + i), x(41 + i), x(42 + i), x(43 + i)},
				Why:      x(44 + i),
			}
		}
		given := training.LessonRecord{
			Module:   module.ID,
			State:    training.StateFailed,
			Lesson:   &content,
			Attempts: []training.Attempt{{Number: 1, Answers: make([]int, len(content.Quiz)), Questions: len(content.Quiz)}},
		}
		clean := *given.Lesson
		show(
			n,
			"lesson",
			training.LessonView{
				ID:      "1",
				Module:  module,
				Lesson:  clean,
				Origin:  training.OriginWords(clean),
				Why:     x(50),
				State:   training.StateReady,
				Reasons: []lesson.Reason{{Verb: activity.PhishingClick, Count: 1, Detail: x(51)}},
			},
		)
		show(n, "quiz", training.QuizOf(given, nil))
		show(n, "result", training.ResultOf(given, who))
	}
}

// TestTwoHundredInjectionsIntoNamesTitlesAndDetailsShowNothingActive puts hostile texts into names, teams,
// details of events and searches.
func TestTwoHundredInjectionsIntoNamesTitlesAndDetailsShowNothingActive(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newFixture(t)
	mira, vera, instructor := s.as("mira.keller"), s.as("vera.holm"), s.as(site.RoleInstructor)
	path := mira.start("phishing")
	for n := range 200 {
		text := strings.ReplaceAll(hostile(n), "\x00", "")
		s.scorer.set(func() {
			s.scorer.people[0].Name, s.scorer.people[0].Team, s.scorer.people[1].Name = "Mira "+text, hostile(n+1), hostile(n+2)
			for i := range s.scorer.events["mira.keller"] {
				s.scorer.events["mira.keller"][i].Detail = hostile(n + i)
			}
		})
		look := []shown{mira.get("/"), instructor.get("/people?q=" + url.QueryEscape(text))}
		switch n % 5 {
		case 0:
			look = append(look, mira.get("/training"), mira.get(path), instructor.get("/people/mira.keller"))
		case 1:
			look = append(look, vera.get("/team"), instructor.get("/audit?event="+url.QueryEscape(text)))
		case 2:
			look = append(look, instructor.get("/organisation"), instructor.get("/drills"))
		case 3:
			look = append(
				look,
				s.browser().get("/verify?number="+url.QueryEscape(text)),
				instructor.get("/console/story?event="+url.QueryEscape(text)),
			)
		case 4:
			look = append(
				look,
				instructor.get("/audit?person="+url.QueryEscape(text)),
				s.browser().get("/sign-in?token="+url.QueryEscape(text)),
			)
		}
		for i, p := range look {
			if p.status >= 500 {
				t.Errorf("injection %d, page %d: %d", n, i, p.status)
			}
			if err := harmless(p.body); err != nil {
				t.Errorf("injection %d (%q), page %d: %v", n, text, i, err)
			}
		}
	}
}

func TestTextOfStrangersIsShownAsText(t *testing.T) {
	s := newFixture(t)
	hostile := `"><script>alert(1)</script><img src=x onerror=alert(2)>`
	s.scorer.set(func() {
		s.scorer.people[0].Name = "Mira " + hostile
		s.scorer.people[0].Team = hostile
		for i := range s.scorer.events["mira.keller"] {
			s.scorer.events["mira.keller"][i].Detail = hostile
		}
	})
	b, err := json.Marshal(
		exercise.Exercise{
			ID:     "x",
			Title:  hostile,
			Brief:  hostile,
			State:  "playing",
			Attack: []string{"javascript:x"},
			Steps:  []exercise.Step{{At: "1", Who: hostile, What: hostile, Outcome: hostile}},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	if w := s.wire(s.console.PostExercise, "POST", "/v1/exercises", "application/json", string(b)); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	mira, instructor := s.as("mira.keller"), s.as("instructor")
	path := mira.start("phishing")
	pages := map[string]shown{}
	for _, p := range []string{"/", "/training", path, path + "/quiz"} {
		pages[p] = mira.get(p)
	}
	for _, p := range []string{
		"/organisation", "/people", "/people?q=" + url.QueryEscape(hostile), "/people/mira.keller", "/exercises",
		"/audit?person=" + url.QueryEscape(hostile), "/people?team=" + url.QueryEscape(hostile),
	} {
		pages[p] = instructor.get(p)
	}
	pages["/team"] = s.as("vera.holm").get("/team")
	foreign := regexp.MustCompile(`(?i)(src|href|action)="(https?:|//|javascript:|data:)`)
	for path, p := range pages {
		if p.status != 200 {
			t.Errorf("%s: %d", path, p.status)
		}
		own := regexp.MustCompile(`<script src="/static/[a-z]+\.[0-9a-f]{16}\.js" defer></script>`)
		p.body = own.ReplaceAllString(p.body, "")
		for _, bad := range []string{"<script", "<img src=x", "<style", ` style=`, ` onerror="`} {
			if strings.Contains(strings.ToLower(p.body), bad) {
				t.Errorf("%s holds %s", path, bad)
			}
		}
		if m := foreign.FindString(p.body); m != "" {
			t.Errorf("%s holds %s", path, m)
		}
	}
}
