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

// Notary signs the ends of chains. For each chain it knows the last end that it signed, and signs only an extension of
// that: it reads the new entries and verifies their hashes. It restores its knowledge from its file of checkpoints, so
// that it never signs contradicting checkpoints, also after a restart. It is not safe for concurrent use.
type Notary struct {
	path   string
	key    ed25519.PrivateKey
	number uint64
	head   string
	chains map[string]*followed
}

// followed is the state of reading and signing one chain.
type followed struct {
	signed   link  // the last signed end
	read     link  // the last entry that was read; after a restart it may be before signed
	at       int64 // offset of the end of read
	from     int64 // offset of read
	pins     map[uint64]string
	unsigned Kind // why the chain is no longer signed; "" if it is
}

// Chain opens the file of a chain for a Notary. The chain's writer may be hostile: the function must not follow links,
// nor block on a pipe.
type Chain func() (*os.File, error)

// Unfit reports a chain that was not signed.
type Unfit struct {
	Workload string
	Kind     Kind
	Seq      uint64 // the last signed or accepted one
	What     string
}

const (
	maxLineBytes = 1 << 20 // the longest entry that the notary reads, in bytes
	maxTurnBytes = 8 << 20 // how much of one chain it reads before the next chain, in bytes
)

// OpenNotary continues the checkpoints in the file at path, which need not exist. It does not report their faults, but
// signs nothing that contradicts any of them. A last line that a crash left unfinished is removed.
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

// wholeLines is the offset of the end of the last complete line.
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

// Sign reads the new entries of each chain, by name, and appends a checkpoint for each chain that has grown. It returns
// the chains that it did not sign, each only when this begins or changes its kind. The error is that of writing the
// checkpoints, which the next call tries again.
func (n *Notary) Sign(now time.Time, chains map[string]Chain) ([]Unfit, error) {
	var unsigned []Unfit
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
		if kind != of.unsigned && kind != "" {
			unsigned = append(unsigned, Unfit{name, kind, max(of.signed.seq, of.read.seq), what})
		}
		of.unsigned = kind
		if of.read.seq <= of.signed.seq {
			continue
		}
		c := Checkpoint{
			Number: number + 1, Workload: name, Seq: of.read.seq, Hash: of.read.hash, At: now.UTC(), Prev: head,
		}
		c.Sign(n.key)
		b, err := json.Marshal(c)
		if err != nil {
			return unsigned, err
		}
		number, head = c.Number, c.Head(c.Prev)
		grown[of] = of.read
		lines.Write(append(b, '\n'))
	}
	if lines.Len() == 0 {
		return unsigned, nil
	}
	if err := appendWhole(n.path, lines.Bytes()); err != nil {
		return unsigned, fmt.Errorf("sign checkpoints: %w", err)
	}
	n.number, n.head = number, head
	for of, l := range grown {
		of.signed = l
	}
	return unsigned, nil
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

// follow reads the chain from its last position to the last complete line. It returns why the chain cannot be signed,
// if that is so.
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
	if c.at > 0 { // the last entry that was read must be unchanged
		line := make([]byte, c.at-c.from)
		if _, err := f.ReadAt(line, c.from); err != nil {
			return MissingChain, "its file cannot be read"
		}
		if l := read(line[:len(line)-1], name); l.edited != "" || l.hash != c.read.hash {
			return Resealed, "the entry that was read last is another now"
		}
	}
	scan := bufio.NewReaderSize(io.NewSectionReader(f, c.at, min(info.Size()-c.at, maxTurnBytes+maxLineBytes)), 64<<10)
	turn := 0
	for turn < maxTurnBytes {
		line, err := lineOf(scan)
		if errors.Is(err, errLong) {
			return Edited, fmt.Sprintf("a line is longer than %d bytes", maxLineBytes)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return MissingChain, "its file cannot be read"
		}
		l := read(line, name)
		if f := breaks(c.read, l); f != nil {
			if f.Kind == "" || f.Kind == Edited { // text of the chain must not be copied into another chain
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
		c.pins = nil // they are from before the restart, and were found
	} else if turn < maxTurnBytes {
		return Cut, fmt.Sprintf("it ends at %d, and %d was signed", c.read.seq, c.signed.seq)
	}
	return "", ""
}

var errLong = errors.New("line too long")

// lineOf is the next line without its newline; io.EOF if it is incomplete.
func lineOf(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case len(line) > maxLineBytes:
			return nil, errLong
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
