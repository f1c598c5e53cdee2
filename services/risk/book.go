package risk

import (
	"cmp"
	"slices"
	"time"
	"unsafe"

	"example.org/security-training/services/activity"
)

// Book is one person's ledgers, one for each of some profiles, as a service keeps them from batch to batch: what a flood sends
// does not count (see Counted), and what lies ahead of the clock waits. It scores exactly as Profile.Score does from the counted
// events up to τ. Ids are the caller's to keep distinct.
type Book struct {
	ledgers []*Ledger
	ahead   []activity.Event // not reached by the clock yet, by time and id
	hours   map[span]*fill
	newest  map[activity.Source]time.Time // that counted
}

// fill is how full an hour of a source is.
type fill struct {
	events int
	at     time.Time // of the last one that counts, with its id: what comes behind it does not
	id     string
}

// countedFor is how long behind a source's newest event a Book remembers how full its hours are.
const countedFor = 72 * time.Hour

// NewBook begins a book without events.
func NewBook(profiles ...*Profile) *Book { return BookOf(profiles, nil, time.Time{}) }

// BookOf is the book of a person's events, in any order, as it is at τ.
func BookOf(profiles []*Profile, events []activity.Event, at time.Time) *Book {
	b := &Book{hours: map[span]*fill{}, newest: map[activity.Source]time.Time{}}
	var past []activity.Event
	for _, e := range events {
		if e.At.After(at) {
			b.wait(e)
		} else {
			past = append(past, e)
		}
	}
	counted := Counted(past)
	for _, p := range profiles {
		b.ledgers = append(b.ledgers, LedgerOf(p, counted))
	}
	slices.SortFunc(past, inTime)
	for i := range past {
		b.count(&past[i])
	}
	return b
}

// Add takes one more event, late ones too. It answers false when the book has to be made anew, by BookOf, which happens for a
// pass in the midst of what was summed up, for an event that displaces another one of a flood, and for one that is so late that
// the book does not know any more whether it is part of a flood.
func (b *Book) Add(e activity.Event, at time.Time) bool {
	if e.At.After(at) {
		b.wait(e)
		return true
	}
	if e.At.Before(b.newest[e.Source].Add(-countedFor)) {
		return false
	}
	counts, ok := b.count(&e)
	if !ok {
		return false
	}
	if !counts {
		return true
	}
	for _, l := range b.ledgers {
		if !l.Add(e) {
			return false
		}
	}
	return true
}

func (b *Book) wait(e activity.Event) {
	i, _ := slices.BinarySearchFunc(b.ahead, e, inTime)
	b.ahead = slices.Insert(b.ahead, i, e)
}

// count says whether an event counts; ok is false when another one does not count any more because of it.
func (b *Book) count(e *activity.Event) (counts, ok bool) {
	s := spanOf(e)
	f := b.hours[s]
	if f == nil {
		f = &fill{}
		b.hours[s] = f
	}
	behind := cmp.Or(e.At.Compare(f.at), cmp.Compare(e.ID, f.id)) > 0
	if f.events >= FloodLimit {
		return false, behind
	}
	if f.events++; f.events == 1 || behind {
		f.at, f.id = e.At, e.ID
	}
	if e.At.After(b.newest[e.Source]) {
		b.newest[e.Source] = e.At
		if len(b.hours) > 64+int(countedFor/time.Hour) {
			for old := range b.hours {
				if time.Unix((old.hour+1)*3600, 0).Before(b.newest[old.source].Add(-countedFor)) {
					delete(b.hours, old)
				}
			}
		}
	}
	return true, true
}

// Scores are the scores at τ, in the order of the profiles. The clock does not go back: τ is not before that of any earlier
// call. False: the book has to be made anew.
func (b *Book) Scores(role Role, at time.Time) ([]Score, bool) {
	for len(b.ahead) > 0 && !b.ahead[0].At.After(at) {
		e := b.ahead[0]
		b.ahead = b.ahead[1:]
		if !b.Add(e, at) {
			return nil, false
		}
	}
	scores := make([]Score, len(b.ledgers))
	for i, l := range b.ledgers {
		if l.newest.After(at) {
			return nil, false
		}
		scores[i] = l.Score(role, at)
	}
	return scores, true
}

// Bytes is about how much memory the book takes.
func (b *Book) Bytes() int {
	n := 64*len(b.hours) + int(unsafe.Sizeof(activity.Event{}))*len(b.ahead)
	for _, l := range b.ledgers {
		n += l.Bytes()
	}
	return n
}
