package collector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/collector/collectorapi"
	"example.org/security-training/services/source"
)

// Spool keeps accepted events until the risk scorer has them, and the memory of the source.
//
// One goroutine writes. It takes all waiting deliveries, commits them in one transaction and then answers them:
// hundreds of concurrent deliveries share one fsync, and a single one does not wait for others.
type Spool struct {
	db          *bolt.DB
	row         source.Row
	limit       uint64
	memoryLimit uint64
	writes      chan *write
	ending      chan struct{}
	done        chan struct{}
	wake        chan struct{} // holds a token when the spool may have new entries

	counts chan counts           // of capacity 1; holds the counters of the last commit
	broken atomic.Pointer[error] // why the last commit failed, nil if it did not
}

// counts are the spool's counters.
type counts struct {
	collectorapi.Counts
	First uint64 `json:"-"` // of the oldest spooled entry, 0 if there is none
}

// Watermark is the highest sequence number up to which every entry is final.
func (c counts) Watermark() uint64 {
	if c.First == 0 {
		return c.Seq
	}
	return c.First - 1
}

var (
	entriesBucket = []byte("entries") // seq → event, empty where a record means none
	deadBucket    = []byte("dead")    // seq → DeadLetter
	seenBucket    = []byte("seen")    // delivery id → SHA-256 of its body
	memoryBucket  = []byte("memory")  // source.Memory
	ageBucket     = []byte("age")     // n → "s"+delivery id or "m"+memory key, oldest first
	stateBucket   = []byte("state")   // "counts", "cursor"
)

// Outcomes of a delivery.
var (
	errFull     = errors.New("the spool is full")
	errReplayed = errors.New("this delivery id came before with another body")
	errClosed   = errors.New("the spool is closed")
)

// malformed is a record that its source cannot read.
type malformed struct{ err error }

func (m malformed) Error() string { return m.err.Error() }
func (m malformed) Unwrap() error { return m.err }

func isRefusal(err error) bool {
	var bad malformed
	return errors.Is(err, errFull) || errors.Is(err, errReplayed) || errors.As(err, &bad)
}

// maxRemembered is how many delivery ids and memory entries are kept; the oldest are deleted first.
const maxRemembered = 500_000

// openSpool opens or creates the spool at path. With limit entries waiting, further deliveries are refused.
func openSpool(path string, row source.Row, limit uint64) (*Spool, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: 5 * time.Second, FreelistType: bolt.FreelistMapType, NoFreelistSync: true, InitialMmapSize: 64 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("open spool %s: %w", path, err)
	}
	s := &Spool{
		db: db, row: row, limit: limit, memoryLimit: maxRemembered, writes: make(chan *write),
		ending: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1), counts: make(chan counts, 1),
	}
	var c counts
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{entriesBucket, deadBucket, seenBucket, memoryBucket, ageBucket, stateBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if b := tx.Bucket(stateBucket).Get([]byte("counts")); b != nil {
			if err := json.Unmarshal(b, &c); err != nil {
				return err
			}
		}
		c.First = first(tx)
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open spool %s: %w", path, err), db.Close())
	}
	s.counts <- c
	s.signal()
	go s.write()
	return s, nil
}

// Close ends the writer and closes the store. Waiting deliveries fail with errClosed.
func (s *Spool) Close() error {
	close(s.ending)
	<-s.done
	return s.db.Close()
}

func (s *Spool) read() counts {
	c := <-s.counts
	s.counts <- c
	return c
}

// ready returns the error of the last write, such as a full disk.
func (s *Spool) ready(context.Context) error {
	if err := s.broken.Load(); err != nil {
		return fmt.Errorf("write spool: %w", *err)
	}
	return nil
}

func (s *Spool) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write is one change, applied in a transaction that others may share. A refused change (isRefusal) must not have
// modified tx or c; any other error undoes the whole transaction.
type write struct {
	apply  func(tx *bolt.Tx, c *counts) error
	err    error         // of apply
	commit error         // of the transaction
	done   chan struct{} // closed when both are known
}

