package audited_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.org/security-training/services/postgres/audited"
	"example.org/security-training/services/postgres/pgtest"
	"example.org/security-training/services/topology"
)

var server pgtest.Server

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &server)) }

func TestAChangeAndItsRowsCommitTogetherOrNotAtAll(t *testing.T) {
	pool := server.Database(t, topology.KindDashboard)
	change := func(fail error) ([]audited.Row, error) {
		return audited.Write(t.Context(), pool, func(tx pgx.Tx) ([]audited.Row, error) {
			if _, err := tx.Exec(t.Context(), `INSERT INTO training.feed (line) VALUES ('{}')`); err != nil {
				return nil, err
			}
			return []audited.Row{audited.Note("told", "mira", "git:a", map[string]int{"lines": 1})}, fail
		})
	}
	count := func() (lines, rows int) {
		t.Helper()
		err := pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM training.feed), (SELECT count(*) FROM audit.own)`).
			Scan(&lines, &rows)
		if err != nil {
			t.Fatal(err)
		}
		return lines, rows
	}
	refused := errors.New("refused")
	if rows, err := change(refused); !errors.Is(err, refused) || rows != nil {
		t.Errorf("a change that fails: %v, %v", rows, err)
	}
	if lines, rows := count(); lines != 0 || rows != 0 {
		t.Errorf("after a change that failed: %d lines, %d rows", lines, rows)
	}
	if rows, err := change(nil); err != nil || len(rows) != 1 {
		t.Errorf("a change: %v, %v", rows, err)
	}
	if lines, rows := count(); lines != 1 || rows != 1 {
		t.Errorf("after a change: %d lines, %d rows", lines, rows)
	}
	// A row that the audit refuses takes the change with it.
	_, err := audited.Write(t.Context(), pool, func(tx pgx.Tx) ([]audited.Row, error) {
		if _, err := tx.Exec(t.Context(), `INSERT INTO training.feed (line) VALUES ('{}')`); err != nil {
			return nil, err
		}
		return []audited.Row{{Kind: "two\nlines"}}, nil
	})
	if lines, rows := count(); err == nil || lines != 1 || rows != 1 {
		t.Errorf("after a row that cannot be written: %d lines, %d rows, %v", lines, rows, err)
	}
}

func TestAStoryFindsAnEventByItsRowsAndByWhatNamesItInADetail(t *testing.T) {
	pool := server.Database(t, topology.KindDashboard)
	event := `git:push/a"b\c<&>ü`
	type detail struct {
		Events []string `json:"events"`
	}
	_, err := audited.Write(t.Context(), pool, func(pgx.Tx) ([]audited.Row, error) {
		return []audited.Row{
			audited.Note("own", "", event, detail{}),
			audited.Note("names it", "mira", "git:first", detail{[]string{"git:first", event}}),
			audited.Note("names a longer one", "mira", "git:other", detail{[]string{event + "/more"}}),
			audited.Note("of another person", "tom", "git:third", detail{[]string{event}}),
			{Kind: "names it in words", Person: "mira", Detail: "scored; events git:first " + event},
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	kinds := func(s audited.Subject, most int64) string {
		t.Helper()
		rows, err := audited.Collect(audited.Story(t.Context(), pool, s, most))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, r := range rows {
			if r.Hash != r.Sum() {
				t.Errorf("%q does not bear its own hash", r.Kind)
			}
			all = append(all, r.Kind)
		}
		return strings.Join(all, ", ")
	}
	for _, c := range []struct {
		what string
		of   audited.Subject
		most int64
		want string
	}{
		{"an event", audited.Subject{Event: event}, 10, "own"},
		{"an event and its person", audited.Subject{Event: event, Person: "mira"}, 10, "own, names it, names it in words"},
		{"two rows of it", audited.Subject{Event: event, Person: "mira"}, 2, "own, names it"},
		{"a person", audited.Subject{Person: "tom"}, 10, "of another person"},
		{"a person, until yesterday", audited.Subject{Person: "tom", Until: time.Now().Add(-24 * time.Hour)}, 10, ""},
		{"a person, from tomorrow", audited.Subject{Person: "tom", Since: time.Now().Add(24 * time.Hour)}, 10, ""},
		{"no one and nothing", audited.Subject{}, 10, ""},
	} {
		if got := kinds(c.of, c.most); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestAnExportGoesOnWhereItEnded(t *testing.T) {
	pool := server.Database(t, topology.KindDashboard)
	for _, kind := range []string{"a", "b", "c"} {
		if _, err := audited.Write(t.Context(), pool, func(pgx.Tx) ([]audited.Row, error) {
			return []audited.Row{{Kind: kind}}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	page := func(after, limit int64) string {
		t.Helper()
		kinds := ""
		for row, err := range audited.Export(t.Context(), pool, after, limit) {
			if err != nil {
				t.Fatal(err)
			}
			kinds += row.Kind
		}
		return kinds
	}
	if got := page(0, 0) + " " + page(0, 2) + " " + page(2, 2); got != "abc ab c" {
		t.Errorf("pages: %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := audited.Collect(audited.Export(ctx, pool, 0, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("an export that is given up: %v", err)
	}
}

func TestADetailIsTheJSONOfItsType(t *testing.T) {
	row := audited.Note("view", "mira", "", struct {
		By string `json:"by"`
	}{`<admin> & "co"`})
	if row.Detail != `{"by":"<admin> & \"co\""}` {
		t.Errorf("%s", row.Detail)
	}
	var back audited.Row
	if text, err := json.Marshal(row); err != nil || json.Unmarshal(text, &back) != nil || back != row {
		t.Errorf("%+v, %v", back, err)
	}
}
