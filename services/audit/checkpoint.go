package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Checkpoint records the end of a chain outside of it. The checkpoints of a lab are one sequence for all its chains:
// each has the next number and the hash of everything before it, so that none can be removed unnoticed.
//
// Labs of older versions have checkpoints without a number. Those before the first numbered one are accepted; its Prev
// covers them.
type Checkpoint struct {
	Number    uint64    `json:"number,omitempty"` // counted from 1
	Workload  string    `json:"workload"`
	Seq       uint64    `json:"seq"`
	Hash      string    `json:"hash"`
	At        time.Time `json:"at"`
	Prev      string    `json:"prev,omitempty"`      // Head of all checkpoints before it; empty for the first one
	Signature []byte    `json:"signature,omitempty"` // Ed25519 over the JSON without this field
}

func (c Checkpoint) text() []byte {
	c.Signature = nil
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings, numbers and a time always encode
	}
	return b
}

// Head is the correct Prev of the checkpoint after c: SHA-256, in hex, over prev and the signed text of c. prev is the
// Prev of c, or what it would be if c has none.
func (c Checkpoint) Head(prev string) string {
	h := sha256.Sum256(append([]byte(prev), c.text()...))
	return hex.EncodeToString(h[:])
}

// Sign sets the signature.
func (c *Checkpoint) Sign(key ed25519.PrivateKey) { c.Signature = ed25519.Sign(key, c.text()) }

// Verify says whether the signature is by key.
func (c Checkpoint) Verify(key ed25519.PublicKey) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, c.text(), c.Signature)
}

// A Kind is a kind of damage to a chain or to its checkpoints.
type Kind string

// The kinds of Fault.
const (
	Edited         Kind = "edited"                         // an entry does not match its hash
	Deleted        Kind = "deleted"                        // an entry is missing
	Inserted       Kind = "inserted"                       // an entry that no other entry refers to
	Reordered      Kind = "reordered"                      // all entries, in a different order
	Cut            Kind = "cut at the end"                 // fewer entries than a checkpoint records
	Resealed       Kind = "resealed"                       // changed, with new hashes that match
	Doubled        Kind = "doubled sequence number"        // two entries with the same number
	TwoCheckpoints Kind = "two checkpoints for one number" // two signed checkpoints contradict each other
	Missing        Kind = "missing checkpoint"             // the checkpoints' own sequence has a gap
	BadSignature   Kind = "bad signature"                  // a checkpoint that the lab did not sign
	NoCheckpoints  Kind = "no checkpoints"                 // entries without any checkpoint
	MissingChain   Kind = "missing chain"                  // the chain's file is missing
)

// Fault is one fault: the first bad entry of a chain, or a bad checkpoint.
type Fault struct {
	Kind     Kind
	Workload string // the chain's; OfCheckpoints for the sequence of checkpoints
	Line     int    // from 1; 0 if the fault has no line
	Seq      uint64
	What     string
}

// OfCheckpoints is the Workload of a Fault in the sequence of all checkpoints.
const OfCheckpoints = "checkpoints"

func (f *Fault) Error() string {
	at := ""
	switch {
	case f.Line > 0 && f.Seq > 0:
		at = fmt.Sprintf(", line %d (seq %d)", f.Line, f.Seq)
	case f.Line > 0:
		at = fmt.Sprintf(", line %d", f.Line)
	case f.Seq > 0:
		at = fmt.Sprintf(", seq %d", f.Seq)
	}
	name := "audit chain of " + f.Workload
	if f.Workload == OfCheckpoints {
		name = "audit checkpoints"
	}
	return fmt.Sprintf("%s%s: %s: %s", name, at, f.Kind, f.What)
}

// Pins are a lab's verified checkpoints, which chains are compared with.
type Pins struct {
	chains map[string]*pinned
	number uint64 // of the last checkpoint, 0 if none has one
	head   string // the correct Prev of the next one
	all    []Checkpoint
	faults []*Fault
}

// pinned holds the checkpoints of one chain.
type pinned struct {
	hashes map[uint64]string
	seqs   []uint64 // in ascending order
	count  int
}

// last is the highest sequence number with a checkpoint.
func (p *pinned) last() uint64 {
	if p == nil || len(p.seqs) == 0 {
		return 0
	}
	return p.seqs[len(p.seqs)-1]
}

