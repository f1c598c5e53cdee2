package auditor

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"example.org/security-training/services/audit"
)

// If the last rows are removed, the rows that the database still returns are a valid chain. Only the ends that the
// writer recorded in its signed chain of decisions show that rows are missing.
func TestTheLastRowsOfAWriterAreMissedWhenTheDatabaseHasThemNoMore(t *testing.T) {
	l, o, _ := filed(t)
	writers := o.Node.Topology().Serving(audit.RouteRows)
	for _, w := range writers {
		log, err := audit.Open(filepath.Join(l.dir, w.Name), w.Name)
		if err != nil {
			t.Fatal(err)
		}
		log.Write(audit.Entry{Kind: audit.KindTip, Detail: "3 " + strings.Repeat("ab", 32)})
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	chains, err := Verify(t.Context(), l, o)
	var fault *audit.Fault
	if !errors.As(err, &fault) {
		t.Fatalf("a third row was reported and two are there: %v", err)
	}
	cut := map[string]audit.Kind{}
	for _, c := range chains {
		for _, f := range c.Faults {
			cut[c.Name] = f.Kind
		}
	}
	for _, w := range writers {
		if kind := cut[audit.RowsOf(w.Name)]; kind != audit.Cut {
			t.Errorf("%s: %q, want %q", audit.RowsOf(w.Name), kind, audit.Cut)
		}
	}
	if len(writers) < 2 || len(cut) != len(writers) {
		t.Errorf("faults %v, of %d writers", cut, len(writers))
	}
}
