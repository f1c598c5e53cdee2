package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"
)

// Notary signs how far chains have come. For each chain it remembers the last end that it signed, and signs only what
// extends that: it reads the entries that are new and computes their hashes again. What it remembers is what stands in
// its file of checkpoints, so it never signs two truths, not after a restart either. It is for one goroutine.
type Notary struct {
	path   string
	key    ed25519.PrivateKey
	number uint64
	head   string
	chains map[string]*followed
}

// followed is how far a chain was read and signed.
type followed struct {
	signed link  // the last end that was signed
	read   link  // the last entry that was read; at least as far as signed, but after a restart
	at     int64 // offset behind read
	from   int64 // offset of read
	pins   map[uint64]string
	unfit  Kind // why the chain is not signed any further; "" if it is
}

// Chain is where a Notary reads a chain: open gives its file from the beginning. Its writer may be an enemy: open must
// not follow links, nor wait for a file that is a pipe.
type Chain func() (*os.File, error)

// Unfit says that a chain was not signed.
type Unfit struct {
	Workload string
	Kind     Kind
	Seq      uint64 // after which it is not signed
	What     string
}

const (
	mostOfLine = 1 << 20 // bytes of one entry that the notary reads
	mostOfTurn = 8 << 20 // bytes of one chain that it reads before the next chain has its turn
)

// OpenNotary goes on from the checkpoints in the file at path, which need not be there. What is wrong with them is for
// verification to name: the notary signs nothing that contradicts any of them. A last line that was cut off by a crash
// is removed.
func OpenNotary(path string, key ed25519.PrivateKey) (*Notary, error) {
	n := &Notary{path: path, key: key, chains: map[string]*followed{}}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open checkpoints: %w", err)
	}
	defer f.Close()
	whole, err := wholeLines(f)
	if err == nil {
		err = f.Truncate(whole)
	}
	if err != nil {
		return nil, fmt.Errorf("open checkpoints %s: %w", path, err)
	}
	pins, err := ReadPins(io.NewSectionReader(f, 0, whole), key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	n.number, n.head = pins.number, pins.head
	for name, p := range pins.chains {
		seq := p.last()
		n.chains[name] = &followed{signed: link{seq: seq, hash: p.hashes[seq]}, pins: p.hashes}
	}
	return n, nil
}

// wholeLines is the offset behind the last line's end.
func wholeLines(f *os.File) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	b := make([]byte, 4096)
	for end := size; end > 0; {
		from := max(0, end-int64(len(b)))
		part := b[:end-from]
		if _, err := f.ReadAt(part, from); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return from + int64(i) + 1, nil
		}
		end = from
	}
	return 0, nil
}

// Sign reads what is new in each of chains, by name, and appends a checkpoint for each that has grown. It says which
// chains it would not sign, once for each turn in which that begins or has another kind. The error is that of writing
// the checkpoints: what they pin is tried again.
func (n *Notary) Sign(now time.Time, chains map[string]Chain) ([]Unfit, error) {
	var unfit []Unfit
	var lines bytes.Buffer
	number, head := n.number, n.head
	grown := map[*followed]link{}
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		of := n.chains[name]
		if of == nil {
			of = &followed{}
			n.chains[name] = of
		}
		kind, what := of.follow(name, chains[name])
		if kind != of.unfit && kind != "" {
			unfit = append(unfit, Unfit{name, kind, max(of.signed.seq, of.read.seq), what})
		}
		of.unfit = kind
		if of.read.seq <= of.signed.seq {
			continue
		}
		c := Checkpoint{
			Number: number + 1, Workload: name, Seq: of.read.seq, Hash: of.read.hash, At: now.UTC(), Prev: head,
		}
		c.Sign(n.key)
		b, err := json.Marshal(c)
		if err != nil {
			return unfit, err
		}
		number, head = c.Number, c.Head(c.Prev)
		grown[of] = of.read
		lines.Write(append(b, '\n'))
	}
	if lines.Len() == 0 {
		return unfit, nil
	}
	if err := appendWhole(n.path, lines.Bytes()); err != nil {
		return unfit, fmt.Errorf("sign checkpoints: %w", err)
	}
	n.number, n.head = number, head
	for of, l := range grown {
		of.signed = l
	}
	return unfit, nil
}

// appendWhole appends lines to the file at path, all or none of them.
func appendWhole(path string, lines []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		if _, err = f.Write(lines); err != nil {
			err = errors.Join(err, f.Truncate(size))
		}
	}
	return errors.Join(err, f.Close())
}

// follow reads on from where it was, up to the last whole line, and says why it cannot.
func (c *followed) follow(name string, open Chain) (Kind, string) {
	f, err := open()
	if errors.Is(err, os.ErrNotExist) {
		if c.signed.seq > 0 || c.read.seq > 0 {
			return MissingChain, "its file is gone"
		}
		return "", "" // it has not begun
	}
	if err != nil {
		return MissingChain, "its file cannot be read: " + err.Error()
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return MissingChain, "what is in its place is no regular file"
	}
	if info.Size() < c.at {
		return Cut, "its file has become shorter than what was read of it"
	}
	if c.at > 0 { // what was read last must still stand there
		line := make([]byte, c.at-c.from)
		if _, err := f.ReadAt(line, c.from); err != nil {
			return MissingChain, "its file cannot be read"
		}
		if l := read(line[:len(line)-1], name); l.edited != "" || l.hash != c.read.hash {
			return Resealed, "the entry that was read last is another now"
		}
	}
	scan := bufio.NewReaderSize(io.NewSectionReader(f, c.at, min(info.Size()-c.at, mostOfTurn+mostOfLine)), 64<<10)
	turn := 0
	for turn < mostOfTurn {
		line, err := lineOf(scan)
		if errors.Is(err, errLong) {
			return Edited, fmt.Sprintf("a line is longer than %d bytes", mostOfLine)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return MissingChain, "its file cannot be read"
		}
		l := read(line, name)
		if f := breaks(c.read, l); f != nil {
			if f.Kind == "" || f.Kind == Edited { // no byte of what stands there goes into another chain
				f.What = "what follows does not continue it"
				if f.Kind == "" {
					f.Kind = Resealed
				}
			}
			return f.Kind, f.What
		}
		if want, ok := c.pins[l.seq]; ok && want != l.hash {
			return Resealed, fmt.Sprintf("entry %d differs from what was signed for it", l.seq)
		}
		c.read, c.from = link{seq: l.seq, hash: l.hash}, c.at
		c.at, turn = c.at+int64(len(line))+1, turn+len(line)+1
	}
	if c.read.seq >= c.signed.seq {
		c.pins = nil // of before the restart, and met
	} else if turn < mostOfTurn {
		return Cut, fmt.Sprintf("it ends at %d, and %d was signed", c.read.seq, c.signed.seq)
	}
	return "", ""
}

var errLong = errors.New("line too long")

// lineOf is the next line without its end; io.EOF if it has none yet.
func lineOf(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case len(line) > mostOfLine:
			return nil, errLong
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