// before is the highest sequence number below seq with a checkpoint, 0 if there is none.
func (p *pinned) before(seq uint64) uint64 {
	i, _ := slices.BinarySearch(p.seqs, seq)
	if i == 0 {
		return 0
	}
	return p.seqs[i-1]
}

// ReadPins reads checkpoints, one on each line, up to the last complete line. Faults returns their faults; a checkpoint
// without a valid signature by key is ignored otherwise. The error is that of r.
func ReadPins(r io.Reader, key ed25519.PublicKey) (*Pins, error) {
	p := &Pins{chains: map[string]*pinned{}}
	scan := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := scan.ReadBytes('\n')
		if errors.Is(err, io.EOF) { // a last line without an end is still being written
			p.order()
			return p, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read checkpoints: %w", err)
		}
		var c Checkpoint
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil {
			p.fault(BadSignature, OfCheckpoints, n, 0, "this is no checkpoint: "+err.Error())
			continue
		}
		p.add(c, n, key)
	}
}

// PinsOf is ReadPins for decoded checkpoints.
func PinsOf(points []Checkpoint, key ed25519.PublicKey) *Pins {
	p := &Pins{chains: map[string]*pinned{}}
	for i, c := range points {
		p.add(c, i+1, key)
	}
	p.order()
	return p
}

func (p *Pins) fault(kind Kind, workload string, line int, seq uint64, what string) {
	p.faults = append(p.faults, &Fault{kind, workload, line, seq, what})
}

func (p *Pins) add(c Checkpoint, line int, key ed25519.PublicKey) {
	p.all = append(p.all, c)
	if !c.Verify(key) {
		p.fault(BadSignature, c.Workload, 0, c.Seq,
			fmt.Sprintf("the signature of its checkpoint in line %d of the checkpoints is not the lab's", line))
		return
	}
	switch {
	case c.Number == 0 && p.number == 0: // of an older version
	case c.Number == 0:
		p.fault(Missing, OfCheckpoints, line, 0, fmt.Sprintf("one without a number follows number %d", p.number))
	case c.Number > p.number+1:
		p.fault(Missing, OfCheckpoints, line, 0,
			fmt.Sprintf("number %d follows %d: what was between them is not there", c.Number, p.number))
	case c.Number <= p.number:
		p.fault(TwoCheckpoints, OfCheckpoints, line, 0,
			fmt.Sprintf("number %d follows %d: a checkpoint stands twice or was moved", c.Number, p.number))
	case c.Prev != p.head:
		p.fault(Missing, OfCheckpoints, line, 0,
			fmt.Sprintf("number %d does not continue what is before it: something was removed or replaced", c.Number))
	}
	if c.Number == 0 {
		p.head = c.Head(p.head)
	} else if c.Number > p.number {
		p.number, p.head = c.Number, c.Head(c.Prev)
	}
	of := p.chains[c.Workload]
	if of == nil {
		of = &pinned{hashes: map[uint64]string{}}
		p.chains[c.Workload] = of
	}
	of.count++
	if was, ok := of.hashes[c.Seq]; ok {
		if was != c.Hash {
			p.fault(TwoCheckpoints, c.Workload, 0, c.Seq, "two signed checkpoints pin it, each with another hash")
		}
		return
	}
	of.hashes[c.Seq] = c.Hash
	of.seqs = append(of.seqs, c.Seq)
}

func (p *Pins) order() {
	for _, of := range p.chains {
		slices.Sort(of.seqs)
	}
}

// Faults are the faults of the checkpoints themselves, in their order.
func (p *Pins) Faults() []*Fault { return p.faults }

// Checkpoints are all checkpoints in their order, including those with a fault.
func (p *Pins) Checkpoints() []Checkpoint { return p.all }

// Workloads are the chains that have a checkpoint, in alphabetical order.
func (p *Pins) Workloads() []string {
	names := make([]string, 0, len(p.chains))
	for name := range p.chains {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Of is the number of valid checkpoints of a chain.
func (p *Pins) Of(workload string) int {
	if of := p.chains[workload]; of != nil {
		return of.count
	}
	return 0
}

// Last is the highest sequence number of a chain with a valid checkpoint, 0 if there is none.
func (p *Pins) Last(workload string) uint64 { return p.chains[workload].last() }
