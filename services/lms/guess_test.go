package lms

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"example.org/security-training/services/lms/site"
)

func TestGuessesAreHeldUpAndAClassBehindOneAddressIsNot(t *testing.T) {
	s := newFixture(t)
	b := s.browser()
	// Thirty people who sign in at once, each with a second link that does not work any more.
	var class sync.WaitGroup
	for range 30 {
		_, token, _ := strings.Cut(s.link(`{"person":"mira.keller"}`).Path, "token=")
		class.Go(func() {
			own := s.browser()
			for try, want := range []int{303, 403} {
				if p := own.post("/sign-in", url.Values{"token": {token}}); p.status != want {
					t.Errorf("try %d: %d, want %d", try, p.status, want)
				}
			}
		})
	}
	class.Wait()
	mira := s.as("mira.keller")
	for range 500 { // right guesses cost nothing
		if p := b.get("/verify"); p.status != 200 {
			t.Fatalf("the page without a number: %d", p.status)
		}
	}
	for name, guess := range map[string]func(i int) shown{
		"a link": func(i int) shown {
			return b.post("/sign-in", url.Values{"token": {fmt.Sprintf("AAAAAAAAAAAAAAAAAAAAAAAAA%d", i%6+2)}})
		},
		"a number": func(i int) shown { return b.get("/verify?number=" + strconv.Itoa(i)) },
		"a mail":   func(int) shown { return mira.get("/mailbox/00000000-0000-4000-8000-000000000000/link") },
	} {
		held := 0
		for i := range site.FailuresOfAddress + 20 {
			p := guess(i)
			if p.status == http.StatusTooManyRequests {
				held++
				if p.header.Get("Retry-After") == "" {
					t.Errorf("%s: held up without a word of when to come again", name)
				}
			}
		}
		if held == 0 {
			t.Errorf("%s was guessed at %d times and never held up", name, site.FailuresOfAddress+20)
		}
	}
	if p := mira.get("/training"); p.status != 200 {
		t.Errorf("a person who is signed in: %d", p.status)
	}
}
