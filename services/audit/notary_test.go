package audit_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/security-training/services/audit"
)

// notarised is a folder with chains, and a notary that signs them.
type notarised struct {
	dir     string
	public  ed25519.PublicKey
	private ed25519.PrivateKey
	notary  *audit.Notary
}

func notarise(t testing.TB) *notarised {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	n := &notarised{dir: t.TempDir(), public: public, private: private}
	n.restart(t)
	return n
}

func (n *notarised) points() string           { return filepath.Join(n.dir, "checkpoints.jsonl") }
func (n *notarised) chain(name string) string { return filepath.Join(n.dir, name) }

// restart is a new notary, which knows what stands in the folder alone.
func (n *notarised) restart(t testing.TB) {
	t.Helper()
	var err error
	if n.notary, err = audit.OpenNotary(n.points(), n.private); err != nil {
		t.Fatal(err)
	}
}

// grow writes more entries to a chain and has them signed; it says what the notary would not sign.
func (n *notarised) grow(t testing.TB, name string, more int) []audit.Unfit {
	t.Helper()
	l, err := audit.Open(n.chain(name), name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range more {
		l.Write(audit.Entry{Kind: "decision", Outcome: "Refused", Route: "POST /v1/events", Event: fmt.Sprint(i)})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return n.sign(t, name)
}

func (n *notarised) sign(t testing.TB, names ...string) []audit.Unfit {
	t.Helper()
	chains := map[string]audit.Chain{}
	for _, name := range names {
		chains[name] = func() (*os.File, error) { return os.Open(n.chain(name)) }
	}
	unsigned, err := n.notary.Sign(time.Now(), chains)
	if err != nil {
		t.Fatal(err)
	}
	return unsigned
}

func lines(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l := strings.SplitAfter(string(b), "\n")
	return l[:len(l)-1]
}

func put(t testing.TB, path string, l []string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(l, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reseal hashes a chain again from entry seq on, changed by edit: what a writer can do to its own.
func reseal(t testing.TB, l []string, seq int, edit func(*audit.Entry)) []string {
	t.Helper()
	l = slices.Clone(l)
	prev := ""
	for i := range l {
		l[i] = rehash(t, l[i], func(e *audit.Entry) {
			if i+1 == seq {
				edit(e)
			}
			e.Prev = prev
		})
		var e audit.Entry
		if err := json.Unmarshal([]byte(l[i]), &e); err != nil {
			t.Fatal(err)
		}
		prev = e.Hash
	}
	return l
}

func (n *notarised) pins(t testing.TB) *audit.Pins {
	t.Helper()
	p, err := audit.ReadPins(strings.NewReader(strings.Join(lines(t, n.points()), "")), n.public)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// verify gives every fault of the checkpoints and of chains.
func (n *notarised) verify(t testing.TB, names ...string) []*audit.Fault {
	t.Helper()
	p := n.pins(t)
	faults := slices.Clone(p.Faults())
	for _, name := range names {
		text, err := os.ReadFile(n.chain(name))
		if err != nil {
			faults = append(faults, &audit.Fault{Kind: audit.MissingChain, Workload: name, What: err.Error()})
			continue
		}
		_, err = audit.Verify(bytes.NewReader(text), name, p)
		var f *audit.Fault
		if errors.As(err, &f) {
			faults = append(faults, f)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return faults
}

// resign edits the checkpoints, and signs them again if the lab's own key is to have done it.
func (n *notarised) resign(t testing.TB, edit func([]audit.Checkpoint) []audit.Checkpoint) {
	t.Helper()
	var points []audit.Checkpoint
	for _, line := range lines(t, n.points()) {
		var c audit.Checkpoint
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		points = append(points, c)
	}
	var out []string
	for _, c := range edit(points) {
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b)+"\n")
	}
	put(t, n.points(), out)
}

// TestEveryKindOfFaultIsNamedByItsOwnWordsAndTheOtherChainIsVerified does each of the twelve to one of two chains.
func TestEveryKindOfFaultIsNamedByItsOwnWordsAndTheOtherChainIsVerified(t *testing.T) {
	onChain := func(tamper func(testing.TB, []string) []string) func(testing.TB, *notarised) {
		return func(t testing.TB, n *notarised) { put(t, n.chain(writer), tamper(t, lines(t, n.chain(writer)))) }
	}
	hide := func(e *audit.Entry) { e.Outcome = "Allowed" }
	for _, c := range []struct {
		kind   audit.Kind
		chain  string
		seq    uint64
		tamper func(testing.TB, *notarised)
	}{
		{audit.Edited, writer, 7, onChain(func(_ testing.TB, l []string) []string {
			l[6] = strings.Replace(l[6], `"Refused"`, `"Allowed"`, 1)
			return l
		})},
		{audit.Deleted, writer, 8, onChain(func(_ testing.TB, l []string) []string { return slices.Delete(l, 6, 7) })},
		{audit.Inserted, writer, 7, onChain(func(t testing.TB, l []string) []string {
			return slices.Insert(l, 6,
				rehash(t, l[6], hide))
		})},
		{audit.Inserted, writer, 900, onChain(func(t testing.TB, l []string) []string {
			return slices.Insert(l, 6, rehash(t, l[6], func(e *audit.Entry) { e.Seq, e.Prev = 900, "" }))
		})},
		{audit.Inserted, writer, 7, onChain(func(t testing.TB, l []string) []string {
			return slices.Insert(l, 6, rehash(t, l[6], func(e *audit.Entry) { e.Workload = "lms" }))
		})},
		{audit.Reordered, writer, 8, onChain(func(_ testing.TB, l []string) []string { l[6], l[7] = l[7], l[6]; return l })},
		{audit.Reordered, writer, 20, onChain(func(_ testing.TB, l []string) []string {
			l[18], l[19] = l[19],
				l[18]
			return l
		})},
		{audit.Reordered, writer, 5, onChain(func(_ testing.TB, l []string) []string {
			moved := l[3]
			return slices.Insert(slices.Delete(l, 3, 4), 12, moved)
		})},
		{audit.Cut, writer, 19, onChain(func(_ testing.TB, l []string) []string { return l[:19] })},
		{audit.Cut, writer, 0, onChain(func(testing.TB, []string) []string { return nil })},
		{audit.Resealed, writer, 12, onChain(func(t testing.TB, l []string) []string { return reseal(t, l, 7, hide) })},
		{audit.Resealed, writer, 8, onChain(func(t testing.TB, l []string) []string {
			l[6] = rehash(t, l[6],
				hide)
			return l
		})},
		{audit.Doubled, writer, 7, onChain(func(_ testing.TB, l []string) []string { return slices.Insert(l, 7, l[6]) })},
		{audit.Doubled, writer, 4, onChain(func(_ testing.TB, l []string) []string { return slices.Insert(l, 7, l[3]) })},
		{audit.Doubled, writer, 20, onChain(func(t testing.TB, l []string) []string {
			return append(l,
				rehash(t, l[19], hide))
		})},
		{audit.TwoCheckpoints, writer, 12, func(t testing.TB, n *notarised) {
			n.resign(t, func(p []audit.Checkpoint) []audit.Checkpoint {
				last := p[len(p)-1]
				c := audit.Checkpoint{Number: last.Number + 1, Workload: writer, Seq: 12, Hash: strings.Repeat("0", 64),
					Prev: last.Head(last.Prev)}
				c.Sign(n.private)
				return append(p, c)
			})
		}},
		{audit.Missing, audit.OfCheckpoints, 0, func(t testing.TB, n *notarised) {
			n.resign(t, func(p []audit.Checkpoint) []audit.Checkpoint { return slices.Delete(p, 2, 3) })
		}},
		{audit.Missing, audit.OfCheckpoints, 0, func(t testing.TB, n *notarised) { // renumbered, by one who has the key
			n.resign(t, func(p []audit.Checkpoint) []audit.Checkpoint {
				p = slices.Delete(p, 2, 3)
				p[2].Number = 3
				p[2].Sign(n.private)
				return p[:3]
			})
		}},
		{audit.BadSignature, writer, 12, func(t testing.TB, n *notarised) {
			n.resign(t, func(p []audit.Checkpoint) []audit.Checkpoint {
				i := slices.IndexFunc(p, func(c audit.Checkpoint) bool { return c.Workload == writer && c.Seq == 12 })
				p[i].Signature[3] ^= 1
				return p
			})
		}},
		{audit.NoCheckpoints, writer, 20, func(t testing.TB, n *notarised) {
			n.resign(t, func(p []audit.Checkpoint) []audit.Checkpoint {
				return slices.DeleteFunc(p, func(c audit.Checkpoint) bool { return c.Workload == writer })
			})
		}},
		{audit.MissingChain, writer, 0, func(t testing.TB, n *notarised) {
			if err := os.Remove(n.chain(writer)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			n := notarise(t)
			for _, more := range []int{5, 7, 8} {
				n.grow(t, writer, more)
				n.grow(t, "lms", more)
			}
			if faults := n.verify(t, writer, "lms"); len(faults) > 0 {
				t.Fatalf("before: %v", faults)
			}
			c.tamper(t, n)
			faults := n.verify(t, writer, "lms")
			if !slices.ContainsFunc(faults, func(f *audit.Fault) bool {
				return f.Kind == c.kind && f.Workload == c.chain && f.Seq == c.seq &&
					strings.Contains(f.Error(), ": "+string(c.kind)+": ")
			}) {
				t.Errorf("%v, want %q of %s at %d", faults, c.kind, c.chain, c.seq)
			}
			if slices.ContainsFunc(faults, func(f *audit.Fault) bool { return f.Workload == "lms" }) {
				t.Errorf("the other chain has a fault, too: %v", faults)
			}
		})
	}
}

// TestTheNotarySignsNothingThatContradictsWhatItHasSigned plays the attack: a writer makes its whole chain again, with
// one entry changed, and puts each length of it in place, so that each tip is offered for signing.
func TestTheNotarySignsNothingThatContradictsWhatItHasSigned(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		n := notarise(t)
		n.grow(t, writer, 5)
		n.grow(t, writer, 7)
		forged := reseal(
			t,
			lines(t, n.chain(writer)),
			5,
			func(e *audit.Entry) { e.Outcome, e.Detail = "Allowed", "nothing happened here" },
		)
		before := lines(t, n.points())
		var unsigned []audit.Unfit
		for upTo := 4; upTo <= len(forged); upTo++ {
			if restarts {
				n.restart(t)
			}
			put(t, n.chain(writer), forged[:upTo])
			unsigned = append(unsigned, n.sign(t, writer)...)
		}
		if restarts {
			n.restart(t)
		}
		unsigned = append(unsigned, n.grow(t, writer, 3)...) // it goes on, from its own truth
		if after := lines(t, n.points()); len(after) != len(before) {
			t.Errorf("with restarts %v: %d checkpoints more, want none", restarts, len(after)-len(before))
		}
		if !slices.ContainsFunc(unsigned, func(u audit.Unfit) bool {
			return u.Workload == writer &&
				u.Kind == audit.Resealed
		}) {
			t.Errorf("with restarts %v: the notary says %v, want that the chain was resealed", restarts, unsigned)
		}
		faults := n.verify(t, writer)
		if len(faults) != 1 || faults[0].Kind != audit.Resealed || faults[0].Seq != 5 {
			t.Errorf("with restarts %v: %v, want that entry 5 was resealed", restarts, faults)
		}
		// The truth is back: it is signed on.
		put(t, n.chain(writer), reseal(t, forged, 5, func(e *audit.Entry) { e.Outcome, e.Detail = "Refused", "" }))
		if unsigned := n.grow(t, writer, 1); len(unsigned) > 0 || n.pins(t).Last(writer) != 13 ||
			len(n.verify(t, writer)) > 0 {
			t.Errorf(
				"with restarts %v, after the truth is back: %v, signed up to %d, %v",
				restarts,
				unsigned,
				n.pins(t).Last(writer),
				n.verify(t, writer),
			)
		}
	}
}

func TestWhatIsNotAChainIsNotSignedAndHoldsUpNoOther(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"gone":            os.Remove,
		"a folder":        func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"garbage":         func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("x\n", 4000)), 0o600) },
		"a sparse file":   func(path string) error { return os.Truncate(path, 1<<40) },
		"a line too long": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 3<<20), 0o600) },
		"empty":           func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			n := notarise(t)
			n.grow(t, writer, 5)
			n.grow(t, "lms", 5)
			if err := spoil(n.chain(writer)); err != nil {
				t.Fatal(err)
			}
			l, err := audit.Open(n.chain("lms"), "lms")
			if err != nil {
				t.Fatal(err)
			}
			l.Write(audit.Entry{Kind: "decision"})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			unsigned := n.sign(t, writer, "lms")
			if len(unsigned) != 1 || unsigned[0].Workload != writer || unsigned[0].Seq != 5 {
				t.Errorf("%v, want that %s is signed up to 5", unsigned, writer)
			}
			if again := n.sign(t, writer, "lms"); len(again) > 0 {
				t.Errorf("said again: %v", again)
			}
			if p := n.pins(t); p.Last("lms") != 6 || p.Last(writer) != 5 {
				t.Errorf("signed up to %d and %d, want 6 and 5", p.Last("lms"), p.Last(writer))
			}
		})
	}
}

