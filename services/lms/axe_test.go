package lms

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/exercise"
	"example.org/security-training/services/lms/site"
)

// axe is the source of axe-core, a development dependency that is not shipped, or "" with a skipped test that says so.
func axe(t *testing.T) string {
	t.Helper()
	var text []byte
	t.Run("axe-core", func(t *testing.T) { text = needtest.WebCheck(t, "../..", "axe-core/axe.min.js") })
	return string(text)
}

// sight is a page that a viewer looks at.
type sight struct{ who, name, path string }

// withEverything is a fixture with something on every page.
func withEverything(t *testing.T) (*fixture, []sight) {
	t.Helper()
	s := withConductor(t)
	s.exercise("leaked-secret", "playing")
	s.feed()
	s.scorer.set(func() { s.scorer.elapsed = 30 * time.Hour })
	mira := s.as("mira.keller")
	passed := mira.start("secret-hygiene")
	mira.attempt(passed, "secret-hygiene", 1, 2)
	mira.attempt(passed, "secret-hygiene", 2, 0)
	open := mira.start("keys-and-service-accounts")
	failing := mira.start("phishing")
	mira.attempt(failing, "phishing", 1, 3)
	campaign := s.campaign("mfa-reset", "")
	s.campaign("shared-document", "")
	letter := "/mailbox/" + s.message("mira.keller", "mfa-reset")
	other := "/mailbox/" + s.message("mira.keller", "shared-document")
	mira.get(other + "/link")
	s.as("vera.holm").post("/mailbox/"+s.message("vera.holm", "mfa-reset")+"/report", nil)
	certificate := "/certificates/" + strings.TrimPrefix(passed, "/training/")
	number := regexp.MustCompile(`id="certificate-number">([0-9A-Z-]+)<`).FindStringSubmatch(mira.get(certificate).body)[1]
	s.awaitDelivery()
	return s, sights(objects{
		link: s.link(`{"person":"mira.keller"}`).Path, number: number, open: open, passed: passed, failing: failing,
		certificate: certificate, letter: letter, other: other, campaign: campaign,
	})
}

// feed shows identities, a revoked call and two lines on the console.
func (s *fixture) feed() {
	s.t.Helper()
	told := exercise.Feed{
		Revoked: []exercise.Revoked{{Caller: "lms", Callee: "llm-gateway", Route: "POST /v1/generate"}},
		Lines: []exercise.FeedLine{
			{
				At: time.Now(), Kind: "event", Person: "mira.keller", What: "git: secret committed",
				Event: "git:secret/payments/1",
			},
			{At: time.Now(), Kind: "score", Person: "mira.keller", What: "scores 0.409", Level: "MEDIUM"},
		},
	}
	for i, w := range s.cfg.Topology().Workloads {
		if w.Port != 0 {
			told.Identities = append(
				told.Identities,
				exercise.Identity{
					Workload: w.Name,
					SPIFFEID: s.cfg.Topology().ID(w.Name).String(),
					State:    []string{"ready", "restarting"}[i%7/6],
					Serial:   fmt.Sprintf("%032x", i*7919),
					Expires:  time.Now().Add(time.Duration(i+1) * time.Minute),
				},
			)
		}
	}
	text, err := json.Marshal(told)
	if err != nil {
		s.t.Fatal(err)
	}
	if w := s.wire(s.console.PostFeed, "POST", "/v1/feed", "application/json", string(text)); w.Code != 204 {
		s.t.Fatalf("feed: %d %s", w.Code, w.Body)
	}
}

// objects are the paths of what withEverything makes: lessons of Mira, two messages to her, and a campaign.
type objects struct {
	link, number, open, passed, failing, certificate, letter, other, campaign string
}

