package source

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/env/needtest"
)

// spelling is a line of the corpus: a text, and what must be gone from it; nothing if the text must stay.
type spelling struct {
	text, scrubbed string
	secrets        []string
}

var marked = regexp.MustCompile(`«([^»]*)»`)

// spellings reads the corpus, which the gateway's tests read as well.
func spellings(t *testing.T) []spelling {
	t.Helper()
	f, err := os.Open("testdata/secrets.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []spelling
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "== ") {
			continue
		}
		line = strings.ReplaceAll(line, `\n`, "\n")
		s := spelling{
			text:     strings.NewReplacer("«", "", "»", "").Replace(line),
			scrubbed: marked.ReplaceAllString(line, Scrubbed),
		}
		for _, m := range marked.FindAllStringSubmatch(line, -1) {
			s.secrets = append(s.secrets, m[1])
		}
		all = append(all, s)
	}
	if len(all) < 80 {
		t.Fatalf("%d lines", len(all))
	}
	return all
}

func TestSecretsAreTakenOutInTheirUsualSpellingsAndNothingElseIs(t *testing.T) {
	for _, s := range spellings(t) {
		if got := ScrubText(s.text); got != s.scrubbed {
			t.Errorf("%q\n became %q\n    want %q", s.text, got, s.scrubbed)
		}
		if again := ScrubText(s.scrubbed); again != s.scrubbed {
			t.Errorf("%q, scrubbed again, became %q", s.scrubbed, again)
		}
		// In a body, as a vendor sends it, and in a body within a body.
		inner := encode(t, map[string]string{"a": "b", "message": s.text, "z": "end"})
		for depth, body := range [][]byte{inner, encode(t, map[string]string{"payload": string(inner), "z": "end"}),
			append(append([]byte{}, inner...), inner...)} {
			got := Scrub(body)
			if !isJSON(got) {
				t.Errorf("%q in JSON, depth %d: no JSON any more: %s", s.text, depth, got)
			}
			if !bytes.HasSuffix(got, body[len(body)-8:]) {
				t.Errorf("%q in JSON, depth %d: the rest was taken, too: %s", s.text, depth, got)
			}
			for _, x := range s.secrets {
				quoted := encode(t, x)
				if bytes.Contains(got, quoted[1:len(quoted)-1]) &&
					!strings.Contains(s.text, "<") { // in JSON, < is \u003c: that is for ScrubText
					t.Errorf("%q in JSON, depth %d, survived: %s", s.text, depth, got)
				}
			}
			if len(s.secrets) == 0 && !bytes.Equal(got, body) {
				t.Errorf("%q in JSON, depth %d, became %s", s.text, depth, got)
			}
		}
		var decoded map[string]string
		if err := json.Unmarshal(Scrub(inner), &decoded); err != nil {
			t.Fatal(err)
		}
		if got := ScrubText(decoded["message"]); len(s.secrets) > 0 && got != s.scrubbed {
			t.Errorf("%q, decoded, became %q", s.text, got)
		}
	}
}

// TestTheTimeToScrubGrowsWithTheBodyAlone: each of these made one of the patterns look at the same bytes again and
// again. What is quadratic takes minutes for two megabytes.
func TestTheTimeToScrubGrowsWithTheBodyAlone(t *testing.T) {
	needtest.Unhurried(t, "it measures time, which the race detector distorts")
	const size = 2 << 20
	for _, unit := range []string{
		"a@", "@", "://a:b@", "://", "a://b:c@d ", "=", "a=", ":", "password=", "password = ", `password="`, `"password":"`,
		`"password":`, "password='", "password: ", "--password ",
		"key=", "name: ", "name: password\n", "value: ", "<password>", "<password", ">", "-----BEGIN PRIVATE KEY-----x",
		`-----BEGIN PRIVATE KEY-----"`, "-----BEGIN ", "-----END ", "--", "-",
		"eyJaaaaaaaaaaaaaaaaaaaaa", "-eyJaaaaaaaaaaaa", "eyJaaaaaaaaaa.", "ghp_", "sk-", "sk-ant-", "bearer ",
		"bearer aaaaaaaaaaaaaaa", "Authorization: ", "SG.", `\`, `\"`, `"`, `'`, `\\\"`, " ", "plain text, ",
		"someone@example.org ", "token", "AKIA", "a b c ",
	} {
		for _, body := range []string{strings.Repeat(unit, size/len(unit)), `{"m":"` + strings.Repeat(unit, size/len(unit)) +
			`"}`} {
			began := time.Now()
			Scrub([]byte(body))
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("%q for 2 MB took %v", unit, took)
			}
		}
	}
}

func TestScrubbingEndsWithItsRequest(t *testing.T) {
	gone := errors.New("the caller has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	if out, err := ScrubWithin(ctx, []byte("password=hunter2")); !errors.Is(err, gone) || out != nil {
		t.Errorf("%q, %v", out, err)
	}
}
