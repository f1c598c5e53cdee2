package lms

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"example.org/security-training/services/audit"
)

// endless stands for an answer that does not end, which another test reads.
const endless = -1

// pattern is a path with ids replaced by the names of the wildcards.
func pattern(path string) string {
	object := "{lesson}"
	if strings.HasPrefix(path, "/mailbox") {
		object = "{mail}"
	} else if strings.HasPrefix(path, "/drills") {
		object = "{campaign}"
	}
	return regexp.MustCompile(`[0-9a-f-]{36}`).ReplaceAllString(path, object)
}

// viewers are the columns of the tables of access: a person or a role, empty without a session.
var viewers = []string{"", "mira.keller", "tom.brandt", "vera.holm", "otto.lang", "instructor"}

// access is what each of viewers gets for a page, or for a form that is sent to it.
type access struct {
	path string
	form url.Values
	want []int // status, in the order of viewers
}

// accessOfPages is the table of pages. The arguments are paths of Mira's open lesson, finished lesson and message, and
// of the campaign.
func accessOfPages(open, done, letter, campaign string) []access {
	page := func(path string, want ...int) access { return access{path: path, want: want} }
	return []access{
		// The columns are those of viewers: no session, Mira, Tom, Vera, Otto, an instructor.
		page("/", 401, 200, 200, 200, 200, 303),
		page("/training", 401, 200, 200, 200, 200, 403),
		page(open, 401, 200, 404, 404, 404, 200),
		page(open+"/quiz", 401, 200, 404, 404, 404, 403),
		page(open+"/result", 401, 303, 404, 404, 404, 303),
		page(done, 401, 200, 404, 404, 404, 200),
		page(done+"/quiz", 401, 303, 404, 404, 404, 403),
		page(done+"/result", 401, 200, 404, 404, 404, 200),
		page("/training/"+uuid.NewString(), 401, 404, 404, 404, 404, 404),
		page("/training/x", 401, 404, 404, 404, 404, 404),
		page(done+"/progress", 401, 200, 404, 404, 404, 200),
		page("/certificates/"+strings.TrimPrefix(open, "/training/"), 401, 404, 404, 404, 404, 404),
		page("/certificates/"+strings.TrimPrefix(done, "/training/"), 401, 200, 404, 404, 404, 200),
		page("/certificates/x", 401, 404, 404, 404, 404, 404),
		page("/verify", 200, 200, 200, 200, 200, 200),
		page("/verify?number=x", 200, 200, 200, 200, 200, 200),
		page("/xapi", 401, 403, 403, 403, 403, 200),
		page("/team", 401, 403, 403, 200, 200, 403),
		page("/organisation", 401, 403, 403, 403, 403, 200),
		page("/people", 401, 403, 403, 403, 403, 200),
		page("/people/mira.keller", 401, 303, 403, 403, 403, 200),
		page("/people/tom.brandt", 401, 403, 303, 403, 403, 200),
		page("/people/nobody", 401, 403, 403, 403, 403, 404),
		page("/reasons/git.secret_committed", 401, 200, 404, 404, 404, 403),
		page("/reasons/git.secret_committed?from=x", 401, 400, 400, 400, 400, 403),
		page("/people/mira.keller/reasons/git.secret_committed", 401, 403, 403, 403, 403, 200),
		page("/people/nobody/reasons/git.secret_committed", 401, 403, 403, 403, 403, 404),
		page("/exercises", 401, 403, 403, 403, 403, 200),
		page("/audit", 401, 403, 403, 403, 403, 200),
		page("/audit?before=x", 401, 403, 403, 403, 403, 400),
		page("/elsewhere", 404, 404, 404, 404, 404, 404),
		page("/v1/audit", 404, 404, 404, 404, 404, 404),
		page("/static/none.css", 404, 404, 404, 404, 404, 404),
		page("/sign-in", 200, 303, 303, 303, 303, 303),
		page("/mailbox", 401, 200, 200, 200, 200, 403),
		page(letter, 401, 200, 404, 404, 404, 403),
		page(letter+"/link", 401, 200, 404, 404, 404, 403),
		page("/mailbox/x", 401, 404, 404, 404, 404, 403),
		page("/drills", 401, 403, 403, 403, 403, 200),
		page(campaign, 401, 403, 403, 403, 403, 200),
		page("/drills/x", 401, 403, 403, 403, 403, 404),
		page("/sign-in/provider", 404, 404, 404, 404, 404, 404), // there is none
		page("/sign-in/callback", 404, 404, 404, 404, 404, 404),
		page("/console", 401, 403, 403, 403, 403, 200),
		page("/console/identities", 401, 403, 403, 403, 403, 200),
		page("/console/matrix", 401, 403, 403, 403, 403, 200),
		page("/console/story", 401, 403, 403, 403, 403, 200),
		page("/console/records", 401, 403, 403, 403, 403, 200),
		page("/console/results/results.csv", 401, 403, 403, 403, 403, 200),
		page("/console/events", 401, 403, 403, 403, 403, endless),
	}
}

