package lms

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// noPages are addresses that answer without a page to look at.
var noPages = map[string]string{
	"GET /sign-in/provider":           "sends the browser to the provider",
	"GET /sign-in/callback":           "sends the browser on, or answers as GET /sign-in does",
	"GET /training/{lesson}/progress": "the state of a lesson, for a script",
	"GET /xapi":                       "a file",
	"GET /console/events":             "a stream",
	"GET /console/results/{file}":     "a file",
}

// TestEveryPageIsLookedAt holds that each page is among the sights, which the browser tests open.
func TestEveryPageIsLookedAt(t *testing.T) {
	all := http.NewServeMux()
	for _, p := range (&LMS{}).routes() {
		all.HandleFunc(p.Pattern, func(http.ResponseWriter, *http.Request) {})
	}
	seen := map[string]bool{}
	for _, v := range sights(objects{
		link: "/sign-in", number: "N", open: "/training/1", passed: "/training/2", failing: "/training/3",
		certificate: "/certificates/2", letter: "/mailbox/1", other: "/mailbox/2", campaign: "/drills/1",
	}) {
		at, err := url.Parse(v.path)
		if err != nil {
			t.Fatal(err)
		}
		_, pattern := all.Handler(httptest.NewRequest(http.MethodGet, at.String(), nil))
		seen[pattern] = true
	}
	for _, p := range (&LMS{}).routes() {
		if !strings.HasPrefix(p.Pattern, "GET ") {
			continue
		}
		if why, listed := noPages[p.Pattern]; listed == seen[p.Pattern] {
			t.Errorf("%s: among the sights: %v; listed as no page: %q. Want one of both", p.Pattern, seen[p.Pattern], why)
		}
	}
}
