// Package audit keeps an append-only, hash-chained record of what a process decided.
//
// A chain is a file of JSON lines. Each line's hash is SHA-256 over the line without its hash, which contains the hash
// of the line before: an edit, a deletion, an insertion or a reordering breaks the chain at that line. A cut-off end
// breaks no link, and neither does a chain that was written again as a whole, which is why a Notary pins the chain from
// outside by Checkpoints: signed with a key that the process does not have, and never two that contradict each other.
package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Entry is one line. Seq, At, Workload, Prev and Hash are filled in by Write.
type Entry struct {
	Seq      uint64    `json:"seq"`
	At       time.Time `json:"at"` // wall clock, UTC
	Workload string    `json:"workload"`
	Kind     string    `json:"kind"`               // decision, start, reload, lesson, sign_in …
	Peer     string    `json:"peer,omitempty"`     // the other side's SPIFFE ID, if it has one
	Serial   string    `json:"serial,omitempty"`   // its SVID's serial number, hex
	Route    string    `json:"route,omitempty"`    // "POST /v1/events"
	Outcome  string    `json:"outcome,omitempty"`  // Allowed, Forbidden, Refused
	Reason   string    `json:"reason,omitempty"`   // a stable code
	Event    string    `json:"event,omitempty"`    // the activity event that caused it
	Person   string    `json:"person,omitempty"`   // employee id
	Detail   string    `json:"detail,omitempty"`   // one line for people; never a secret
	Identity *Identity `json:"identity,omitempty"` // with start and identity: what the workload holds from now on
	Count    uint64    `json:"count,omitempty"`    // how many such decisions it stands for; 0: for one
	Prev     string    `json:"prev"`
	Hash     string    `json:"hash,omitempty"`
}

// Identity is what a workload holds.
type Identity struct {
	Until  time.Time `json:"until"`  // when its SVID ends
	Trusts string    `json:"trusts"` // the authorities that it is held with, as mesh.TrustDigest tells them apart
}

// Line is what the entry says for people beyond its other fields: its detail, or what is held.
func (e Entry) Line() string {
	if e.Detail == "" && e.Identity != nil {
		return "until " + e.Identity.Until.UTC().Format(time.RFC3339) + ", trusts " + e.Identity.Trusts
	}
	return e.Detail
}

// KindTip is the kind of an entry in which a writer reports how far its rows in the database have come: Detail is the
// sequence number and the hash of the last one, with a space between. It ties those rows to the signed checkpoints.
const KindTip = "tip"

// Sum is the hash of e: SHA-256, in hex, over its JSON without the field hash.
func (e Entry) Sum() (string, error) {
	sum, _, err := e.sum()
	return sum, err
}

// sum is Sum, and the text that it is of.
func (e Entry) sum() (sum string, text []byte, err error) {
	e.Hash = ""
	text, err = json.Marshal(e)
	if err != nil {
		return "", nil, err
	}
	h := sha256.Sum256(text)
	return hex.EncodeToString(h[:]), text, nil
}

// Log appends to one chain. Its methods are safe for concurrent use.
//
// Write never waits for the disk: lines are handed to the file in groups, within milliseconds. While the file takes none, they
// wait, up to a bound; those that find no room are counted, and the count is the chain's next entry once there is room again.
type Log struct {
	workload string
	file     io.WriteCloser
	now      func() time.Time

	mu      sync.Mutex
	seq     uint64
	prev    string
	pending bytes.Buffer
	lost    uint64    // entries that found no room
	since   time.Time // when the first of them was
	closed  bool

	err  atomic.Pointer[error] // why lines do not reach the file; nil while they do
	wake chan struct{}
	done chan struct{}
}

// mostPending is how many bytes of lines may wait while as many again are being written.
const mostPending = 8 << 20

// errNoRoom says that the file is slower than the decisions are, or takes none.
var errNoRoom = errors.New("too many entries wait to be written")

// New begins a chain on w.
func New(w io.WriteCloser, workload string) *Log { return begin(w, workload, Entry{}) }

// begin goes on after last.
func begin(w io.WriteCloser, workload string, last Entry) *Log {
	l := &Log{workload: workload, file: w, now: time.Now, seq: last.Seq, prev: last.Hash, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.flush()
	return l
}

// Open continues the chain in the file at path, or begins it. A last line that was cut off by a crash is removed, and the
// removal is the next entry.
func Open(path, workload string) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open audit: %w", err)
	}
	last, end, torn, err := tail(f)
	if err == nil && torn > 0 {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open audit %s: %w", path, err)
	}
	l := begin(f, workload, last)
	if torn > 0 {
		l.Write(Entry{Kind: "recovered", Reason: "torn_line", Detail: fmt.Sprintf("removed %d bytes of an unfinished line", torn)})
	}
	return l, nil
}

