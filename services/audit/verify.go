package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Verify reads a chain and returns the number of entries, or the first *Fault. The chain must match every checkpoint,
// by sequence number and hash, and a chain with entries must have a checkpoint. With nil pins only the chain itself is
// verified.
func Verify(r io.Reader, workload string, pins *Pins) (int, error) {
	return verify(workload, pins, links(r, workload))
}

// VerifyRows is Verify for a writer's rows in the database. pins are the ends that the writer reported in its chain of
// decisions. Faults name the chain as RowsOf does.
func VerifyRows(rows []Row, workload string, pins *Pins) (int, error) {
	return verify(RowsOf(workload), pins, func(yield func(link, error) bool) {
		for _, r := range rows {
			l := link{seq: uint64(r.Seq), prev: r.Prev, hash: r.Hash, text: r.Hash}
			switch {
			case r.Chain != workload:
				l.foreign = r.Chain
			case r.Sum() != r.Hash:
				l.edited = "its hash does not fit its content: it was edited"
			}
			if !yield(l, nil) {
				return
			}
		}
	})
}

// RowsOf is the name of a writer's chain of rows, in contrast to its chain of decisions.
func RowsOf(workload string) string { return workload + " (database)" }

// TipPins are the ends of a writer's rows that it reported in its chain of decisions. They need no signature: that
// chain is signed.
func TipPins(workload string, decisions []Entry) *Pins {
	name := RowsOf(workload)
	p := &Pins{chains: map[string]*pinned{}}
	of := &pinned{hashes: map[uint64]string{}}
	for _, e := range decisions {
		if e.Kind != KindTip {
			continue
		}
		number, hash, _ := strings.Cut(e.Detail, " ")
		seq, err := strconv.ParseUint(number, 10, 63)
		if err != nil || seq == 0 || hash == "" {
			p.fault(BadSignature, name, 0, 0,
				fmt.Sprintf("entry %d of the chain of decisions reports no end of rows", e.Seq))
			continue
		}
		of.count++
		if was, ok := of.hashes[seq]; !ok {
			of.hashes[seq] = hash
			of.seqs = append(of.seqs, seq)
		} else if was != hash {
			p.fault(TwoCheckpoints, name, 0, seq, "its writer reported it twice, each time with another hash")
		}
	}
	if of.count > 0 {
		p.chains[name] = of
	}
	p.order()
	return p
}

// link is what verification needs of an entry or a row.
type link struct {
	seq        uint64
	prev, hash string
	text       string // equal for equal entries
	edited     string // why it does not match its hash; empty if it does
	foreign    string // its chain, if that is another one
	torn       bool   // the line is unfinished
}

// links reads the file of a chain.
func links(r io.Reader, workload string) iter.Seq2[link, error] {
	return func(yield func(link, error) bool) {
		scan := bufio.NewReader(r)
		for {
			line, err := scan.ReadBytes('\n')
			switch {
			case errors.Is(err, io.EOF) && len(line) == 0:
				return
			case errors.Is(err, io.EOF):
				yield(link{torn: true}, nil)
				return
			case err != nil:
				yield(link{}, fmt.Errorf("read audit of %s: %w", workload, err))
				return
			}
			if !yield(read(bytes.TrimSuffix(line, []byte("\n")), workload), nil) {
				return
			}
		}
	}
}

// read reads one line of a chain's file and computes its hash again.
func read(line []byte, workload string) link {
	var e Entry
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return link{edited: "it is not an entry: " + err.Error()}
	}
	l := link{seq: e.Seq, prev: e.Prev, hash: e.Hash, text: string(line)}
	sum, text, err := e.sum()
	if err != nil {
		return link{edited: "it is not an entry: " + err.Error()}
	}
	jsonSize := slices.Concat(text[:len(text)-1], []byte(`,"hash":"`+sum+`"}`)) // the hash comes last
	switch {
	case e.Workload != workload:
		l.foreign = e.Workload
	case e.Hash != sum:
		l.edited = "its hash does not fit its content: it was edited"
	case !bytes.Equal(jsonSize, line):
		l.edited = "it was edited: it reads the same and is written otherwise"
	}
	return l
}

