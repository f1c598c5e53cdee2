package routine

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/synth/people"
)

// Bounds of what activity.Vendors()' clocks and logs do wrong. Together they keep every record less than MostSkew off, which is less than
// the scorer takes from the future, with the half minute that an alert follows its push.
const (
	steadySkew = 2 * time.Minute // of a source's clock
	leastJump  = 2 * time.Minute // of an act that is dated wrong besides
	mostJump   = 6 * time.Minute
	jumping    = 2 // acts in 1,000
	// MostSkew is how far at most a vendor's record is dated before or after its act.
	MostSkew = steadySkew + mostJump

	gapBlock          = 30 * 24 * time.Hour
	fewestGaps        = 2 // of a source in 30 days
	mostGaps          = 4
	shortest, longest = time.Hour, 3 * time.Hour // of a gap
)

// clock is that of a source's vendor: how far it is ahead at the Epoch, and how much it gains in 24 hours.
type clock struct{ ahead, gain time.Duration }

// clockOf is 5 to 90 s off, either way, and gains or loses 0.5 to 3 s a day.
func clockOf(seed uint64, source activity.Source) clock {
	r := people.CompanyStream(seed, string(source)+" clock", 0)
	between := func(least, most time.Duration) time.Duration {
		d := least + time.Duration(r.Int64N(int64(most-least)))
		if r.IntN(2) == 0 {
			return -d
		}
		return d
	}
	return clock{between(5*time.Second, 90*time.Second), between(500*time.Millisecond, 3*time.Second)}
}

// skew is how far the clock is ahead at a moment, in whole seconds. It drifts to steadySkew and back again.
func (c clock) skew(at time.Time) time.Duration {
	const round = 4 * steadySkew
	x := c.ahead + c.gain*(at.Sub(risk.Epoch)/time.Second)/(24*time.Hour/time.Second)
	if x = ((x+steadySkew)%round + round) % round; x > 2*steadySkew {
		x = round - x
	}
	return (x - steadySkew).Round(time.Second)
}

// jump is how much further the date of an act's records is off: nothing, but for a few acts.
func jump(a Act) time.Duration {
	h := sha256.Sum256([]byte("clock/" + a.ID))
	if int(binary.BigEndian.Uint16(h[:])) >= 65536*jumping/1000 {
		return 0
	}
	d := leastJump + time.Duration(binary.BigEndian.Uint16(h[2:]))%((mostJump-leastJump)/time.Second+1)*time.Second
	if h[4]&1 == 0 {
		return -d
	}
	return d
}

// Gap is a time whose records a source's vendor has lost for good: all of the acts that it dates From or later and before To,
// by its own clock. An act is lost as a whole: the alert that follows a push shares its fate.
type Gap struct {
	Source activity.Source `json:"source"`
	From   time.Time       `json:"from"`
	To     time.Time       `json:"to"`
}

func (g Gap) holds(at time.Time) bool { return !at.Before(g.From) && at.Before(g.To) }

// blockOf is the number of the 30 days that a moment lies in; those before the Epoch are 0.
func blockOf(at time.Time) int {
	d := at.Sub(risk.Epoch.Add(-gapBlock))
	n := int(d / gapBlock)
	if d < 0 && d%gapBlock != 0 {
		n--
	}
	return n
}

// gapsOf are a source's in one block of 30 days: each in an equal part of them, so that no two meet.
func gapsOf(seed uint64, source activity.Source, block int) []Gap {
	r := people.CompanyStream(seed, string(source)+" gaps", block)
	n := fewestGaps + r.IntN(mostGaps-fewestGaps+1)
	part := gapBlock / time.Duration(n)
	gaps := make([]Gap, n)
	for k := range gaps {
		length := shortest + time.Duration(r.IntN(int((longest-shortest)/time.Minute)+1))*time.Minute
		from := risk.Epoch.Add(time.Duration(block-1)*gapBlock + time.Duration(k)*part + time.Duration(r.IntN(int((part-length)/time.Minute)))*time.Minute)
		gaps[k] = Gap{source, from, from.Add(length)}
	}
	return gaps
}

// Gaps are those of a company that touch the time from one moment to another, by time and source.
func Gaps(seed uint64, from, to time.Time) []Gap {
	var list []Gap
	for _, source := range activity.Vendors() {
		for block := blockOf(from); block <= blockOf(to); block++ {
			for _, g := range gapsOf(seed, source, block) {
				if g.To.After(from) && !g.From.After(to) {
					list = append(list, g)
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b Gap) int { return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Source, b.Source)) })
	return list
}

// recorder is what a company's activity.Vendors() make of acts.
type recorder struct {
	seed   uint64
	clocks map[activity.Source]clock
	gaps   map[activity.Source]map[int][]Gap // by block
}

func newRecorder(seed uint64) recorder {
	r := recorder{seed, map[activity.Source]clock{}, map[activity.Source]map[int][]Gap{}}
	for _, source := range activity.Vendors() {
		r.clocks[source], r.gaps[source] = clockOf(seed, source), map[int][]Gap{}
	}
	return r
}

// record dates an act as its vendor does, and says in which gap it was lost, if it was.
func (r recorder) record(a Act) (dated Act, lost *Gap) {
	c, ok := r.clocks[a.Source]
	if !ok {
		return a, nil
	}
	a.At = a.At.Add(c.skew(a.At) + jump(a))
	known, block := r.gaps[a.Source], blockOf(a.At)
	if known[block] == nil {
		known[block] = gapsOf(r.seed, a.Source, block)
	}
	for i, g := range known[block] {
		if g.holds(a.At) {
			return a, &known[block][i]
		}
	}
	return a, nil
}

// Recorded is what activity.Vendors() have on record of a company's acts: each dated by its vendor's clock, without those that were lost,
// by time and id. Month and Day say what people did; whatever reads activity.Vendors()' records sees this. Each act is dated or lost
// whatever the others are. Acts of source training are no vendor's, and stay as they are.
func Recorded(seed uint64, acts []Act) []Act {
	r := newRecorder(seed)
	list := make([]Act, 0, len(acts))
	for _, a := range acts {
		if dated, lost := r.record(a); lost == nil {
			list = append(list, dated)
		}
	}
	sortActs(list)
	return list
}

// Loss is a gap of history and what is missing because of it. It belongs to the answer key: no service may see it.
type Loss struct {
	Gap
	Acts int `json:"acts"`
	// Storylines are the people whose storyline or near miss has a deed among them: their label is of what they did, seen or not.
	Storylines []string `json:"storylines,omitempty"`
}

// Losses are the gaps of the days before the Epoch, with what they took of acts, the staff's Month.
func Losses(seed uint64, staff []people.Person, acts []Act, days int) []Loss {
	deeds := map[string]bool{}
	for _, p := range staff {
		if p.Story != "" {
			for _, a := range live(p).told {
				deeds[a.ID] = true
			}
		}
	}
	taken := map[Gap][]Act{}
	r := newRecorder(seed)
	for _, a := range acts {
		if _, lost := r.record(a); lost != nil {
			taken[*lost] = append(taken[*lost], a)
		}
	}
	losses := []Loss{}
	for _, g := range Gaps(seed, risk.Epoch.Add(-time.Duration(days)*24*time.Hour-MostSkew), risk.Epoch.Add(MostSkew)) {
		l := Loss{Gap: g, Acts: len(taken[g])}
		for _, a := range taken[g] {
			if deeds[a.ID] && !slices.Contains(l.Storylines, a.Person) {
				l.Storylines = append(l.Storylines, a.Person)
			}
		}
		losses = append(losses, l)
	}
	return losses
}