// tail finds the last whole entry, the offset behind it, and how many bytes of an unfinished line follow.
func tail(f *os.File) (last Entry, end, torn int64, err error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return Entry{}, 0, 0, err
	}
	// A line may be of any length, and what follows it unfinished, too: look further back until the line's beginning is there.
	for most := int64(64 << 10); ; most *= 4 {
		from := max(0, size-most)
		b := make([]byte, size-from)
		if _, err := f.ReadAt(b, from); err != nil {
			return Entry{}, 0, 0, err
		}
		whole := bytes.LastIndexByte(b, '\n') + 1
		begin := 0
		if whole > 0 {
			begin = bytes.LastIndexByte(b[:whole-1], '\n') + 1
		}
		if begin == 0 && from > 0 {
			continue
		}
		end, torn = from+int64(whole), int64(len(b)-whole)
		if whole == 0 {
			return Entry{}, 0, torn, nil
		}
		if err := json.Unmarshal(b[begin:whole-1], &last); err != nil {
			return Entry{}, 0, 0, fmt.Errorf("last entry: %w", err)
		}
		return last, end, torn, nil
	}
}

// Write appends e to the chain. Whoever must not decide what cannot be recorded asks Err before.
func (l *Log) Write(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.lost > 0 || l.pending.Len() >= mostPending {
		if l.lost++; l.lost == 1 {
			l.since = l.now().UTC()
		}
		l.fail(errNoRoom)
		return
	}
	l.append(e)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// append makes e the chain's next entry, and has it wait for the file.
func (l *Log) append(e Entry) {
	// What a stranger sent may be long, or no UTF-8, which JSON would write in one way and, read again, in another: the
	// hash would not fit.
	e = e.clipped()
	e.Seq, e.At, e.Workload, e.Prev = l.seq+1, l.now().UTC(), l.workload, l.prev
	sum, err := e.Sum()
	if err != nil {
		l.fail(err)
		return
	}
	e.Hash = sum
	b, err := json.Marshal(e)
	if err != nil {
		l.fail(err)
		return
	}
	l.seq, l.prev = e.Seq, e.Hash
	l.pending.Write(b)
	l.pending.WriteByte('\n')
}

func (l *Log) fail(err error) { l.err.Store(&err) }

// Err is what went wrong with the file, nil while all is well. A process whose decisions cannot be recorded is not ready. It
// takes no lock: it is asked before every decision.
func (l *Log) Err() error {
	if err := l.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Close writes what is pending and closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	close(l.wake)
	l.mu.Unlock()
	<-l.done
	return errors.Join(l.Err(), l.file.Close())
}

func (l *Log) flush() {
	defer close(l.done)
	var spare bytes.Buffer
	for open := true; open; {
		_, open = <-l.wake
		for l.take(&spare) {
			if !l.write(&spare) {
				return
			}
		}
	}
}

// take swaps what is pending into spare, which is empty, and says whether it is anything. Now that there is room, what found none is
// owned up to.
func (l *Log) take(spare *bytes.Buffer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	spare.Reset()
	l.pending, *spare = *spare, l.pending
	if l.lost > 0 {
		l.append(Entry{Kind: "recovered", Reason: "no_room", Detail: fmt.Sprintf("%d entries since %s could not be written and are lost", l.lost, l.since.Format(time.RFC3339))})
		l.lost = 0
	}
	return spare.Len() > 0
}

// write writes lines to the file, and says whether it could before the chain was closed. A disk that was full and has room again
// must not leave half a line behind: on failure the rest is tried again.
func (l *Log) write(lines *bytes.Buffer) bool {
	for lines.Len() > 0 {
		_, err := lines.WriteTo(l.file)
		if err == nil {
			break
		}
		l.fail(err)
		l.mu.Lock()
		closed := l.closed
		l.mu.Unlock()
		if closed {
			return false
		}
		<-time.After(retryAfter)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == 0 {
		l.err.Store(nil)
	}
	return true
}

// retryAfter is the pause between two tries to write to a file that takes nothing.
const retryAfter = 100 * time.Millisecond

// Tip is the last whole entry of the chain in the file at path; a zero Entry if there is none.
func Tip(path string) (Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return Entry{}, err
	}
	defer f.Close()
	last, _, _, err := tail(f)
	return last, err
}

// Read returns the whole entries of a chain that may still be written to, without verifying it.
func Read(r io.Reader) ([]Entry, error) {
	var out []Entry
	scan := bufio.NewReader(r)
	for {
		line, err := scan.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, fmt.Errorf("read audit: %w", err)
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return out, fmt.Errorf("read audit: line %d: %w", len(out)+1, err)
		}
		out = append(out, e)
	}
}