// TestCheckpointsOfAnOlderVersionAreGoneOnFrom: those have no number, and may pin one end twice.
func TestCheckpointsOfAnOlderVersionAreGoneOnFrom(t *testing.T) {
	n := notarise(t)
	l := chain(t, 8)
	put(t, n.chain(writer), l)
	var old []string
	for _, i := range []int{2, 7, 7} {
		b, err := json.Marshal(checkpoint(t, l[i], n.private))
		if err != nil {
			t.Fatal(err)
		}
		old = append(old, string(b)+"\n")
	}
	put(t, n.points(), append(slices.Clone(old), `{"workload":"risk-scorer","seq":`)) // and a crash
	n.restart(t)
	n.grow(t, writer, 2)
	if faults := n.verify(t, writer); len(faults) > 0 || n.pins(t).Last(writer) != 10 {
		t.Errorf("signed up to %d, %v", n.pins(t).Last(writer), faults)
	}
	put(t, n.points(), slices.Delete(lines(t, n.points()), 0, 1))
	if faults := n.verify(t, writer); len(faults) != 1 || faults[0].Kind != audit.Missing {
		t.Errorf("one of the old ones is gone: %v", faults)
	}
}

func TestRowsAreHeldAgainstWhatTheirWriterReportedByTheSameRules(t *testing.T) {
	rows := make([]audit.Row, 10)
	prev := ""
	for i := range rows {
		rows[i] = audit.Row{Chain: writer, Seq: int64(i + 1), Kind: "assessment", At: time.UnixMicro(1), Prev: prev}
		rows[i].Hash = rows[i].Sum()
		prev = rows[i].Hash
	}
	tip := func(i int) audit.Entry {
		return audit.Entry{Kind: audit.KindTip, Detail: fmt.Sprint(rows[i-1].Seq, " ", rows[i-1].Hash)}
	}
	tips := []audit.Entry{tip(4), tip(4), tip(10)}
	resealed := slices.Clone(rows)
	prev = ""
	for i := range resealed {
		if resealed[i].Prev = prev; i == 5 {
			resealed[i].Detail = "nothing"
		}
		resealed[i].Hash = resealed[i].Sum()
		prev = resealed[i].Hash
	}
	edited := slices.Clone(rows)
	edited[2].Person = "p2"
	moved := slices.Clone(rows)
	moved[2], moved[3] = moved[3], moved[2]
	for _, c := range []struct {
		kind audit.Kind
		rows []audit.Row
		tips []audit.Entry
	}{
		{"", rows, tips},
		{"", nil, nil},
		{audit.Edited, edited, tips},
		{audit.Deleted, slices.Delete(slices.Clone(rows), 3, 4), tips},
		{audit.Inserted, slices.Insert(slices.Clone(rows), 3, audit.Row{Chain: "lms", Seq: 4}), tips},
		{audit.Reordered, moved, tips},
		{audit.Doubled, slices.Insert(slices.Clone(rows), 3, rows[2]), tips},
		{audit.Cut, rows[:9], tips},
		{audit.Resealed, resealed, tips},
		{audit.NoCheckpoints, rows, nil},
		{audit.TwoCheckpoints, rows, append(slices.Clone(tips), audit.Entry{Kind: audit.KindTip, Detail: "4 abc"})},
		{audit.BadSignature, rows, append(slices.Clone(tips), audit.Entry{Kind: audit.KindTip, Detail: "none"})},
	} {
		p := audit.TipPins(writer, c.tips)
		faults := p.Faults()
		n, err := audit.VerifyRows(c.rows, writer, p)
		var f *audit.Fault
		if errors.As(err, &f) {
			faults = append(faults, f)
		}
		switch {
		case c.kind == "" && (len(faults) > 0 || n != len(c.rows)):
			t.Errorf("%d of %d rows, %v", n, len(c.rows), faults)
		case c.kind != "" && (len(faults) != 1 || faults[0].Kind != c.kind || faults[0].Workload != audit.RowsOf(writer)):
			t.Errorf("%s: %v", c.kind, faults)
		}
	}
}
