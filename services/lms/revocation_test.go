package lms

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/lms/lmsapi"
	"example.org/security-training/services/mesh"
)

// certified is a fixture whose people have client certificates. The User-Agent header selects the certificate.
type certified struct {
	*fixture
	mu    sync.Mutex
	shows map[string]mesh.Certificate
}

func newCertified(t *testing.T) *certified {
	c := &certified{shows: map[string]mesh.Certificate{}}
	c.fixture = newFixture(t, func(_ *fixture, cfg *Config) {
		cfg.Certificate = func(r *http.Request) (mesh.Certificate, bool) {
			c.mu.Lock()
			defer c.mu.Unlock()
			shown, ok := c.shows[r.UserAgent()]
			return shown, ok
		}
	})
	return c
}

// send requests a page with the certificate of agent.
func (c *certified) send(b *browser, agent, method, path string) shown {
	c.t.Helper()
	r, err := http.NewRequest(method, c.web.URL+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("User-Agent", agent)
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	return b.send(r)
}

func (c *certified) revoke(name, role string, before time.Time) lmsapi.Revocation {
	c.t.Helper()
	body, err := json.Marshal(lmsapi.Revocation{Name: name, Role: role, Before: before})
	if err != nil {
		c.t.Fatal(err)
	}
	w := c.wire(c.auth.PostRevocation, "POST", "/v1/revocations", "application/json", string(body))
	var answered lmsapi.Revocation
	if err := json.Unmarshal(w.Body.Bytes(), &answered); w.Code != 200 || err != nil {
		c.t.Fatalf("revoke %s: %d %s", name, w.Code, w.Body)
	}
	return answered
}

func TestARevokedCertificateIsRefusedAtTheNextRequestAndANewerOneIsNot(t *testing.T) {
	c := newCertified(t)
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	c.shows["old"] = mesh.Certificate{Name: "mira.keller", Role: "person", Serial: "1f", Begins: at.Add(-time.Minute)}
	c.shows["last"] = mesh.Certificate{Name: "mira.keller", Role: "person", Serial: "2f", Begins: at}
	c.shows["new"] = mesh.Certificate{Name: "mira.keller", Role: "person", Serial: "3f", Begins: at.Add(time.Second)}
	c.shows["tom"] = mesh.Certificate{Name: "tom.brandt", Role: "person", Serial: "4f", Begins: at}
	c.shows["admin"] = mesh.Certificate{Name: "admin", Role: "admin", Serial: "5f", Begins: at}
	signed := map[string]*browser{}
	for _, agent := range []string{"old", "last", "tom", "admin"} {
		signed[agent] = c.browser()
		if p := c.send(signed[agent], agent, "POST", "/sign-in/certificate"); p.status != 303 {
			t.Fatalf("%s by certificate: %d", agent, p.status)
		}
	}
	sessions := c.rows(`SELECT count(*) FROM training.session`)
	if got := c.revoke("mira.keller", "person", at); !got.Before.Equal(at) {
		t.Errorf("revoked by %s, want %s", got.Before, at)
	}
	// An earlier time changes nothing. The same name in another role is another user.
	if got := c.revoke("mira.keller", "person", at.Add(-time.Hour)); !got.Before.Equal(at) {
		t.Errorf("after an earlier one, what is revoked begins by %s, want %s", got.Before, at)
	}
	c.revoke("tom.brandt", "instructor", at)

	for _, agent := range []string{"old", "last"} {
		for _, x := range []struct{ method, path string }{
			{"GET", "/training"}, {"GET", "/sign-in"}, {"POST", "/sign-in/certificate"}, {"GET", "/verify"}, {"GET", "/nowhere"},
		} {
			p := c.send(signed[agent], agent, x.method, x.path)
			if p.status != 403 || !strings.Contains(p.body, `data-code="certificate_revoked"`) ||
				!strings.Contains(p.text(), "was revoked") {
				t.Errorf("%s %s by the %s certificate: %d %s", x.method, x.path, agent, p.status, p.text())
			}
			if n := c.count("certificate_revoked", c.shows[agent].Serial, x.method+" "+x.path); x.path != "/nowhere" && n != 1 {
				t.Errorf("%s %s by the %s certificate is %d times among the decisions, want once", x.method, x.path, agent, n)
			}
		}
	}
	if n := c.rows(`SELECT count(*) FROM training.session`); n != sessions-2 {
		t.Errorf("%d sessions are left of %d, want two fewer", n, sessions)
	}
	// Another person's session does not make the certificate valid, and does not end.
	link := c.as("tom.brandt")
	if p := c.send(link, "old", "GET", "/training"); p.status != 403 {
		t.Errorf("a revoked certificate with the session of a link: %d", p.status)
	}
	if p := c.send(link, "nothing", "GET", "/training"); p.status != 200 {
		t.Errorf("that session without it: %d", p.status)
	}
	for _, agent := range []string{"tom", "admin"} {
		if p := c.send(signed[agent], agent, "GET", "/"); p.status == 401 || p.status == 403 {
			t.Errorf("%s, who was not revoked: %d", agent, p.status)
		}
	}
	b := c.browser()
	if p := c.send(b, "new", "POST", "/sign-in/certificate"); p.status != 303 {
		t.Errorf("a certificate of afterwards: %d %s", p.status, p.text())
	}
	if p := c.send(b, "new", "GET", "/training"); p.status != 200 {
		t.Errorf("its session: %d", p.status)
	}
	// The revocation survives a restart and a reset.
	if w := c.forgetRecords(); w.Code != 204 {
		t.Fatalf("reset: %d", w.Code)
	}
	again, err := New(c.cfg)
	if err != nil {
		t.Fatal(err)
	}
	for agent, want := range map[string]bool{"old": true, "last": true, "new": false, "tom": false} {
		if got, err := again.auth.Store.Revoked(t.Context(), c.shows[agent]); err != nil || got != want {
			t.Errorf("after a restart and a reset, %s is revoked: %v, %v; want %v", agent, got, err, want)
		}
	}
	rows := slices.DeleteFunc(c.chain(), func(r audit.Row) bool { return r.Kind != "certificate.revoked" })
	if len(rows) != 3 || rows[0].Person != "mira.keller" || !strings.Contains(rows[0].Detail, `"by":"instructor"`) {
		t.Errorf("audit of the revocations: %+v", rows)
	}
}

func TestWhoRevokesByAnEarlierTimeChangesNothingAndIsWrittenDown(t *testing.T) {
	c := newCertified(t)
	at := time.Now().Add(-time.Hour).Truncate(time.Second).UTC()
	of := func(before time.Time) lmsapi.Revocation {
		return lmsapi.Revocation{Name: "mira.keller", Role: "person", Before: before}
	}
	for i, x := range []struct {
		by    string
		asked time.Time
		holds time.Time
		made  string
	}{
		{"first", at, at, "first"}, {"second", at.Add(-time.Minute), at, "first"}, {"third", at, at, "first"},
		{"fourth", at.Add(time.Minute), at.Add(time.Minute), "fourth"},
	} {
		holds, err := c.auth.Store.Revoke(t.Context(), of(x.asked), x.by)
		if err != nil || !holds.Equal(x.holds) {
			t.Errorf("%s: %s holds, want %s, %v", x.by, holds, x.holds, err)
		}
		var by string
		if err := c.cfg.Pool.QueryRow(t.Context(), `SELECT by FROM training.revoked_certificate`).Scan(&by); err != nil ||
			by != x.made {
			t.Errorf("after the %s the line is of the %s, want the %s, %v", x.by, by, x.made, err)
		}
		rows := slices.DeleteFunc(c.chain(), func(r audit.Row) bool { return r.Kind != "certificate.revoked" })
		if len(rows) != i+1 || !strings.Contains(rows[i].Detail, `"by":"`+x.by+`"`) ||
			!strings.Contains(rows[i].Detail, `"asked":"`+x.asked.Format(time.RFC3339)+`"`) ||
			!strings.Contains(rows[i].Detail, `"before":"`+x.holds.Format(time.RFC3339)+`"`) {
			t.Errorf("%s is not written down: %+v", x.by, rows)
		}
	}
	// Nor does the database let anybody give a certificate back who may write.
	for _, x := range []string{`before = before - interval '1 second'`, `name = 'tom.brandt'`, `role = 'admin'`} {
		_, err := c.cfg.Pool.Exec(t.Context(), `UPDATE training.revoked_certificate SET `+x)
		if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != "23514" {
			t.Errorf("SET %s: %v", x, err)
		}
	}
}

// count counts the recorded refusals by reason, serial number and route.
func (c *certified) count(reason, serial, route string) int {
	c.fixture.mu.Lock()
	defer c.fixture.mu.Unlock()
	n := 0
	for _, e := range c.decisions {
		if e.Reason == reason && e.Serial == serial && e.Route == route && e.Person == "mira.keller" {
			n++
		}
	}
	return n
}
