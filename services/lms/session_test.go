package lms

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/services/mesh"
	"example.org/security-training/services/risk"
)

func TestLinkWorksOnceHoweverManyTryAndLookingDoesNotUseItUp(t *testing.T) {
	s := newFixture(t)
	link := s.link(`{"person":"mira.keller"}`)
	_, token, _ := strings.Cut(link.Path, "token=")
	if n := s.rows(
		`SELECT count(*) FROM training.link WHERE encode(token, 'escape') LIKE '%' || $1 || '%'`, token,
	); n != 0 {
		t.Error("the token is in the table")
	}
	if left := time.Until(link.Expires); left < 14*time.Minute || left > 15*time.Minute {
		t.Errorf("works for %v", left)
	}
	for range 3 {
		if p := s.browser().get(link.Path); p.status != 200 || !strings.Contains(p.body, `id="sign-in"`) {
			t.Fatalf("look: %d", p.status)
		}
	}
	var mu sync.Mutex
	counts := map[int]int{}
	var group sync.WaitGroup
	for range 12 {
		group.Go(func() {
			p := s.browser().post("/sign-in", url.Values{"token": {token}})
			mu.Lock()
			counts[p.status]++
			mu.Unlock()
		})
	}
	group.Wait()
	if diff := cmp.Diff(map[int]int{303: 1, 403: 11}, counts); diff != "" {
		t.Error(diff)
	}
	late := s.link(`{"role":"instructor"}`)
	s.exec(`UPDATE training.link SET expires = now() - interval '1 second' WHERE used IS NULL`)
	_, token, _ = strings.Cut(late.Path, "token=")
	if p := s.browser().post("/sign-in", url.Values{"token": {token}}); p.status != 403 ||
		!strings.Contains(p.text(), "does not work any more") {
		t.Errorf("late: %d", p.status)
	}
	if diff := cmp.Diff([]string{"link.made", "sign_in", "link.made"}, kinds(s.chain())); diff != "" {
		t.Error(diff)
	}
}

func TestSessionEndsBySigningOutBeingIdleOrLeaving(t *testing.T) {
	s := newFixture(t)
	out, idle, left := s.as("mira.keller"), s.as("mira.keller"), s.as("tom.brandt")
	u, _ := url.Parse(s.web.URL)
	cookie := out.Jar.Cookies(u)
	if p := out.post("/sign-out", nil); p.status != 303 || p.location() != "/sign-in" {
		t.Errorf("sign out: %d", p.status)
	}
	out.Jar.SetCookies(u, cookie)
	if p := out.get("/"); p.status != 401 {
		t.Errorf("with the old cookie: %d", p.status)
	}
	if p := idle.get("/"); p.status != 200 {
		t.Errorf("before: %d", p.status)
	}
	if n := s.rows(
		`SELECT count(*) FROM training.session WHERE expiry BETWEEN now() + interval '29 minutes' AND now() + interval
			'31 minutes'`,
	); n != 2 {
		t.Errorf("%d sessions end after half an hour, want 2", n)
	}
	s.scorer.set(func() {
		s.scorer.people = slices.DeleteFunc(s.scorer.people, func(p risk.Person) bool { return p.ID == "tom.brandt" })
	})
	s.LMS.scorer.Roster.Forget()
	if p := left.get("/"); p.status != 403 {
		t.Errorf("after leaving: %d", p.status)
	}
	if p := left.get("/"); p.status != 401 {
		t.Errorf("after leaving, again: %d", p.status)
	}
	s.exec(`UPDATE training.session SET expiry = now() - interval '1 second'`)
	if p := idle.get("/"); p.status != 401 {
		t.Errorf("idle: %d", p.status)
	}
}

func TestACertificateSignsInAndItsSessionIsGoodWithItAlone(t *testing.T) {
	c := newCertified(t)
	c.shows["mira"] = mesh.Certificate{Name: "mira.keller", Role: "person", Serial: "1f"}
	c.shows["mallory"] = mesh.Certificate{Name: "mallory", Role: "person", Serial: "2f"}
	c.shows["admin"] = mesh.Certificate{Name: "admin", Role: "admin", Serial: "3f"}
	c.shows["owner"] = mesh.Certificate{Name: "owner", Role: "owner", Serial: "4f"}
	for agent, want := range map[string]int{"mira": 303, "admin": 303, "mallory": 403, "owner": 403, "nobody": 403} {
		if p := c.send(c.browser(), agent, "POST", "/sign-in/certificate"); p.status != want {
			t.Errorf("%s by certificate: %d, want %d", agent, p.status, want)
		}
	}
	b := c.browser()
	if p := c.send(b, "mira", "GET", "/sign-in"); !strings.Contains(p.body, "Continue as mira.keller") {
		t.Errorf("the sign-in page does not name the certificate: %s", p.text())
	}
	c.send(b, "mira", "POST", "/sign-in/certificate")
	for agent, want := range map[string]int{"mira": 200, "nobody": 401, "admin": 401} {
		if p := c.send(b, agent, "GET", "/training"); p.status != want {
			t.Errorf("the session's cookie with the certificate of %s: %d, want %d", agent, p.status, want)
		}
	}
}

func TestByHTTPSTheCookieIsBoundToTheHost(t *testing.T) {
	s := newFixture(t)
	web := httptest.NewTLSServer(s.Pages())
	t.Cleanup(web.Close)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := web.Client()
	client.Jar = jar
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	_, token, _ := strings.Cut(s.link(`{"person":"mira.keller"}`).Path, "token=")
	r, err := http.NewRequest("POST", web.URL+"/sign-in", strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 303 || len(resp.Cookies()) != 1 {
		t.Fatalf("sign in: %d, %d cookies", resp.StatusCode, len(resp.Cookies()))
	}
	c := resp.Cookies()[0]
	if c.Name != "__Host-session" || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" ||
		c.SameSite != http.SameSiteStrictMode {
		t.Errorf("cookie %s", resp.Header.Get("Set-Cookie"))
	}
	for name, want := range map[string]int{"__Host-session": 200, "session": 401} {
		r, err := http.NewRequest("GET", web.URL+"/training", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Cookie", fmt.Sprintf("%s=%s", name, c.Value))
		bare := &http.Client{Transport: client.Transport}
		resp, err := bare.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("cookie %s by HTTPS: %d, want %d", name, resp.StatusCode, want)
		}
	}
}

// A cookie that was known before someone signed in stands for no one afterwards: it may have been planted.
func TestWhoSignsInGetsANewSession(t *testing.T) {
	s := newFixture(t)
	b := s.as("tom.brandt")
	u, err := url.Parse(s.web.URL)
	if err != nil {
		t.Fatal(err)
	}
	planted := b.Jar.Cookies(u)
	_, token, _ := strings.Cut(s.link(`{"person":"mira.keller"}`).Path, "token=")
	if p := b.post("/sign-in", url.Values{"token": {token}}); p.status != http.StatusSeeOther {
		t.Fatalf("sign in: %d", p.status)
	}
	if p := b.get("/"); p.status != http.StatusOK || !strings.Contains(p.text(), "Mira Keller") {
		t.Errorf("who signed in sees %d", p.status)
	}
	attacker := s.browser()
	attacker.Jar.SetCookies(u, planted)
	if p := attacker.get("/"); p.status != http.StatusUnauthorized {
		t.Errorf("with the cookie of before: %d, want 401", p.status)
	}
}
