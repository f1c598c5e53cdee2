package lms

import (
	"context"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"example.org/security-training/services/mesh/meshtest"
)

func TestMeshRoutesRefuseWhatIsWrongBeforeAnythingElse(t *testing.T) {
	s := newFixture(t)
	for _, c := range []struct {
		name        string
		h           func(http.ResponseWriter, *http.Request) error
		contentType string
		body        string
		want        int
	}{
		{"link", s.auth.PostLink, "application/probe", `{"role":"instructor"}`, 415},
		{"exercise", s.console.PostExercise, "application/probe", `{}`, 415},
		{"reset", s.PostReset, "application/probe", `{}`, 415},
		{"reset", s.PostReset, "", ``, 415},
		{"link without a person", s.auth.PostLink, "application/json", `{}`, 422},
		{"link of a stranger", s.auth.PostLink, "application/json", `{"person":"no.body"}`, 404},
		{"link of a bad id", s.auth.PostLink, "application/json", `{"person":"<b>"}`, 422},
		{"link of an unknown role", s.auth.PostLink, "application/json", `{"role":"owner"}`, 422},
		{
			"link of an instructor with a person", s.auth.PostLink, "application/json",
			`{"role":"instructor","person":"mira.keller"}`, 422,
		},
		{
			"link of a manager without reports", s.auth.PostLink, "application/json", `{"role":"manager","person":"tom.brandt"}`,
			409,
		},
		{"link with more", s.auth.PostLink, "application/json", `{"person":"mira.keller","admin":true}`, 400},
		{"exercise without anything", s.console.PostExercise, "application/json", `{}`, 422},
		{"exercise with more", s.console.PostExercise, "application/json", `{"x":1}`, 400},
		{"exercise in no state", s.console.PostExercise, "application/json", `{"id":"a","title":"b","state":"lost"}`, 422},
		{"records", s.training.PutTraining, "application/probe", `{}`, 415},
		{"records with more", s.training.PutTraining, "application/json", `{"x":1}`, 400},
		{
			"records of another source", s.training.PutTraining, "application/json",
			`{"events":[{"id":"git:x","at":"2026-09-01T10:00:00Z","person":"mira.keller","source":"git","verb":"git.commit"}]}`,
			422,
		},
		{
			"records without a person", s.training.PutTraining, "application/json",
			`{"events":[{"id":"training:x","at":"2026-09-01T10:00:00Z","accounts":["email:x"],"source":"training",
				"verb":"training.stale"}]}`,
			422,
		},
		{"revocation", s.auth.PostRevocation, "application/probe", `{}`, 415},
		{
			"revocation without a name", s.auth.PostRevocation, "application/json",
			`{"role":"person","before":"2026-01-01T00:00:00Z"}`, 422,
		},
		{
			"revocation of an unknown role", s.auth.PostRevocation, "application/json",
			`{"name":"mira.keller","role":"owner","before":"2026-01-01T00:00:00Z"}`, 422,
		},
		{
			"revocation without a time", s.auth.PostRevocation, "application/json", `{"name":"mira.keller","role":"person"}`,
			422,
		},
		{
			"revocation of what is yet to come", s.auth.PostRevocation, "application/json",
			`{"name":"mira.keller","role":"person","before":"2999-01-01T00:00:00Z"}`, 422,
		},
		{
			"revocation with more", s.auth.PostRevocation, "application/json",
			`{"name":"mira.keller","role":"person","before":"2026-01-01T00:00:00Z","x":1}`, 400,
		},
		{"reset with more", s.PostReset, "application/json", `{"x":1}`, 400},
	} {
		if w := s.wire(c.h, "POST", "/", c.contentType, c.body); w.Code != c.want {
			t.Errorf("%s: %d, want %d: %s", c.name, w.Code, c.want, w.Body)
		}
	}
	if n := len(s.chain()); n != 0 {
		t.Errorf("%d audit rows for refused orders", n)
	}
	if l := s.link(`{"role":"manager","person":"vera.holm"}`); l.Role != "manager" || l.Person != "vera.holm" ||
		!strings.HasPrefix(l.Path, "/sign-in?token=") {
		t.Errorf("link %+v", l)
	}
	if l := s.link(`{"role":"instructor"}`); l.Role != "instructor" || l.Person != "" {
		t.Errorf("link %+v", l)
	}
	s.scorer.set(func() { s.scorer.unavailable = true })
	s.LMS.scorer.Roster.Forget()
	if w := s.wire(s.auth.PostLink, "POST", "/", "application/json", `{"person":"mira.keller"}`); w.Code != 503 ||
		w.Header().Get("Retry-After") == "" {
		t.Errorf("link while the scorer is away: %d", w.Code)
	}
	s.link(`{"role":"instructor"}`)
}

// TestServesTheRoutesThatTopologyLists serves the lab's topology: Serve fails unless it lists exactly the handlers.
func TestServesTheRoutesThatTopologyLists(t *testing.T) {
	text, err := os.ReadFile("../../manifests/chart/topology.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := newFixture(t)
	n := meshtest.Start(t, text)
	node := n.Join(t, "lms")
	s.Register(node)
	n.Serve(t, node)

	instructor, collector := n.Join(t, "instructor"), n.Join(t, "git-collector")
	resp, err := instructor.Peer("lms").Post(t.Context(), "/v1/links", "application/json", []byte(`{"role":"instructor"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("the instructor's link: %d", resp.StatusCode)
	}
	if chain := s.chain(); len(chain) != 1 || chain[0].Detail == "" {
		t.Errorf("audit %+v", chain)
	}
	if resp, err := collector.Peer("lms").Post(
		t.Context(), "/v1/links", "application/json", []byte(`{"role":"instructor"}`),
	); err == nil {
		resp.Body.Close()
		t.Errorf("a collector's link: %d", resp.StatusCode)
	}
	// The people's port is plain HTTP on loopback; a connection shows that it is there, the pages have tests of their own.
	var d net.Dialer
	c, err := d.DialContext(context.Background(), "tcp", net.JoinHostPort(n.Host, strconv.Itoa(node.Self().Web)))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
