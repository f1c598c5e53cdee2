package risk

import (
	"cmp"
	"slices"
	"time"
	"unsafe"

	"example.org/security-training/services/activity"
)

// PersonState is what a service keeps of one person between batches: one Accumulator for each profile, which events an
// hour's cap excludes (see Capped), and the events that are ahead of the clock. It scores exactly as Profile.Score does
// from the capped events up to τ. The caller keeps ids distinct.
type PersonState struct {
	accumulators []*Accumulator
	ahead        []activity.Event // later than the clock, by time and id
	hours        map[sourceHour]*hourCount
	newest       map[activity.Source]time.Time // the newest event that counts
}

// hourCount counts the events of one hour of a source.
type hourCount struct {
	events int
	at     time.Time // of the last event that counts, and its id: in a full hour, later ones do not count
	id     string
}

// hoursKeptFor is how long behind a source's newest event a PersonState still knows its hours' counts.
const hoursKeptFor = 72 * time.Hour

// NewPersonState returns a state without events.
func NewPersonState(profiles ...*Profile) *PersonState {
	return PersonStateOf(profiles, nil, time.Time{})
}

// PersonStateOf returns the state of a person's events, in any order, at τ.
func PersonStateOf(profiles []*Profile, events []activity.Event, at time.Time) *PersonState {
	s := &PersonState{hours: map[sourceHour]*hourCount{}, newest: map[activity.Source]time.Time{}}
	var past []activity.Event
	for _, e := range events {
		if e.At.After(at) {
			s.wait(e)
		} else {
			past = append(past, e)
		}
	}
	capped := Capped(past)
	for _, p := range profiles {
		s.accumulators = append(s.accumulators, AccumulatorOf(p, capped))
	}
	slices.SortFunc(past, byTimeValue)
	for i := range past {
		s.count(&past[i])
	}
	return s
}

// Add adds one more event, which may be late. It returns false when the state has to be rebuilt by PersonStateOf: for a
// pass that is older than some of the events already summed, for an event that displaces another one under the hourly
// cap, and for one so late that its hour's count is no longer known.
func (s *PersonState) Add(e activity.Event, at time.Time) bool {
	if e.At.After(at) {
		s.wait(e)
		return true
	}
	if e.At.Before(s.newest[e.Source].Add(-hoursKeptFor)) {
		return false
	}
	counts, ok := s.count(&e)
	if !ok {
		return false
	}
	if !counts {
		return true
	}
	for _, l := range s.accumulators {
		if !l.Add(e) {
			return false
		}
	}
	return true
}

func (s *PersonState) wait(e activity.Event) {
	i, _ := slices.BinarySearchFunc(s.ahead, e, byTimeValue)
	s.ahead = slices.Insert(s.ahead, i, e)
}

// count says whether an event counts; ok is false when another event no longer counts because of it.
func (s *PersonState) count(e *activity.Event) (counts, ok bool) {
	hour := sourceHourOf(e)
	f := s.hours[hour]
	if f == nil {
		f = &hourCount{}
		s.hours[hour] = f
	}
	behind := cmp.Or(e.At.Compare(f.at), cmp.Compare(e.ID, f.id)) > 0
	if f.events >= HourlyCap {
		return false, behind
	}
	if f.events++; f.events == 1 || behind {
		f.at, f.id = e.At, e.ID
	}
	if e.At.After(s.newest[e.Source]) {
		s.newest[e.Source] = e.At
		if len(s.hours) > 64+int(hoursKeptFor/time.Hour) {
			for old := range s.hours {
				if time.Unix((old.hour+1)*3600, 0).Before(s.newest[old.source].Add(-hoursKeptFor)) {
					delete(s.hours, old)
				}
			}
		}
	}
	return true, true
}

// Scores are the scores at τ, in the order of the profiles. τ must not be before that of an earlier call. It returns
// false when the state has to be rebuilt.
func (s *PersonState) Scores(role Role, at time.Time) ([]Score, bool) {
	for len(s.ahead) > 0 && !s.ahead[0].At.After(at) {
		e := s.ahead[0]
		s.ahead = s.ahead[1:]
		if !s.Add(e, at) {
			return nil, false
		}
	}
	scores := make([]Score, len(s.accumulators))
	for i, l := range s.accumulators {
		if l.newest.After(at) {
			return nil, false
		}
		scores[i] = l.Score(role, at)
	}
	return scores, true
}

// Bytes estimates how much memory the state takes.
func (s *PersonState) Bytes() int {
	n := 64*len(s.hours) + int(unsafe.Sizeof(activity.Event{}))*len(s.ahead)
	for _, l := range s.accumulators {
		n += l.Bytes()
	}
	return n
}
