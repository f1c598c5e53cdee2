package lms

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/lms/auditlog"
	"example.org/security-training/services/postgres/audited"
)

func TestTheChainIsAskedForWhatItSaysOfAPersonFromATimeOn(t *testing.T) {
	s := newFixture(t)
	s.as("mira.keller").start("phishing")
	s.as("tom.brandt").start("phishing")
	all := s.chain()
	ask := func(query string) (int, []audit.Row) {
		t.Helper()
		w := s.wire(s.auditlog.GetAudit, "GET", "/v1/audit?"+query, "", "")
		rows, err := audit.ReadRows(w.Body)
		if w.Code == 200 && err != nil {
			t.Fatal(err)
		}
		return w.Code, rows
	}
	_, rows := ask("person=mira.keller")
	if len(rows) == 0 || len(rows) >= len(all) {
		t.Fatalf("%d rows about mira of %d", len(rows), len(all))
	}
	for _, r := range rows {
		if r.Person != "mira.keller" || r.Hash != r.Sum() {
			t.Errorf("%+v", r)
		}
	}
	_, later := ask(
		url.Values{"person": {"mira.keller"}, "since": {rows[len(rows)-1].At.Format(time.RFC3339Nano)}}.Encode(),
	)
	if len(later) != 1 || later[0].Seq != rows[len(rows)-1].Seq {
		t.Errorf("from the last one on: %+v", later)
	}
	for _, bad := range []string{
		"person=mira.keller&since=yesterday", "person=mira.keller&after=1", "event=x&after=1",
		"event=x&since=2026-01-01T00:00:00Z", "since=2026-01-01T00:00:00Z",
	} {
		if code, _ := ask(bad); code != 400 {
			t.Errorf("%s: %d", bad, code)
		}
	}
	// A row has one text, however it is asked for.
	if err := s.db.Record(t.Context(), audited.Note("search", "", "git:<a> & b", struct{}{})); err != nil {
		t.Fatal(err)
	}
	whole, one := s.wire(
		s.auditlog.GetAudit,
		"GET",
		"/v1/audit",
		"",
		"",
	).Body.String(), s.wire(
		s.auditlog.GetAudit,
		"GET",
		"/v1/audit?"+url.Values{"event": {"git:<a> & b"}}.Encode(),
		"",
		"",
	).Body.String()
	if one == "" || !strings.HasSuffix(whole, one) || !strings.Contains(one, `"git:<a> & b"`) {
		t.Errorf("one row has two texts: %s", one)
	}
}

func TestAPersonsOlderRowsOfAnEventAreFoundBehindOthers(t *testing.T) {
	s := newFixture(t)
	const event = "git:secret/payments/1/a"
	rows := []audited.Row{audited.Note("lesson.asked", "mira.keller", event, struct{}{})}
	for range auditlog.PageRows + 5 {
		rows = append(rows, audited.Note("lesson.asked", "tom.brandt", event, struct{}{}))
	}
	if err := s.db.Record(t.Context(), rows...); err != nil {
		t.Fatal(err)
	}
	found, err := s.auditlog.Store.Search(
		t.Context(),
		auditlog.Query{Event: event, Person: "mira.keller", Limit: auditlog.PageRows + 1},
	)
	if err != nil || len(found) != 1 || found[0].Person != "mira.keller" {
		t.Errorf("%d rows of hers about the event are found: %v, %v", len(found), found, err)
	}
	if found, err = s.auditlog.Store.Search(t.Context(), auditlog.Query{Event: event, Limit: 3}); err != nil ||
		len(found) != 3 ||
		found[0].Person != "tom.brandt" {
		t.Errorf("about the event alone: %v, %v", found, err)
	}
}

func TestExportedAuditIsOneUnbrokenChain(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	b.attempt(path, "secret-hygiene", 1, 0)
	s.awaitDelivery()
	s.as("instructor").get("/people/mira.keller")
	all := s.chain()
	prev := ""
	for i, e := range all {
		text := strings.Join(
			[]string{e.Chain, fmt.Sprint(e.Seq), fmt.Sprint(e.At.UnixMicro()), e.Kind, e.Person, e.Event, e.Prev, e.Detail},
			"\n",
		)
		sum := sha256.Sum256([]byte(text))
		if e.Chain != "lms" || e.Seq != int64(i+1) || e.Prev != prev || e.Hash != hex.EncodeToString(sum[:]) {
			t.Fatalf("entry %d breaks the chain: %+v", i+1, e)
		}
		prev = e.Hash
	}
	if !slices.ContainsFunc(all, func(e audit.Row) bool { return e.Kind == "view" && e.Person == "mira.keller" }) {
		t.Error("an instructor's look at a person is not in the audit")
	}
	w := s.wire(s.auditlog.GetAudit, "GET", "/v1/audit?after=2&limit=1", "", "")
	if n := strings.Count(w.Body.String(), "\n"); n != 1 || !strings.Contains(w.Body.String(), `"seq":3,`) {
		t.Errorf("one entry after the second: %s", w.Body)
	}
	page := s.as("instructor").get("/audit?event=" + url.QueryEscape("training:"+strings.TrimPrefix(path, "/training/")))
	if n := strings.Count(page.body, "<tr>"); n != 3 { // head, completion, delivery
		t.Errorf("%d rows for one event", n)
	}
}
