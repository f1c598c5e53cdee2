package lms

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"example.org/security-training/services/lms/site"
)

// A cookie that was known before someone signed in stands for no one afterwards: it may have been planted.
func TestWhoSignsInGetsANewSession(t *testing.T) {
	s := newSchool(t)
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

func TestAFormThatIsTooLongIsRefused(t *testing.T) {
	s := newSchool(t)
	b := s.as("mira.keller")
	if p := b.post("/training", url.Values{"module": {strings.Repeat("x", 64<<10)}}); p.status != 413 {
		t.Errorf("a form of over 64 KiB: %d, want 413", p.status)
	}
	if p := b.post("/training", url.Values{"module": {strings.Repeat("x", 60<<10)}}); p.status == 413 {
		t.Error("a form of 60 KiB is too long")
	}
}

// What one conductor has taken is given to no other, and what is done is not given again.
func TestAnOrderThatWasTakenIsHandedOutNoMore(t *testing.T) {
	s := conducted(t)
	instructor := s.as(site.RoleInstructor)
	cell := "forged|llm-gateway|POST /v1/generate"
	if p := instructor.post("/console/orders", url.Values{"kind": {"try"}, "cell": {cell}}); p.status != 303 {
		t.Fatalf("try: %d %s", p.status, p.body)
	}
	waiting := func() int { return len(s.orders("").Orders) }
	if n := waiting(); n != 1 {
		t.Fatalf("%d orders wait, want 1", n)
	}
	for _, state := range []string{"taken", "done"} {
		if code := s.report("1", `{"state":"`+state+`"}`); code != 204 {
			t.Fatalf("report %s: %d", state, code)
		}
		if n := waiting(); n != 0 {
			t.Errorf("an order that is %s is handed out again", state)
		}
	}
}
