package lms

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"example.org/security-training/services/lms/training"
)

func TestACertificateCanBeVerifiedByAnybodyAndMadeUpByNobody(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	id := strings.TrimPrefix(path, "/training/")
	if p := b.get("/certificates/" + id); p.status != 404 {
		t.Errorf("before passing: %d", p.status)
	}
	b.attempt(path, "secret-hygiene", 1, 0)
	p := b.get("/certificates/" + id)
	number := regexp.MustCompile(`id="certificate-number">([0-9A-Z-]+)<`).FindStringSubmatch(p.body)
	if p.status != 200 || number == nil || !strings.Contains(p.text(), "Mira Keller") {
		t.Fatalf("%d %s", p.status, p.text())
	}
	for _, who := range []string{"tom.brandt", "vera.holm"} {
		if p := s.as(who).get("/certificates/" + id); p.status != 404 {
			t.Errorf("as %s: %d", who, p.status)
		}
	}
	verify := func(number string) shown {
		return s.browser().get("/verify?number=" + url.QueryEscape(number))
	}
	for _, typed := range []string{
		number[1], strings.ToLower(number[1]), strings.ReplaceAll(number[1], "-", " "),
		strings.ReplaceAll(number[1], "0", "o"),
	} {
		if p := verify(typed); p.status != 200 || !strings.Contains(p.body, `data-valid="true"`) ||
			!strings.Contains(p.text(), "Mira Keller") ||
			!strings.Contains(p.text(), "Keep secrets out of code") {
			t.Errorf("%s: %d %s", typed, p.status, p.text())
		}
	}
	wrong := []string{id, "x", strings.Repeat("A", 300), `"><script>`, number[1] + "A"}
	for i, c := range number[1] { // no single letter can be changed
		if c != '-' {
			other := byte('Z')
			if c == 'Z' {
				other = 'Y'
			}
			wrong = append(wrong, number[1][:i]+string(other)+number[1][i+1:])
		}
	}
	for _, typed := range wrong {
		if p := verify(typed); p.status != 200 || !strings.Contains(p.body, `data-valid="false"`) ||
			strings.Contains(p.text(), "Mira") {
			t.Errorf("%s: %d %s", typed, p.status, p.text())
		}
	}
	key, err := s.db.CertificateKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.db.CertificateKey(t.Context()); err != nil || string(again) != string(key) {
		t.Errorf("the key changes: %v", err)
	}
	if p := verify(training.CertificateNumber(key, uuid.New())); !strings.Contains(p.body, `data-valid="deleted"`) {
		t.Error("a number with this lab's seal, of a lesson that is not there, is not told from one that was mistyped")
	}
	s.exec(`UPDATE training.completion SET passed = false`)
	if p := verify(number[1]); !strings.Contains(p.body, `data-valid="false"`) {
		t.Error("a certificate of a lesson that was not passed is valid")
	}
}

func TestACertificateCanBeVerifiedAfterItsRecordWasDeleted(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	path := b.start("secret-hygiene")
	b.attempt(path, "secret-hygiene", 1, 0)
	number := s.certificateOf(b, path)
	verify := func(number string) shown {
		t.Helper()
		return s.browser().get("/verify?" + url.Values{"number": {number}}.Encode())
	}
	valid := verify(number)
	date := regexp.MustCompile(`<time datetime="[^"]*">([^<]*)</time>`).FindStringSubmatch(valid.body)
	if !strings.Contains(valid.body, `data-valid="true"`) || date == nil {
		t.Fatalf("before: %s", valid.text())
	}
	if w := s.forgetRecords(); w.Code != 204 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	p := verify(number)
	if !strings.Contains(p.body, `data-valid="deleted"`) ||
		!strings.Contains(p.text(), "given out on "+date[1]+" ; its record was deleted") ||
		!strings.Contains(p.text(), number) {
		t.Errorf("afterwards, of %s: %s", date[1], p.text())
	}
	if text := p.text(); strings.Contains(text, "Mira") || strings.Contains(text, "mira.keller") ||
		strings.Contains(text, "No certificate was given out") {
		t.Errorf("afterwards: %s", text)
	}
	got := s.one(`SELECT string_agg(concat(d.lesson, ' ', d.given), ';') FROM training.deleted_certificate d`)
	if got != strings.TrimPrefix(path, "/training/")+" 2026-10-01" {
		t.Errorf("kept is %q", got)
	}
	last := "0"
	if strings.HasSuffix(number, last) {
		last = "1"
	}
	if p := verify(number[:len(number)-1] + last); !strings.Contains(p.body, `data-valid="false"`) {
		t.Errorf("a number that was never given out: %s", p.text())
	}
	if _, err := s.db.Pool.Exec(t.Context(), `DELETE FROM training.deleted_certificate`); err == nil {
		t.Error("the service may delete what is left of a certificate")
	}
	// A number with a valid MAC is recognised without a record, too.
	s.exec(
		`INSERT INTO training.lesson (id, person, module, state, request, asked) VALUES
			('00000000-0000-0000-0000-000000000001', 'mira.keller', 'policy', 'writing', '{}', now())`,
	)
	key, err := s.db.CertificateKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p = verify(training.CertificateNumber(key, [16]byte{9}))
	if !strings.Contains(p.text(), "was given out; its record was deleted") {
		t.Errorf("one of which nothing is left: %s", p.text())
	}
	if p := verify(training.CertificateNumber(key, [16]byte{15: 1})); !strings.Contains(p.body, `data-valid="false"`) {
		t.Errorf("a lesson that was not passed: %s", p.text())
	}
}

// A trigger keeps the certificate when a statement deletes its record.
func TestNoWayToDeleteARecordLosesItsCertificate(t *testing.T) {
	s := newFixture(t)
	b := s.as("mira.keller")
	b.attempt(b.start("secret-hygiene"), "secret-hygiene", 1, 0)
	lost := b.start("phishing")
	for n := range 3 {
		b.attempt(lost, "phishing", n+1, 4)
	}
	s.exec(`DELETE FROM training.lesson`)
	if n := s.rows(`SELECT count(*) FROM training.deleted_certificate WHERE given = '2026-10-01'`); n != 1 {
		t.Errorf("%d lines, want one: of what was passed", n)
	}
}
