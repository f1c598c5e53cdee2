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

// Limits of the faults of vendors' clocks and logs. Together they keep the error of every record below MostSkew. With
// the half minute from a push to its alert, this is less than the scorer accepts from the future.
const (
	steadySkew = 2 * time.Minute // of a source's clock
	leastJump  = 2 * time.Minute // of an act whose date is wrong in addition
	mostJump   = 6 * time.Minute
	jumping    = 2 // acts in 1,000
	// MostSkew limits the difference between the date of a vendor's record and its act.
	MostSkew = steadySkew + mostJump

	gapBlock          = 30 * 24 * time.Hour
	fewestGaps        = 2 // of a source in 30 days
	mostGaps          = 4
	shortest, longest = time.Hour, 3 * time.Hour // of a gap
)

// clock is the clock of a source's vendor: how far it is ahead at the Epoch, and how much it gains in 24 hours.
type clock struct{ ahead, gain time.Duration }

// clockOf is 5 to 90 s ahead or behind, and gains or loses 0.5 to 3 s a day.
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

// skew is how far the clock is ahead at a time, in whole seconds. It drifts to steadySkew and back.
func (c clock) skew(at time.Time) time.Duration {
	const round = 4 * steadySkew
	x := c.ahead + c.gain*(at.Sub(risk.Epoch)/time.Second)/(24*time.Hour/time.Second)
	if x = ((x+steadySkew)%round + round) % round; x > 2*steadySkew {
		x = round - x
	}
	return (x - steadySkew).Round(time.Second)
}

// jump is an additional error in the date of an act's records, for a few acts.
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

// Gap is a time whose records a source's vendor has lost: all acts that its clock dates in [From, To). An act is lost
// as a whole, with the alert that follows a push.
type Gap struct {
	Source activity.Source `json:"source"`
	From   time.Time       `json:"from"`
	To     time.Time       `json:"to"`
}

func (g Gap) holds(at time.Time) bool { return !at.Before(g.From) && at.Before(g.To) }

// blockOf is the number of the block of 30 days of a time; the block before the Epoch is 0.
func blockOf(at time.Time) int {
	d := at.Sub(risk.Epoch.Add(-gapBlock))
	n := int(d / gapBlock)
	if d < 0 && d%gapBlock != 0 {
		n--
	}
	return n
}

// gapsOf are a source's gaps in one block of 30 days, each in an equal part of it, so that they do not overlap.
func gapsOf(seed uint64, source activity.Source, block int) []Gap {
	r := people.CompanyStream(seed, string(source)+" gaps", block)
	n := fewestGaps + r.IntN(mostGaps-fewestGaps+1)
	part := gapBlock / time.Duration(n)
	gaps := make([]Gap, n)
	for k := range gaps {
		length := shortest + time.Duration(r.IntN(int((longest-shortest)/time.Minute)+1))*time.Minute
		from := risk.Epoch.Add(time.Duration(block-1)*gapBlock + time.Duration(k)*part +
			time.Duration(r.IntN(int((part-length)/time.Minute)))*time.Minute)
		gaps[k] = Gap{source, from, from.Add(length)}
	}
	return gaps
}

// Gaps are the gaps of a company that overlap a time span, by time and source.
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

// recorder turns acts into what the company's vendors record.
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

// record dates an act by its vendor's clock, and returns the gap in which it was lost, if any.
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

// Recorded is what vendors have recorded of a company's acts: each dated by its vendor's clock, without the lost ones,
// by time and id. Month and Day are what people did; readers of vendors' records see this instead. The result for each
// act is independent of the others. Acts of source training do not change.
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

// Loss is a gap of history with the acts that it lost. It is part of the answer key: no service may see it.
type Loss struct {
	Gap
	Acts int `json:"acts"`
	// Storylines are the people whose storyline or near miss has a lost deed. Their label also covers lost deeds.
	Storylines []string `json:"storylines,omitempty"`
}

// Losses are the gaps of the days before the Epoch, with the acts that they lost of the staff's Month.
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
