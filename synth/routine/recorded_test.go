package routine

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/synth/people"
)

// dated is how far the records of acts are off, by act; lost acts have none.
func dated(acts, recorded []Act) map[string]time.Duration {
	at := map[string]time.Time{}
	for _, a := range acts {
		at[a.ID] = a.At
	}
	off := map[string]time.Duration{}
	for _, a := range recorded {
		off[a.ID] = a.At.Sub(at[a.ID])
	}
	return off
}

// months are the acts of arbitrary seeds, and what vendors have recorded of them.
func months(t *testing.T, each func(seed uint64, staff []people.Person, acts, recorded []Act)) {
	t.Helper()
	for seed := uint64(1); seed <= 12; seed++ {
		staff := append(people.Company(seed, 50, people.Published), people.Contractors(seed, 50)...)
		acts := Month(staff, 30)
		each(seed, staff, acts, Recorded(seed, acts))
	}
}

func TestEachSourceHasAClockOfItsOwnThatIsOffAndDrifts(t *testing.T) {
	jumped, all, farthest := 0, 0, time.Duration(0)
	heads := map[time.Duration]bool{}
	months(t, func(seed uint64, _ []people.Person, acts, recorded []Act) {
		off := dated(acts, recorded)
		days := map[activity.Source]map[int][]time.Duration{}
		for _, a := range acts {
			if d, ok := off[a.ID]; ok {
				day := int(risk.Epoch.Sub(a.At) / (24 * time.Hour))
				if days[a.Source] == nil {
					days[a.Source] = map[int][]time.Duration{}
				}
				days[a.Source][day] = append(days[a.Source][day], d)
			}
		}
		for source, byDay := range days {
			var last time.Duration
			for i, day := range slices.Backward(slices.Sorted(maps.Keys(byDay))) {
				slices.Sort(byDay[day])
				usual := byDay[day][len(byDay[day])/2] // the median: most acts are dated by nothing but the clock
				if source == activity.Training {
					if byDay[day][0] != 0 || byDay[day][len(byDay[day])-1] != 0 {
						t.Fatalf("seed %d: what the lab itself notes is dated %v off", seed, byDay[day])
					}
					continue
				}
				for _, d := range byDay[day] {
					all++
					farthest = max(farthest, d.Abs())
					if (d - usual).Abs() <= 4*time.Second { // the drift of a day, in whole seconds
						continue
					}
					jumped++
					if by := (d - usual).Abs(); by < leastJump-4*time.Second || by > mostJump+4*time.Second {
						t.Errorf("seed %d: a record of %s is %v off where others are %v off", seed, source, d, usual)
					}
				}
				if len(byDay[day]) < 5 {
					continue // a quiet day, whose median may be an outlier
				}
				if usual.Abs() > steadySkew {
					t.Errorf("seed %d: the clock of %s is %v off", seed, source, usual)
				}
				if i < len(byDay)-1 && last != 0 && (usual-last).Abs() > 12*time.Second { // over a weekend, too
					t.Errorf("seed %d: the clock of %s went from %v to %v within days", seed, source, last, usual)
				}
				last = usual
			}
		}
		for _, source := range activity.Vendors() {
			c := clockOf(seed, source)
			heads[c.ahead] = true
			first, end := c.skew(risk.Epoch.AddDate(0, 0, -30)), c.skew(risk.Epoch)
			if end.Abs() < 5*time.Second || first == end {
				t.Errorf("seed %d: the clock of %s is %v off in the end and was %v: want some seconds, and a drift", seed, source,
					end, first)
			}
		}
	})
	t.Logf("%d of %d records are dated wrong besides; %v off at most", jumped, all, farthest)
	if share := float64(jumped) / float64(all); share < .001 || share > .003 {
		t.Errorf("%.4f of the records are dated wrong besides, want 0.002", share)
	}
	if farthest > MostSkew || farthest < leastJump {
		t.Errorf("records are %v off at most, want up to %v", farthest, MostSkew)
	}
	if len(heads) != 12*len(activity.Vendors()) {
		t.Errorf("%d different clocks in 12 companies", len(heads))
	}
}

// The scorer takes what lies 9 minutes ahead of the lab's clock and refuses what lies 11, as services/riskscorer's own
// test shows. An alert is dated half a minute after its push.
func TestNoRecordIsSoFarAheadThatTheScorerRefusesIt(t *testing.T) {
	const taken, alert = 9 * time.Minute, 30 * time.Second
	farthest := time.Duration(0)
	for k := range 300_000 {
		farthest = max(farthest, jump(Act{ID: fmt.Sprintf("%024x", k)}))
	}
	if farthest > mostJump || farthest < mostJump-5*time.Second {
		t.Errorf("the farthest of 300,000 acts is dated %v ahead of its clock, want nearly %v", farthest, mostJump)
	}
	if ahead := mostJump + steadySkew + alert; ahead > taken {
		t.Errorf("records may be dated %v ahead, which the scorer refuses", ahead)
	}
}