// sights are the pages by viewer: with objects, without any, refused and failing.
func sights(x objects) []sight {
	return []sight{
		{"", "start", "/"},
		{"", "signin", x.link},
		{"", "verify", "/verify"},
		{"", "valid", "/verify?number=" + x.number},
		{"", "invalid", "/verify?number=ABC"},
		{"mira.keller", "risk", "/"},
		{"mira.keller", "training", "/training"},
		{"mira.keller", "lesson", x.open},
		{"mira.keller", "quiz", x.open + "/quiz"},
		{"mira.keller", "result", x.passed + "/result"},
		{"mira.keller", "notyet", x.failing + "/result"},
		{"mira.keller", "certificate", x.certificate},
		{"mira.keller", "mailbox", "/mailbox"},
		{"mira.keller", "mail", x.letter},
		{"mira.keller", "mail-clicked", x.other},
		{"mira.keller", "lure", x.letter + "/link"},
		{"mira.keller", "forbidden", "/audit"},
		{"mira.keller", "nothing", "/training/x"},
		{"tom.brandt", "clean", "/"},
		{"tom.brandt", "begin", "/training"},
		{"vera.holm", "team", "/team"},
		{"otto.lang", "smallteam", "/team"},
		{"instructor", "organisation", "/organisation"},
		{"instructor", "comparison", "/organisation?shadow=classic-v1"},
		{"instructor", "overdue", "/people?training=overdue"},
		{"instructor", "people", "/people"},
		{"instructor", "nobody", "/people?q=zzz"},
		{"instructor", "person", "/people/mira.keller"},
		{"instructor", "critical", "/people/luca.moretti"},
		{"mira.keller", "reason", "/reasons/git.secret_committed"},
		{"instructor", "pattern", "/people/luca.moretti/reasons/pattern"},
		{"instructor", "exercises", "/exercises"},
		{"instructor", "drills", "/drills"},
		{"instructor", "drill", x.campaign},
		{"instructor", "audit", "/audit"},
		{"instructor", "audit-none", "/audit?kind=reset"},
		{"instructor", "console", "/console"},
		{"instructor", "identities", "/console/identities"},
		{"instructor", "matrix", "/console/matrix"},
		{"instructor", "cell", "/console/matrix?callee=llm-gateway"},
		{"instructor", "story", "/console/story"},
		{"instructor", "records", "/console/records"},
	}
}

// enter signs the browser in as a person or a role, or out for an empty name.
func enter(t *testing.T, ctx context.Context, s *fixture, who string) {
	t.Helper()
	do(
		t,
		ctx,
		chromedp.Navigate(s.web.URL+"/verify"),
		chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, network.ClearBrowserCookies, cdp.Empty{})
			return err
		}),
	)
	order := `{"person":"` + who + `"}`
	switch who {
	case "":
		return
	case site.RoleInstructor:
		order = `{"role":"instructor"}`
	}
	do(
		t,
		ctx,
		chromedp.Navigate(s.web.URL+s.link(order).Path),
		chromedp.Click(chromedp.CSS("#sign-in")),
		chromedp.WaitVisible(chromedp.CSS("nav")),
	)
}

// pass checks one page after the other in a tab.
type pass struct {
	s      *fixture
	ctx    context.Context
	axe    string // its source, or "" where it is not installed
	folder string // for pictures, or "" without -artifacts
	client *browser
}

