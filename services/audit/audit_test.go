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
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"example.org/security-training/services/audit"
	"example.org/security-training/services/env/needtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const writer = "risk-scorer"

// chain writes n entries and returns the file's lines, each with its newline.
func chain(t testing.TB, n int) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit")
	l, err := audit.Open(path, writer)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		l.Write(audit.Entry{Kind: "decision", Peer: "spiffe://example.org/lms", Route: "POST /v1/events", Outcome: "Allowed",
			Event: fmt.Sprint("git:commit/x/", i), Detail: `<b>"ü"</b> & more`})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(b), "\n")
	return lines[:len(lines)-1]
}

func verify(lines []string, points []audit.Checkpoint, key ed25519.PublicKey) (int, error) {
	var pins *audit.Pins
	if key != nil {
		pins = audit.PinsOf(points, key)
		if faults := pins.Faults(); len(faults) > 0 {
			return 0, faults[0]
		}
	}
	return audit.Verify(strings.NewReader(strings.Join(lines, "")), writer, pins)
}

func TestWholeChainVerifies(t *testing.T) {
	for _, n := range []int{0, 1, 2, 300} {
		if got, err := verify(chain(t, n), nil, nil); err != nil || got != n {
			t.Errorf("%d entries: %d, %v", n, got, err)
		}
	}
}

// rehash corrects a line's own hash, as a careful attacker would.
func rehash(t testing.TB, line string, edit func(*audit.Entry)) string {
	t.Helper()
	var e audit.Entry
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	edit(&e)
	sum, err := e.Sum()
	if err != nil {
		t.Fatal(err)
	}
	e.Hash = sum
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func TestTamperingIsFoundAtItsLine(t *testing.T) {
	good := chain(t, 20)
	for _, c := range []struct {
		name   string
		tamper func([]string) []string
		line   int
		says   string
	}{
		{"an outcome is edited", func(l []string) []string {
			l[6] = strings.Replace(l[6], `"Allowed"`, `"Refused"`, 1)
			return l
		}, 7, "edited"},
		{"one letter of a detail is edited", func(l []string) []string {
			l[0] = strings.Replace(l[0], "more", "mare",
				1)
			return l
		}, 1, "edited"},
		{"an entry is edited and hashed again", func(l []string) []string {
			l[6] = rehash(t, l[6], func(e *audit.Entry) { e.Outcome = "Refused" })
			return l
		}, 8, "does not continue"},
		{"an entry is deleted", func(l []string) []string { return slices.Delete(l, 4, 5) }, 5, "removed"},
		{"the first entry is deleted", func(l []string) []string { return l[1:] }, 1, "removed"},
		{"an entry is deleted and the next renumbered", func(l []string) []string {
			l[5] = rehash(t, l[5], func(e *audit.Entry) { e.Seq = 5 })
			return slices.Delete(l, 4, 5)
		}, 5, "does not continue"},
		{"an entry is inserted", func(l []string) []string {
			return slices.Insert(l, 9, rehash(t, l[9], func(e *audit.Entry) { e.Event = "forged" }))
		}, 11, "put in"},
		{"an entry stands twice", func(l []string) []string { return slices.Insert(l, 10, l[9]) }, 11, "twice"},
		{"two entries change places", func(l []string) []string { l[2], l[3] = l[3], l[2]; return l }, 3, "moved"},
		{"an entry of another writer", func(l []string) []string {
			l[12] = rehash(t, l[12], func(e *audit.Entry) { e.Workload = "lms" })
			return l
		}, 13, "an entry of lms"},
		{"a field more", func(l []string) []string { l[3] = strings.Replace(l[3], "{", `{"note":"x",`, 1); return l }, 4,
			"not an entry"},
		{"no JSON", func(l []string) []string { l[3] = "garbage\n"; return l }, 4, "not an entry"},
		{"an empty line", func(l []string) []string { return slices.Insert(l, 3, "\n") }, 4, "not an entry"},
		{"half a line at the end", func(l []string) []string { l[19] = l[19][:40]; return l }, 20, "unfinished"},
		{"a key in another case", func(l []string) []string { l[3] = strings.Replace(l[3], `"kind"`, `"Kind"`, 1); return l },
			4, "otherwise"},
		{"a space more", func(l []string) []string { l[3] = strings.Replace(l[3], `,"kind"`, `, "kind"`, 1); return l }, 4,
			"otherwise"},
		{"a key that stands twice", func(l []string) []string {
			l[3] = strings.Replace(l[3], `,"kind"`, `,"outcome":"Refused","kind"`, 1)
			return l
		}, 4, "otherwise"},
		{"no hash", func(l []string) []string {
			i := strings.Index(l[3], `,"hash"`)
			l[3] = l[3][:i] + "}\n"
			return l
		}, 4, "edited"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := verify(c.tamper(slices.Clone(good)), nil, nil)
			var fault *audit.Fault
			if !errors.As(err, &fault) || fault.Line != c.line || !strings.Contains(fault.What, c.says) {
				t.Errorf("%v, want line %d and a word of %q", err, c.line, c.says)
			}
		})
	}
}

func TestStrangersBytesDoNotBreakTheChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	l, err := audit.Open(path, writer)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"ü"[:1], "\xff\xfe", "\x00\x1b[2J", "\n{\"seq\":1}\n", "\u2028<script>", strings.Repeat("é", 40000),
	} {
		l.Write(audit.Entry{Kind: "decision", Peer: s, Detail: s})
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := audit.Verify(bytes.NewReader(b), writer, nil); err != nil || n != 6 {
		t.Errorf("%d entries, %v", n, err)
	}
}

// TestNoChangeOfOneByteGoesUnnoticed tries any byte of any line.
func TestNoChangeOfOneByteGoesUnnoticed(t *testing.T) {
	good := strings.Join(chain(t, 8), "")
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.IntRange(0, len(good)-1).Draw(t, "at")
		to := rapid.Byte().Draw(t, "to")
		if good[at] == to {
			return
		}
		text := good[:at] + string([]byte{to}) + good[at+1:]
		_, err := audit.Verify(strings.NewReader(text), writer, nil)
		var fault *audit.Fault
		if !errors.As(err, &fault) {
			t.Fatalf("byte %d %q -> %q: %v", at, good[at], to, err)
		}
		if want := strings.Count(good[:at], "\n") + 1; fault.Line < want || fault.Line > want+1 {
			t.Fatalf("byte %d of line %d: found at line %d", at, want, fault.Line)
		}
	})
}

func checkpoint(t testing.TB, line string, key ed25519.PrivateKey) audit.Checkpoint {
	t.Helper()
	var e audit.Entry
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	c := audit.Checkpoint{Workload: writer, Seq: e.Seq, Hash: e.Hash, At: e.At}
	c.Sign(key)
	return c
}

func TestCheckpointsFindWhatNoLinkShows(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := chain(t, 20)
	points := []audit.Checkpoint{checkpoint(t, lines[4], private), checkpoint(t, lines[19], private)}
	if n, err := verify(lines, points, public); err != nil || n != 20 {
		t.Fatalf("the whole chain: %d, %v", n, err)
	}
	longer := append(slices.Clone(lines), rehash(t, lines[19], func(e *audit.Entry) { e.Prev, e.Seq = e.Hash, 21 }))
	if n, err := verify(longer, points, public); err != nil || n != 21 {
		t.Errorf("a chain that went on after its checkpoint: %d, %v", n, err)
	}

	rewritten := chain(t, 20) // a whole chain of its own, at another time
	forged := points[1]
	forged.Seq = 10
	posing := checkpoint(t, lines[9], stranger)
	unsigned := points[1]
	unsigned.Signature = nil
	other := points[1]
	other.Workload = "lms"
	other.Sign(private)
	for _, c := range []struct {
		name   string
		lines  []string
		points []audit.Checkpoint
		says   string
	}{
		{"the end is cut off", lines[:19], points, "cut off"},
		{"everything is cut off", nil, points, "cut off"},
		{"the chain is rewritten", rewritten, points, "rewritten"},
		{"a checkpoint is changed", lines[:10], []audit.Checkpoint{points[0], forged}, "signature"},
		{"a checkpoint is of a stranger's key", lines, []audit.Checkpoint{posing}, "signature"},
		{"a checkpoint has no signature", lines, []audit.Checkpoint{unsigned}, "signature"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := verify(c.lines, c.points, public)
			var fault *audit.Fault
			if !errors.As(err, &fault) || !strings.Contains(fault.What, c.says) {
				t.Errorf("%v, want a word of %q", err, c.says)
			}
		})
	}
	if _, err := verify(lines, []audit.Checkpoint{points[0], other}, public); err != nil {
		t.Errorf("another writer's checkpoint: %v, want that it says nothing here", err)
	}
}

