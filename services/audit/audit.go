// Package audit keeps an append-only, hash-chained record of a process's decisions.
//
// A chain is a file of JSON lines. Each line's hash is SHA-256 over the line without its hash, and the line contains
// the hash of the previous line: an edit, a deletion, an insertion or a reordering breaks the chain at that line. A
// truncated chain, or one that was rewritten as a whole, has no broken link. Therefore a Notary records the ends of
// chains in Checkpoints, signed with a key that the process does not have, and never signs two that contradict each
// other.
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

// Entry is one line of a chain. Write sets Seq, At, Workload, Prev and Hash.
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
	Identity *Identity `json:"identity,omitempty"` // of kinds start and identity: the new identity
	Count    uint64    `json:"count,omitempty"`    // the number of decisions it stands for; 0 means 1
	Prev     string    `json:"prev"`
	Hash     string    `json:"hash,omitempty"`
}

// Identity is the validity and the authorities of a workload's identity.
type Identity struct {
	Until  time.Time `json:"until"`  // when its SVID expires
	Trusts string    `json:"trusts"` // mesh.TrustDigest of its authorities
}

// Line is the entry's text for people in addition to its other fields: the detail, or the identity.
func (e Entry) Line() string {
	if e.Detail == "" && e.Identity != nil {
		return "until " + e.Identity.Until.UTC().Format(time.RFC3339) + ", trusts " + e.Identity.Trusts
	}
	return e.Detail
}

// KindTip is the kind of an entry that reports a writer's last row in the database: Detail is its sequence number and
// its hash, separated by a space. It ties the rows to the signed checkpoints.
const KindTip = "tip"

// Sum is the hash of e: SHA-256, in hex, over its JSON without the field hash.
func (e Entry) Sum() (string, error) {
	sum, _, err := e.sum()
	return sum, err
}

// sum is Sum, and the text that is hashed.
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
// Write does not wait for the disk: lines are written to the file in groups, within milliseconds. While the file cannot
// be written, lines are buffered up to a limit. Entries beyond it are counted, and the count is the next entry once
// there is room again.
type Log struct {
	workload string
	file     io.WriteCloser
	now      func() time.Time

	mu      sync.Mutex
	seq     uint64
	prev    string
	pending bytes.Buffer
	lost    uint64    // entries beyond the limit
	since   time.Time // the time of the first of them
	closed  bool

	err  atomic.Pointer[error] // why lines do not reach the file; nil while they do
	wake chan struct{}
	done chan struct{}
}

// maxPendingBytes limits the buffered lines; as many again may be in writing.
const maxPendingBytes = 8 << 20

// errNoRoom means that the file cannot be written, or not fast enough.
var errNoRoom = errors.New("too many entries wait to be written")

// New begins a chain on w.
func New(w io.WriteCloser, workload string) *Log { return begin(w, workload, Entry{}) }

// begin continues a chain after last.
func begin(w io.WriteCloser, workload string, last Entry) *Log {
	l := &Log{
		workload: workload, file: w, now: time.Now, seq: last.Seq, prev: last.Hash,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go l.flush()
	return l
}

// Open continues the chain in the file at path, or begins it. A last line that a crash left unfinished is removed, and
// the removal is recorded as the next entry.
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
		l.Write(Entry{
			Kind: "recovered", Reason: "torn_line", Detail: fmt.Sprintf("removed %d bytes of an unfinished line", torn),
		})
	}
	return l, nil
}

// tail finds the last complete entry, the offset of its end, and how many bytes of an unfinished line follow.
func tail(f *os.File) (last Entry, end, torn int64, err error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return Entry{}, 0, 0, err
	}
	// Lines may have any length, so read further back until the beginning of the last complete line is found.
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

// Write appends e to the chain. A caller that must not make unrecorded decisions checks Err first.
func (l *Log) Write(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.lost > 0 || l.pending.Len() >= maxPendingBytes {
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

// append makes e the next entry of the chain, and buffers it.
func (l *Log) append(e Entry) {
	// Foreign text may be long, or invalid UTF-8. JSON replaces invalid bytes, so that the hash of the entry that is read
	// again would differ.
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

// Err is the error of writing the file, nil if there is none. A process that cannot record its decisions is not ready.
// Err takes no lock, since it is called before every decision.
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

// take moves the buffered lines into spare, and says whether there are any. As there is room now, it records how many
// entries were lost.
func (l *Log) take(spare *bytes.Buffer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	spare.Reset()
	l.pending, *spare = *spare, l.pending
	if l.lost > 0 {
		since := l.since.Format(time.RFC3339)
		l.append(Entry{
			Kind: "recovered", Reason: "no_room",
			Detail: fmt.Sprintf("%d entries since %s could not be written and are lost", l.lost, since),
		})
		l.lost = 0
	}
	return spare.Len() > 0
}

// write writes lines to the file, and says whether it succeeded before the chain was closed. After an error it tries
// the rest again, so that a full disk does not leave half a line.
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

// retryAfter is the pause after a failed write.
const retryAfter = 100 * time.Millisecond

// Tip is the last complete entry of the chain in the file at path; the zero Entry if there is none.
func Tip(path string) (Entry, error) {
	f, err := os.Open(path)
	if err != nil {
		return Entry{}, err
	}
	defer f.Close()
	last, _, _, err := tail(f)
	return last, err
}

// Read returns the complete entries of a chain without verifying it. The chain may still be written.
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