func TestAClockStaysWithinItsBoundsForYears(t *testing.T) {
	turned := false
	for seed := range uint64(20) {
		for _, source := range activity.Vendors() {
			c := clockOf(seed, source)
			before := c.skew(risk.Epoch.AddDate(-1, 0, 0))
			for day := -364; day < 3650; day++ {
				now := c.skew(risk.Epoch.AddDate(0, 0, day))
				if now.Abs() > steadySkew || (now-before).Abs() > 4*time.Second {
					t.Fatalf("seed %d: the clock of %s goes from %v to %v on day %d", seed, source, before, now, day)
				}
				turned = turned || now.Abs() > steadySkew-3*time.Second
				before = now
			}
		}
	}
	if !turned {
		t.Error("no clock ever came near its bound")
	}
}

// Acts that are dated by the clock alone keep their order: a clock that drifts never runs backwards.
func TestSkewKeepsTheOrderOfASource(t *testing.T) {
	months(t, func(seed uint64, _ []people.Person, acts, recorded []Act) {
		off := dated(acts, recorded)
		last := map[activity.Source]time.Time{}
		for _, a := range acts {
			d, kept := off[a.ID]
			if !kept || jump(a) != 0 {
				continue
			}
			if at := a.At.Add(d); at.Before(last[a.Source]) {
				t.Fatalf("seed %d: %s at %v is on record before what came before it", seed, a.Verb, a.At)
			}
			last[a.Source] = a.At.Add(d)
		}
		if !slices.IsSortedFunc(recorded, func(a, b Act) int { return a.At.Compare(b.At) }) {
			t.Errorf("seed %d: records are not in order", seed)
		}
	})
}

func TestGapsAreWhereTheyAreDeclaredAndNowhereElse(t *testing.T) {
	missing, told := 0, 0
	months(t, func(seed uint64, staff []people.Person, acts, recorded []Act) {
		losses := Losses(seed, staff, acts, 30)
		count, number := 0, map[activity.Source]int{}
		for i, l := range losses {
			count += l.Acts
			told += len(l.Storylines)
			number[l.Source]++
			if d := l.To.Sub(l.From); d < time.Hour || d > 3*time.Hour {
				t.Errorf("seed %d: a gap of %v", seed, d)
			}
			for _, other := range losses[:i] {
				if other.Source == l.Source && l.From.Before(other.To) {
					t.Errorf("seed %d: gaps of %s at %v and %v meet", seed, l.Source, other.From, l.From)
				}
			}
		}
		for _, source := range activity.Vendors() {
			if n := number[source]; n < fewestGaps || n > mostGaps+1 { // one more where a gap lies over the Epoch's hour
				t.Errorf("seed %d: %d gaps of %s", seed, n, source)
			}
		}
		declared := func(source activity.Source, at time.Time) bool {
			return slices.ContainsFunc(losses, func(l Loss) bool { return l.Source == source && l.holds(at) })
		}
		kept := map[string]bool{}
		for _, a := range recorded {
			kept[a.ID] = true
			if declared(a.Source, a.At) {
				t.Fatalf("seed %d: %s has a record of %v, which lies in a gap", seed, a.Source, a.At)
			}
		}
		if count != len(acts)-len(recorded) {
			t.Errorf("seed %d: gaps declare %d acts lost, %d are", seed, count, len(acts)-len(recorded))
		}
		for _, a := range acts {
			if kept[a.ID] {
				continue
			}
			missing++
			if a.Source == activity.Training || !declared(a.Source, a.At.Add(clockOf(seed, a.Source).skew(a.At)+jump(a))) {
				t.Errorf("seed %d: %s of %v is lost, and no gap was there", seed, a.Verb, a.At)
			}
		}
	})
	t.Logf("%d acts are lost in 12 companies, deeds of %d storylines among them", missing, told)
	if missing < 500 || told == 0 {
		t.Errorf("%d acts are lost, deeds of %d storylines among them: want some", missing, told)
	}
}

// The lab hears of ordinary days bit by bit, and a vendor's log does not depend on who asks when.
func TestRecordsOfPartsAreThePartsOfTheRecord(t *testing.T) {
	staff := people.Company(42, 50, people.Published)
	var acts, parts []Act
	for day := range 35 {
		today := Day(staff, day)
		acts = append(acts, today...)
		for part := range slices.Chunk(today, 7) {
			parts = append(parts, Recorded(42, part)...)
		}
	}
	sortActs(parts)
	whole := Recorded(42, acts)
	if d := cmp.Diff(whole, parts); d != "" {
		t.Errorf("(-whole +parts):\n%.2000s", d)
	}
	if len(whole) == len(acts) {
		t.Error("ordinary life has no gaps")
	}
}

// A gap is no outage: at the end of history every vendor of the lab's companies has spoken within a day and a half,
// half of what the scorer takes for silence.
func TestNoVendorLooksSilentBecauseOfAGap(t *testing.T) {
	for seed := range uint64(40) {
		staff := people.Company(seed, 50, people.Published)
		last := map[activity.Source]time.Time{}
		for _, a := range Recorded(seed, Month(staff, 7)) {
			last[a.Source] = a.At
		}
		for _, source := range activity.Vendors() {
			if age := risk.Epoch.Sub(last[source]); age > 36*time.Hour {
				t.Errorf("seed %d: %s has said nothing for %v", seed, source, age)
			}
		}
	}
}