func TestTornLineIsRemovedAndSaidSo(t *testing.T) {
	for _, torn := range []string{"{", `{"seq":4,"at":"2026-`, strings.Repeat("x", 5000), strings.Repeat("x", 300<<10)} {
		path := filepath.Join(t.TempDir(), "audit")
		whole := strings.Join(chain(t, 3), "")
		if err := os.WriteFile(path, []byte(whole+torn), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := audit.Open(path, writer)
		if err != nil {
			t.Fatal(err)
		}
		l.Write(audit.Entry{Kind: "start"})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := audit.Verify(bytes.NewReader(b), writer, nil); err != nil || n != 5 {
			t.Errorf("after %d torn bytes: %d entries, %v", len(torn), n, err)
		}
		entries, err := audit.Read(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if e := entries[3]; e.Reason != "torn_line" || !strings.Contains(e.Detail, fmt.Sprint(len(torn))) {
			t.Errorf("the removal is recorded as %+v", e)
		}
	}
}

// TestALastLineOfAnyLengthIsGoneOnFrom: what a writer may write, the next one opens.
func TestALastLineOfAnyLengthIsGoneOnFrom(t *testing.T) {
	for _, long := range []int{10, 64<<10 - 300, 64 << 10, 1 << 20} {
		for _, before := range []int{0, 3} {
			path := filepath.Join(t.TempDir(), "audit")
			l, err := audit.Open(path, writer)
			if err != nil {
				t.Fatal(err)
			}
			for range before {
				l.Write(audit.Entry{Kind: "start"})
			}
			l.Write(audit.Entry{Kind: "decision"})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			whole := lines(t, path)
			whole[before] = rehash(
				t,
				whole[before],
				func(e *audit.Entry) { e.Detail = strings.Repeat("é", long/2) },
			) // older versions clipped nothing
			put(t, path, whole)
			if tip, err := audit.Tip(path); err != nil || tip.Seq != uint64(before+1) {
				t.Errorf("after %d entries and one of %d bytes: tip %d, %v", before, long, tip.Seq, err)
			}
			if l, err = audit.Open(path, writer); err != nil {
				t.Errorf("after %d entries and one of %d bytes: %v", before, long, err)
				continue
			}
			l.Write(audit.Entry{Kind: "start"})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := audit.Verify(bytes.NewReader(b), writer, nil); err != nil || n != before+2 {
				t.Errorf("after %d entries and one of %d bytes: %d verify, %v", before, long, n, err)
			}
		}
	}
}

func TestFileOfNothingButATornLineBeginsAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	if err := os.WriteFile(path, []byte(`{"seq":1`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(path, writer)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if tip, err := audit.Tip(path); err != nil || tip.Seq != 1 || tip.Reason != "torn_line" {
		t.Errorf("%+v, %v", tip, err)
	}
}

func TestChainGoesOnAfterAnyNumberOfRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	for i := range 5 {
		l, err := audit.Open(path, writer)
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range 50 {
					l.Write(audit.Entry{Kind: "decision"})
				}
			})
		}
		group.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l.Write(audit.Entry{Kind: "late"}) // after Close: dropped, no panic
		if err := l.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := audit.Verify(f, writer, nil)
		f.Close()
		if err != nil || n != 200*(i+1) {
			t.Fatalf("after run %d: %d entries, %v", i+1, n, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestFileThatCannotBeOpenedOrIsNoChainIsAnError(t *testing.T) {
	if _, err := audit.Open(filepath.Join(t.TempDir(), "none", "audit"), writer); err == nil {
		t.Error("a folder that does not exist is opened")
	}
	path := filepath.Join(t.TempDir(), "audit")
	if err := os.WriteFile(path, []byte("not a chain\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Open(path, writer); err == nil {
		t.Error("a file that is no chain is continued")
	}
}

func TestWriterWhoseDiskFailsIsNotWell(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		needtest.Lacks(t, needtest.DevFull, "this system has no /dev/full to stand for a full disk")
	}
	full.Close()
	path := filepath.Join(t.TempDir(), "audit")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(path, writer)
	if err != nil {
		t.Fatal(err)
	}
	l.Write(audit.Entry{Kind: "decision"})
	if err := l.Close(); err == nil {
		t.Error("a line that was never written is not missed")
	}
	if l.Err() == nil {
		t.Error("Err is nil after a write that failed")
	}
}

func TestARowsSumIsTheOneThatIsWrittenDown(t *testing.T) {
	r := audit.Row{Chain: "lms", Seq: 7, At: time.UnixMicro(1790848800123456), Kind: "test", Person: "p1", Event: "e1",
		Detail: "grün\nund mehr", Prev: "abc"}
	// sha256sum of the fields, one a line and the last without its end.
	if got, want := r.Sum(), "fda9efb6569a144226f3d964e4c212e89575378cc21572263751f838e876df37"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRowsAreReadAsTheyWereWrittenAndWhatBreaksOffIsAnError(t *testing.T) {
	at := time.Date(2026, 10, 1, 12, 0, 0, 123456000, time.FixedZone("", 7200))
	rows := []audit.Row{{Chain: "lms", Seq: 1, At: at, Kind: "a", Detail: "<b> & c"}, {Chain: "lms", Seq: 2, At: at.UTC(),
		Kind: "b"}}
	var out strings.Builder
	if err := audit.WriteRows(&out, audit.Each(rows)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"at":"2026-10-01T10:00:00.123456Z"`) || !strings.Contains(out.String(),
		`"<b> & c"`) || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("written as %s", &out)
	}
	read, err := audit.ReadRows(strings.NewReader(out.String()))
	rows[0].At = at.UTC()
	if d := cmp.Diff(rows, read); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	out.Reset()
	broken := errors.New("the database went away")
	err = audit.WriteRows(&out, func(yield func(audit.Row, error) bool) {
		_ = yield(rows[0], nil) && yield(audit.Row{},
			broken)
	})
	if !errors.Is(err, broken) || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%v after %s", err, &out)
	}
}