// accessOfForms is the table of forms. Signing out is last, since it ends the session.
func accessOfForms(open, done, letter string) []access {
	return []access{
		{"/training", url.Values{"module": {"malware"}}, []int{401, 303, 303, 303, 303, 403}},
		{"/training", url.Values{"module": {"none"}}, []int{401, 422, 422, 422, 422, 403}},
		{open + "/quiz", url.Values{"attempt": {"1"}}, []int{401, 422, 404, 404, 404, 403}},
		{done + "/quiz", url.Values{"attempt": {"1"}}, []int{401, 303, 404, 404, 404, 403}},
		{"/sign-in", url.Values{"token": {"x"}}, []int{403, 403, 403, 403, 403, 403}},
		{letter + "/link", nil, []int{401, 303, 404, 404, 404, 403}},
		{letter + "/report", nil, []int{401, 303, 404, 404, 404, 403}},
		{"/drills", url.Values{"lure": {"none"}}, []int{401, 403, 403, 403, 403, 422}},
		{"/drills", url.Values{"lure": {"prize"}, "team": {"none"}}, []int{401, 403, 403, 403, 403, 422}},
		{"/sign-in/certificate", nil, []int{403, 403, 403, 403, 403, 403}}, // without a certificate
		{"/console/hints", nil, []int{401, 403, 403, 403, 403, 422}},
		{"/console/orders", nil, []int{401, 403, 403, 403, 403, 422}},
		{"/console/identities", nil, []int{401, 403, 403, 403, 403, 403}},
		{"/sign-out", nil, []int{401, 303, 303, 303, 303, 303}},
	}
}

func TestEveryPageAndObjectIsShownToWhoMaySeeItAndNobodyElse(t *testing.T) {
	t.Parallel() // it mostly waits, or keeps a core busy for seconds
	s := newFixture(t)
	mira := s.as("mira.keller")
	open := mira.start("phishing")
	done := mira.start("secret-hygiene")
	mira.attempt(done, "secret-hygiene", 1, 0)

	s.campaign("mfa-reset", "")
	letter := "/mailbox/" + s.message("mira.keller", "mfa-reset")
	campaign := "/drills/" + s.one(`SELECT id::text FROM training.campaign`)
	table, posts := accessOfPages(open, done, letter, campaign), accessOfForms(open, done, letter)
	covered := map[string]bool{}
	for i, name := range viewers {
		b := s.as(name)
		for _, c := range table {
			covered["GET "+pattern(c.path)] = true
			if c.want[i] == endless {
				continue
			}
			p := b.get(c.path)
			if p.status != c.want[i] {
				t.Errorf("GET %s as %q: %d, want %d", c.path, name, p.status, c.want[i])
			}
			if p.status >= 400 && name != "instructor" && strings.Contains(p.text(), "Mira") && name != "mira.keller" {
				t.Errorf("GET %s as %q: a refusal that names Mira", c.path, name)
			}
		}
		for _, c := range posts {
			if p := b.post(c.path, c.form); p.status != c.want[i] {
				t.Errorf("POST %s as %q: %d, want %d", c.path, name, p.status, c.want[i])
			}
			covered["POST "+pattern(c.path)] = true
		}
	}
	covered["GET /{$}"], covered["GET /people/{person}"] = covered["GET /"], covered["GET /people/nobody"]
	covered["GET /reasons/{reason}"] = covered["GET /reasons/git.secret_committed"]
	covered["GET /people/{person}/reasons/{reason}"] = covered["GET /people/nobody/reasons/git.secret_committed"]
	covered["GET /console/results/{file}"] = covered["GET /console/results/results.csv"]
	for _, p := range s.LMS.routes() {
		if !covered[p.Pattern] {
			t.Errorf("the table does not try %s", p.Pattern)
		}
	}
	if n := s.rows(`SELECT count(*) FROM training.lesson WHERE person = 'instructor' OR person = ''`); n != 0 {
		t.Errorf("%d lessons without a person", n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.decisions, func(e audit.Entry) bool {
		return e.Person == "tom.brandt" && e.Route == "GET /training/{lesson}" && e.Outcome == "Forbidden" &&
			e.Reason == "not_own"
	}) {
		t.Errorf("a refused look at another's lesson is not among the decisions")
	}
}