// TestEveryPageHoldsInABrowser signs in by pressing the button and opens every page. It checks the size of a page, what
// its policy refused, WCAG 2.2 AA by axe-core in light and dark, tables that are cut off, the layout at 320 pixels,
// which 400 % zoom leaves, and that the tab key reaches every control. Each viewer has a session and a tab, so that
// they run at the same time.
func TestEveryPageHoldsInABrowser(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	skipIfShort(t)
	source, ctx := axe(t), chromium(t)
	s, sights := withEverything(t)
	folder := ""
	if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
		folder = t.ArtifactDir()
	}
	open := func(t *testing.T, who string) *pass {
		tab, stop := chromedp.NewContext(ctx, chromedp.WithNewBrowserContext())
		t.Cleanup(stop)
		p := &pass{s: s, ctx: tab, axe: source, folder: folder, client: s.as(who)}
		if err := chromedp.Listen(tab, func(ev any) {
			if e, ok := ev.(*log.EventEntryAdded); ok && e.Entry.Source == log.EntrySourceSecurity {
				t.Errorf("the browser says of %s: %s", e.Entry.URL, e.Entry.Text)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := chromedp.Call(tab, log.Enable, cdp.Empty{}); err != nil {
			t.Fatal(err)
		}
		enter(t, tab, s, who)
		return p
	}
	looked := map[string]bool{}
	t.Run("pages", func(t *testing.T) {
		for i, first := range sights {
			if looked[first.who] {
				continue
			}
			looked[first.who] = true
			t.Run("as "+first.who, func(t *testing.T) {
				t.Parallel()
				p := open(t, first.who)
				for _, page := range sights[i:] {
					if page.who == first.who {
						p.look(t, page)
					}
				}
			})
		}
	})
	p := open(t, site.RoleInstructor)
	s.scorer.set(func() { s.scorer.unavailable = true })
	p.look(t, sight{site.RoleInstructor, "away", "/organisation"})
}

func (p *pass) look(t *testing.T, page sight) {
	t.Helper()
	ctx, stop := context.WithTimeout(p.ctx, pageTimeout)
	defer stop()
	p = &pass{s: p.s, ctx: ctx, axe: p.axe, folder: p.folder, client: p.client}
	if weight := p.weight(t, page.path); weight > 100<<10 {
		t.Errorf("%s: %d bytes, packed, with all that it loads", page.path, weight)
	}
	do(
		t,
		p.ctx,
		chromedp.EmulateViewport(1280, 900),
		prefer("light"),
		chromedp.Navigate(p.s.web.URL+page.path),
		chromedp.WaitReady(chromedp.CSS("main")),
	)
	// A table that is wider than its box hides a column behind a scroll bar that few look for.
	for _, cut := range look(
		t, p.ctx,
		chromedp.Evaluate[[]string](
			`[...document.querySelectorAll("main table")].map(e => [e, e.closest(".scroll") || e.parentElement]).filter(([e,
				box]) => e.offsetWidth > box.clientWidth).map(([e, box]) => (e.caption || e).innerText.slice(0, 60) + ": " +
				e.offsetWidth + " pixels in a box of " + box.clientWidth)`,
		),
	) {
		t.Errorf("%s: a table is cut off: %s", page.path, cut)
	}
	if p.axe != "" {
		look(t, p.ctx, chromedp.Evaluate[bool](p.axe+"; true"))
	}
	p.wcag(t, page, "light")
	p.shoot(t, page.name+"-light")
	do(t, p.ctx, prefer("dark"))
	p.wcag(t, page, "dark")
	p.shoot(t, page.name+"-dark")

	do(t, p.ctx, prefer("light"), chromedp.EmulateViewport(320, 700))
	if wide := look(t, p.ctx, chromedp.Evaluate[int64](`document.documentElement.scrollWidth`)); wide > 320 {
		t.Errorf(
			"%s: %d pixels wide in a window of 320: %s",
			page.path,
			wide,
			look(
				t,
				p.ctx,
				chromedp.Evaluate[string](
					`[...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > 320 &&
						!e.closest(".scroll")).map(e => e.outerHTML.slice(0, 120)).slice(0, 3).join("\n")`,
				),
			),
		)
	}
	p.shoot(t, page.name+"-narrow")
	do(t, p.ctx, chromedp.EmulateViewport(1280, 900))
	p.tab(t, page)
}

// weight is the compressed size of a page with its assets, in bytes.
func (p *pass) weight(t *testing.T, path string) int {
	t.Helper()
	fetch := func(path string) shown {
		r, err := http.NewRequest("GET", p.s.web.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", "gzip")
		return p.client.send(r)
	}
	packed := fetch(path)
	text := packed.body
	if packed.header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(strings.NewReader(packed.body))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	sum := len(packed.body)
	assets := regexp.MustCompile(`/static/[a-z]+\.[0-9a-f]+\.[a-z]+`).FindAllString(text, -1)
	if len(assets) < 2 {
		t.Errorf("%s loads %v, want a style and a script at least", path, assets)
	}
	for _, a := range assets {
		sum += len(fetch(a).body)
	}
	return sum
}

// wcag runs axe-core with the rules of WCAG 2.2 at levels A and AA; in dark only with those about colour, since nothing
// else changes.
func (p *pass) wcag(t *testing.T, page sight, scheme string) {
	t.Helper()
	if p.axe == "" {
		return
	}
	rules, least := `["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]`, 8
	if scheme == "dark" {
		rules, least = `{type: "rule", values: ["color-contrast", "link-in-text-block"]}`, 1
	}
	for _, v := range look(
		t, p.ctx,
		chromedp.Evaluate[[]string](
			fmt.Sprintf(
				`axe.run(document, {runOnly: %s}).then(r => r.passes.length < %d ? ["axe looked at next to nothing"]
					: r.violations.flatMap(v => v.nodes.map(n => v.id + ": " + n.html.slice(0, 200) + " " + (n.any[0] || n.all[0] ||
					n.none[0] || {message: ""}).message)))`,
				rules, least,
			),
			chromedp.EvalAwaitPromise,
		),
	) {
		t.Errorf("%s, %s: %s", page.name, scheme, v)
	}
}

func (p *pass) shoot(t *testing.T, name string) {
	t.Helper()
	if p.folder == "" {
		return
	}
	if err := os.WriteFile(
		filepath.Join(p.folder, name+".png"), look(t, p.ctx, chromedp.FullScreenshot(100)), 0o600,
	); err != nil {
		t.Fatal(err)
	}
}

// tab presses the tab key from the beginning of a page to its end. The focus must reach every control in order and be
// visible, first the link to the content. Of a group of radio buttons it reaches the chosen one, or the first.
//
// It repeats if a live page replaces controls meanwhile.
func (p *pass) tab(t *testing.T, page sight) {
	t.Helper()
	for range 5 {
		want, stops := p.stops(t)
		if look(t, p.ctx, chromedp.Evaluate[int](`document.querySelectorAll("[data-stop]").length`)) != want {
			continue
		}
		for i := range want {
			is, right := "nothing", fmt.Sprintf("%d true", i)
			if i == 0 {
				right += " skip true"
			}
			if i < len(stops) {
				is = stops[i]
			}
			if is != right {
				t.Errorf(
					"%s: stop %d of %d is %q, want %q: %s",
					page.path,
					i,
					want,
					is,
					right,
					look(
						t,
						p.ctx,
						chromedp.Evaluate[string](fmt.Sprintf(`document.querySelector("[data-stop='%d']").outerHTML.slice(0, 160)`, i)),
					),
				)
				return
			}
		}
		return
	}
	t.Errorf("%s never stands still", page.path)
}

// stops numbers the controls of a page, presses the tab key as often, and returns where the focus was.
func (p *pass) stops(t *testing.T) (want int, stops []string) {
	t.Helper()
	want = look(t, p.ctx, chromedp.Evaluate[int](`
		document.removeEventListener("focusin", window.noted);
		document.body.tabIndex = -1; // from the beginning, wherever the key was pressed last
		document.body.focus();
		document.body.removeAttribute("tabindex");
		window.stops = [];
		window.noted = e => stops.push(e.target.dataset.stop + " " + (getComputedStyle(e.target).outlineStyle != "none") +
		(stops.length ? "" : " " + e.target.className + " " + (e.target.getBoundingClientRect().top >= 0)));
		document.addEventListener("focusin", window.noted);
		document.querySelectorAll("[data-stop]").forEach(e => delete e.dataset.stop);
		[...document.querySelectorAll("a[href], button:enabled, input:not([type=hidden]), select, summary, [tabindex='0']")]
		.filter(e => e.checkVisibility() && (e.type != "radio" || e == (g => g.find(x => x.checked) ||
		g[0])([...document.getElementsByName(e.name)]))).map((e, i) => e.dataset.stop = i).length`))
	do(t, p.ctx, chromedp.KeyEvent(strings.Repeat(kb.Tab, want)))
	return want, look(t, p.ctx, chromedp.Evaluate[[]string](`window.stops`))
}