func verify(name string, pins *Pins, chain iter.Seq2[link, error]) (int, error) {
	var own *pinned
	if pins != nil {
		own = pins.chains[name]
	}
	next, stop := iter.Pull2(chain)
	defer stop()
	var last link
	n := 0
	for {
		l, err, ok := next()
		if !ok {
			break
		}
		if err != nil {
			return n, err
		}
		n++
		if f := breaks(last, l); f != nil {
			if f.Kind == "" {
				f.Kind, f.What = explainBreak(last, l, next)
			}
			f.Workload, f.Line = name, n
			return n, f
		}
		if own != nil {
			if want, ok := own.hashes[l.seq]; ok && want != l.hash {
				what := "it differs from the signed checkpoint, though its hash fits: something after %d was rewritten"
				return n, &Fault{Resealed, name, n, l.seq, fmt.Sprintf(what, own.before(l.seq))}
			}
		}
		last = l
	}
	switch {
	case last.seq < own.last():
		what := "the chain ends here, and a signed checkpoint pins %d: the end was cut off"
		return n, &Fault{Cut, name, n, last.seq, fmt.Sprintf(what, own.last())}
	case pins != nil && n > 0 && own == nil:
		what := "it has %d entries, of which none was ever signed"
		return n, &Fault{NoCheckpoints, name, 0, last.seq, fmt.Sprintf(what, n)}
	}
	return n, nil
}

// breaks returns the fault if l cannot follow last, else nil. The kind of a fault without one depends on the rest of
// the chain; see explainBreak.
func breaks(last, l link) *Fault {
	switch {
	case l.torn:
		return &Fault{Kind: Cut, Seq: last.seq + 1, What: "it is an unfinished line"}
	case l.edited != "" && l.seq == 0:
		return &Fault{Kind: Edited, Seq: last.seq + 1, What: l.edited}
	case l.foreign != "":
		return &Fault{Kind: Inserted, Seq: l.seq, What: "it is an entry of " + Clip(l.foreign, maxNameBytes)}
	case l.edited != "":
		return &Fault{Kind: Edited, Seq: l.seq, What: l.edited}
	case l.seq != last.seq+1:
		return &Fault{Seq: l.seq}
	case l.prev != last.hash:
		what := "it does not continue the entry before it: one of them was changed and hashed again"
		return &Fault{Kind: Resealed, Seq: l.seq, What: what}
	}
	return nil
}

// explainBreak finds the kind of damage where l, which is intact, follows last without having the next number.
func explainBreak(last, l link, next func() (link, error, bool)) (Kind, string) {
	gap := fmt.Sprintf("sequence number %d follows %d", l.seq, last.seq)
	var rest []link
	for {
		m, err, ok := next()
		if err != nil || !ok {
			break
		}
		m.text = ""
		rest = append(rest, m)
	}
	goesOn := len(rest) > 0 && rest[0].prev != ""
	switch {
	case l.seq == last.seq && goesOn && rest[0].prev == last.hash && l.hash != last.hash:
		return Inserted, gap + ": the chain goes on from the one before it, so this one was put in"
	case l.seq == last.seq && goesOn && rest[0].prev == l.hash && l.hash != last.hash:
		return Inserted, gap + ": the chain goes on from this one, so the one before it was put in"
	case l.seq <= last.seq:
		return Doubled, gap + ": the number stands twice"
	}
	found := slices.ContainsFunc(rest, func(m link) bool { return m.seq == last.seq+1 })
	known := slices.ContainsFunc(rest, func(m link) bool { return m.prev == l.hash || m.hash == l.prev })
	switch {
	case found && known:
		return Reordered, gap + fmt.Sprintf(", and %d stands further down: they were moved", last.seq+1)
	case found:
		return Inserted, gap + ": no other entry knows it, so it was put in"
	}
	return Deleted, gap + fmt.Sprintf(": what was between them was removed, from %d on", last.seq+1)
}