// do applies one change and waits until it is on disk.
func (s *Spool) do(ctx context.Context, apply func(*bolt.Tx, *counts) error) error {
	w := &write{apply: apply, done: make(chan struct{})}
	select {
	case s.writes <- w:
	case <-s.ending:
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-w.done
	if w.commit != nil {
		return fmt.Errorf("write spool: %w", w.commit)
	}
	return w.err
}

// maxGroup is how many changes may share a transaction.
const maxGroup = 512

func (s *Spool) write() {
	defer close(s.done)
	for {
		var list []*write
		select {
		case <-s.ending:
			return
		case w := <-s.writes:
			list = append(list, w)
		}
		for waiting := true; waiting && len(list) < maxGroup; {
			select {
			case w := <-s.writes:
				list = append(list, w)
			default:
				waiting = false
			}
		}
		c := s.read()
		err := s.db.Update(func(tx *bolt.Tx) error {
			for _, w := range list {
				if w.err = w.apply(tx, &c); w.err != nil && !isRefusal(w.err) {
					return w.err
				}
			}
			c.First = first(tx)
			b, err := json.Marshal(c)
			if err != nil {
				return err
			}
			return tx.Bucket(stateBucket).Put([]byte("counts"), b)
		})
		if err == nil {
			<-s.counts
			s.counts <- c
			s.signal()
			s.broken.Store(nil)
		} else {
			s.broken.Store(&err)
		}
		for _, w := range list {
			w.commit = err
			close(w.done)
		}
	}
}

func first(tx *bolt.Tx) uint64 {
	if k, _ := tx.Bucket(entriesBucket).Cursor().First(); k != nil {
		return binary.BigEndian.Uint64(k)
	}
	return 0
}

func key(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// delivery is a verified push.
type delivery struct {
	id      string // the vendor's, "" where it has none
	sum     [sha256.Size]byte
	records []source.Record
}

// accepted is the result of a delivery.
type accepted struct {
	Duplicate bool
	Events    []string // ids; of a new delivery
}

// accept stores everything that a delivery means, or nothing: malformed, errReplayed and errFull change nothing.
func (s *Spool) accept(ctx context.Context, d delivery) (accepted, error) {
	var a accepted
	err := s.do(ctx, func(tx *bolt.Tx, c *counts) error {
		seen := tx.Bucket(seenBucket)
		if d.id != "" {
			if sum := seen.Get([]byte(d.id)); sum != nil {
				if !bytes.Equal(sum, d.sum[:]) {
					return errReplayed
				}
				a.Duplicate = true
				c.Redelivered++
				return nil
			}
		}
		m := &memory{bucket: tx.Bucket(memoryBucket), changes: map[string][]byte{}}
		var entries [][]byte
		for _, r := range d.records {
			more, ids, err := s.entries(r, m)
			if err != nil {
				return err
			}
			entries = append(entries, more...)
			a.Events = append(a.Events, ids...)
		}
		if c.Spooled+uint64(len(entries)) > s.limit {
			return errFull
		}
		if d.id != "" {
			if err := seen.Put([]byte(d.id), d.sum[:]); err != nil {
				return err
			}
			if err := s.age(tx, "s"+d.id); err != nil {
				return err
			}
		}
		c.Deliveries++
		return s.append(tx, c, m, entries)
	})
	return a, err
}

// acceptPage stores a page of a polled log together with the cursor after it. A malformed record does not block the
// log: it is left out, and its error is returned.
func (s *Spool) acceptPage(ctx context.Context, records []source.Record, cursor string) (ids []string, faults []error,
	err error) {
	err = s.do(ctx, func(tx *bolt.Tx, c *counts) error {
		if c.Spooled+uint64(len(records)) > s.limit {
			return errFull
		}
		m := &memory{bucket: tx.Bucket(memoryBucket), changes: map[string][]byte{}}
		var entries [][]byte
		for _, r := range records {
			more, named, err := s.entries(r, m)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			entries = append(entries, more...)
			ids = append(ids, named...)
		}
		c.Deliveries++
		if err := tx.Bucket(stateBucket).Put([]byte("cursor"), []byte(cursor)); err != nil {
			return err
		}
		return s.append(tx, c, m, entries)
	})
	return ids, faults, err
}

// entries encodes one entry for each event of a record, or one empty entry, so that the watermark also covers records
// without events.
func (s *Spool) entries(r source.Record, m *memory) (entries [][]byte, ids []string, err error) {
	events, err := s.row.Events(r, m)
	if err != nil {
		return nil, nil, malformed{err}
	}
	for _, e := range events {
		b, err := json.Marshal(e)
		if err != nil {
			return nil, nil, malformed{fmt.Errorf("write event %s: %w", e.ID, err)}
		}
		entries = append(entries, b)
		ids = append(ids, e.ID)
	}
	if len(entries) == 0 {
		entries = [][]byte{{}}
	}
	return entries, ids, nil
}

func (s *Spool) append(tx *bolt.Tx, c *counts, m *memory, entries [][]byte) error {
	fresh, err := m.flush()
	if err != nil {
		return err
	}
	for _, k := range fresh {
		if err := s.age(tx, "m"+k); err != nil {
			return err
		}
	}
	bucket := tx.Bucket(entriesBucket)
	bucket.FillPercent = 0.95 // keys only grow
	for _, e := range entries {
		c.Seq++
		c.Accepted++
		c.Spooled++
		if err := bucket.Put(key(c.Seq), e); err != nil {
			return err
		}
	}
	return nil
}

// age records a new delivery id or memory entry, and deletes the oldest one above the limit.
func (s *Spool) age(tx *bolt.Tx, what string) error {
	ages := tx.Bucket(ageBucket)
	ages.FillPercent = 0.95
	n, err := ages.NextSequence()
	if err != nil {
		return err
	}
	if err := ages.Put(key(n), []byte(what)); err != nil {
		return err
	}
	if n <= s.memoryLimit {
		return nil
	}
	oldest := key(n - s.memoryLimit)
	forget := string(ages.Get(oldest))
	if err := ages.Delete(oldest); err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(forget, "s"):
		return tx.Bucket(seenBucket).Delete([]byte(forget[1:]))
	case strings.HasPrefix(forget, "m"):
		return tx.Bucket(memoryBucket).Delete([]byte(forget[1:]))
	}
	return nil
}

// memory is the source's memory within one change; it is written only if the whole change succeeds.
type memory struct {
	bucket  *bolt.Bucket
	changes map[string][]byte // nil: deleted
}

// Get implements source.Memory.
func (m *memory) Get(key string) []byte {
	if v, ok := m.changes[key]; ok {
		return v
	}
	return slices.Clone(m.bucket.Get([]byte(key)))
}

// Put implements source.Memory.
func (m *memory) Put(key string, value []byte) { m.changes[key] = value }

// Delete implements source.Memory.
func (m *memory) Delete(key string) { m.changes[key] = nil }

// flush writes the changes, and returns the new keys.
func (m *memory) flush() (fresh []string, err error) {
	for k, v := range m.changes {
		old := m.bucket.Get([]byte(k))
		switch {
		case v == nil && old != nil:
			err = m.bucket.Delete([]byte(k))
		case v != nil && !bytes.Equal(old, v):
			if old == nil {
				fresh = append(fresh, k)
			}
			err = m.bucket.Put([]byte(k), v)
		}
		if err != nil {
			return nil, fmt.Errorf("remember %q: %w", k, err)
		}
	}
	return fresh, nil
}

// entry is a spooled event, encoded; empty for a record without an event.
type entry struct {
	seq   uint64
	event []byte
}

// head returns the oldest entries that are not skipped: at most n, and about 1 MiB.
func (s *Spool) head(n int, skip func(seq uint64) bool) ([]entry, error) {
	var list []entry
	size := 0
	err := s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(entriesBucket).Cursor()
		for k, v := c.First(); k != nil && len(list) < n && size < 1<<20; k, v = c.Next() {
			seq := binary.BigEndian.Uint64(k)
			if skip(seq) {
				continue
			}
			list = append(list, entry{seq, slices.Clone(v)})
			size += len(v)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	return list, nil
}

// acknowledge removes the entries with final receipts.
func (s *Spool) acknowledge(ctx context.Context, receipts []activity.Receipt) error {
	return s.do(ctx, func(tx *bolt.Tx, c *counts) error {
		for _, r := range receipts {
			if err := finish(tx, c, r.Seq, r.Status, r.Reason); err != nil {
				return err
			}
		}
		return nil
	})
}

// finish removes one entry from the spool. An entry that was removed before is ignored.
func finish(tx *bolt.Tx, c *counts, seq uint64, status activity.Status, reason string) error {
	bucket := tx.Bucket(entriesBucket)
	event := bucket.Get(key(seq))
	if event == nil {
		return nil
	}
	switch status {
	case activity.Stored:
		c.Stored++
	case activity.Duplicate:
		c.Duplicate++
	case activity.Rejected:
		c.Rejected++
	case activity.DeadLettered:
		c.DeadLettered++
	default:
		return fmt.Errorf("acknowledge entry %d: status %q is not final", seq, status)
	}
	c.Spooled--
	if status == activity.DeadLettered || status == activity.Rejected {
		c.countGivenUp(reason)
		letter := collectorapi.DeadLetter{Seq: seq, Reason: reason}
		if len(event) > 0 {
			letter.Event = &activity.Event{}
			if err := json.Unmarshal(event, letter.Event); err != nil {
				return fmt.Errorf("acknowledge entry %d: %w", seq, err)
			}
		}
		b, err := json.Marshal(letter)
		if err != nil {
			return fmt.Errorf("acknowledge entry %d: %w", seq, err)
		}
		if err := tx.Bucket(deadBucket).Put(key(seq), b); err != nil {
			return err
		}
	}
	return bucket.Delete(key(seq))
}

// maxReasons limits the distinct reasons, which are text of another service.
const maxReasons = 20

// countGivenUp counts an event that was given up. It does not change the map, which readers of counters share.
func (c *counts) countGivenUp(reason string) {
	reason, _, _ = strings.Cut(reason, ":")
	reason = strings.TrimSpace(reason)
	if reason == "" || len(reason) > 60 || c.GivenUp[reason] == 0 && len(c.GivenUp) >= maxReasons {
		reason = "other"
	}
	if c.GivenUp = maps.Clone(c.GivenUp); c.GivenUp == nil {
		c.GivenUp = map[string]uint64{}
	}
	c.GivenUp[reason]++
}

// cursor is the next position of the polled log, "" at the beginning.
func (s *Spool) cursor() (string, error) {
	var at string
	err := s.db.View(func(tx *bolt.Tx) error {
		at = string(tx.Bucket(stateBucket).Get([]byte("cursor")))
		return nil
	})
	return at, err
}

// deadLetters returns the newest n dead letters, newest first, and how many records wait for another record that names
// their person.
func (s *Spool) deadLetters(n int) (letters []collectorapi.DeadLetter, awaiting int, err error) {
	letters = []collectorapi.DeadLetter{}
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(deadBucket).Cursor()
		for k, v := c.Last(); k != nil && len(letters) < n; k, v = c.Prev() {
			var l collectorapi.DeadLetter
			if err := json.Unmarshal(v, &l); err != nil {
				return err
			}
			letters = append(letters, l)
		}
		m := tx.Bucket(memoryBucket).Cursor()
		for k, _ := m.Seek([]byte("await-")); k != nil && bytes.HasPrefix(k, []byte("await-")); k, _ = m.Next() {
			awaiting++
		}
		return nil
	})
	return letters, awaiting, err
}
