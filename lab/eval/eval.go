// Package eval measures how well risk profiles find the people who need help. It generates companies, scores everyone
// by every profile and baseline, and compares the scores with an answer key that no service can read. It needs no
// running lab.
//
// A person is positive if the key says HIGH or above, and flagged if the score at the end of the history is HIGH or
// above. Every rate is over all people of all seeds; its interval comes from resampling the seeds. A rate over fewer
// than ten people is left out.
package eval

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
)

// Plan says what to measure.
type Plan struct {
	Seeds  []uint64
	Mix    people.Mix
	People int    // of each company; 0 means 1,000
	Days   int    // of history; 0 means 30
	Dump   string // folder for all inputs and results, so that others can recompute them; "": none
}

// Bounds of a plan.
const (
	defaultPeople = 1000
	defaultDays   = 30
	firstBuiltIn  = 1000 // built-in seeds start here; nothing was tuned on them
	fewest        = 10   // the least number of people for a rate
)

// SeedsFrom parses a list of seeds: "20" is that many built-in seeds, "1000-1019" a range, and "7,11,13" (or "7,")
// these seeds.
func SeedsFrom(list string) ([]uint64, error) {
	bad := func() ([]uint64, error) {
		return nil, fmt.Errorf(
			"seeds %q: want a number of built-in seeds, a range as 1000-1019, or a list as 7,11,13; at most 1000",
			list,
		)
	}
	number := func(text string) (uint64, bool) {
		n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
		return n, err == nil
	}
	if n, ok := number(list); ok {
		if n < 1 || n > 1000 {
			return bad()
		}
		return seedsTo(firstBuiltIn, firstBuiltIn+n-1), nil
	}
	var seeds []uint64
	for _, part := range strings.Split(strings.TrimSuffix(list, ","), ",") {
		from, to, ranged := strings.Cut(part, "-")
		a, ok := number(from)
		if !ok {
			return bad()
		}
		b := a
		if ranged {
			if b, ok = number(to); !ok || b < a || b-a >= 1000 {
				return bad()
			}
		}
		for _, s := range seedsTo(a, b) {
			if slices.Contains(seeds, s) {
				return nil, fmt.Errorf("seeds %q: %d is there twice", list, s)
			}
			seeds = append(seeds, s)
		}
		if len(seeds) > 1000 {
			return bad()
		}
	}
	return seeds, nil
}

func seedsTo(from, to uint64) []uint64 {
	list := make([]uint64, 0, to-from+1)
	for s := from; s <= to; s++ {
		list = append(list, s)
	}
	return list
}

// Rate is a measured number, or none if there are too few people. In JSON it is a number or null.
type Rate struct {
	Value float64
	Known bool
}

// MarshalJSON writes the number, or null.
func (r Rate) MarshalJSON() ([]byte, error) {
	if !r.Known {
		return []byte("null"), nil
	}
	return json.Marshal(math.Round(r.Value*1e6) / 1e6)
}

// UnmarshalJSON reads a number or null.
func (r *Rate) UnmarshalJSON(b []byte) error {
	*r = Rate{}
	if string(b) == "null" {
		return nil
	}
	r.Known = true
	return json.Unmarshal(b, &r.Value)
}

// String writes three decimals, or "n/a".
func (r Rate) String() string {
	if !r.Known {
		return "n/a"
	}
	return strconv.FormatFloat(r.Value, 'f', 3, 64)
}

func over(a, b float64, rests bool) Rate {
	if b == 0 || !rests {
		return Rate{}
	}
	return Rate{a / b, true}
}

// Rates are the measures of a scorer's quality.
type Rates struct {
	Precision     Rate `json:"precision"` // the share of positives among the flagged
	Recall        Rate `json:"recall"`    // the share of flagged among the positives
	F1            Rate `json:"f1"`
	FalsePositive Rate `json:"false_positive_rate"` // the share of flagged among the negatives
	ROC           Rate `json:"roc_auc"`
	PR            Rate `json:"pr_auc"`           // average precision
	RecallAtFPR5  Rate `json:"recall_at_fpr_5"`  // the recall at a threshold that flags at most 5 % of the negatives
	RecallAtFPR01 Rate `json:"recall_at_fpr_01"` // the same at 0.1 %
}

// Interval is the middle 95 % of the values from resampled seeds, or null where the rate is.
type Interval [2]Rate

// Intervals are the intervals of Rates, under the same names.
type Intervals struct {
	Precision     Interval `json:"precision"`
	Recall        Interval `json:"recall"`
	F1            Interval `json:"f1"`
	FalsePositive Interval `json:"false_positive_rate"`
	ROC           Interval `json:"roc_auc"`
	PR            Interval `json:"pr_auc"`
	RecallAtFPR5  Interval `json:"recall_at_fpr_5"`
	RecallAtFPR01 Interval `json:"recall_at_fpr_01"`
}

// Quality is the result for one group of people.
type Quality struct {
	Rates
	CI95     Intervals `json:"ci95"`
	People   int       `json:"people"`
	Positive int       `json:"positive"`
	Flagged  int       `json:"flagged"`
}

// StoryQuality is the result for one storyline: its carriers compared with the people of its near miss.
type StoryQuality struct {
	Quality
	Level      risk.Level `json:"level"`
	NearMisses int        `json:"near_misses"`
	// DaysToDetection is the median of the days from the storyline's beginning until its carrier was first scored HIGH,
	// over the detected carriers. Scores are looked at once a day. Detected is the share of carriers who were.
	DaysToDetection Rate `json:"days_to_detection"`
	Detected        Rate `json:"detected"`
}

// ProfileReport is the result for one profile or baseline.
type ProfileReport struct {
	Version    int                     `json:"version"`
	Baseline   bool                    `json:"baseline"`
	Overall    Quality                 `json:"overall"`
	Storylines map[string]StoryQuality `json:"storylines"`
	Roles      map[string]Quality      `json:"roles"`
}

// Report is the result of a plan.
type Report struct {
	Default  string                   `json:"default"` // the profile by which a new lab scores
	Mix      people.Mix               `json:"mix"`
	People   int                      `json:"people"` // of each company
	Days     int                      `json:"days"`
	Seeds    []uint64                 `json:"seeds"`
	Profiles map[string]ProfileReport `json:"profiles"`
}

// rule is a profile or a baseline, and how it is measured.
type rule struct {
	name     string
	version  int
	baseline *risk.Baseline
	profile  *risk.Profile
}

func rules() []rule {
	var list []rule
	for _, p := range risk.Profiles() {
		list = append(list, rule{name: p.Name, version: p.Version, profile: p})
	}
	for _, b := range risk.Baselines() {
		list = append(list, rule{name: b.Name, version: b.Version, baseline: b})
	}
	return list
}

func (r rule) score(role risk.Role, events []activity.Event, at time.Time) risk.Score {
	if r.baseline != nil {
		return r.baseline.Score(events, at)
	}
	return r.profile.Score(role, events, at)
}

func (r rule) level(s risk.Score) risk.Level {
	if r.baseline != nil {
		return r.baseline.Level(s)
	}
	return r.profile.Level(s)
}

func high(l risk.Level) bool { return l.Rank() >= risk.High.Rank() }

// subject is one person of one seed, scored by every rule.
type subject struct {
	seed     int // index into Plan.Seeds
	role     risk.Role
	story    people.Story
	near     people.Near
	positive bool
	scores   []risk.Score // by rule
	flagged  []bool
	days     []float64 // until detection, by rule; negative: never. For carriers only.
}

// Measure runs the plan, several seeds at the same time. The result does not depend on how many.
func Measure(ctx context.Context, plan Plan) (Report, error) {
	if plan.People == 0 {
		plan.People = defaultPeople
	}
	if plan.Days == 0 {
		plan.Days = defaultDays
	}
	if len(plan.Seeds) == 0 || plan.People < 1 || plan.People > 50_000 || plan.Days < 1 || plan.Days > 365 {
		return Report{}, fmt.Errorf(
			"measure: %d seeds, %d people, %d days: want one seed or more, 1 to 50000 people, 1 to 365 days",
			len(plan.Seeds),
			plan.People,
			plan.Days,
		)
	}
	all := rules()
	bySeed := make([][]subject, len(plan.Seeds))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range plan.Seeds {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			bySeed[i], err = plan.seed(i, all)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return Report{}, fmt.Errorf("measure: %w", err)
	}
	subjects := slices.Concat(bySeed...)
	report := Report{
		Default:  risk.Default,
		Mix:      plan.Mix,
		People:   plan.People,
		Days:     plan.Days,
		Seeds:    plan.Seeds,
		Profiles: map[string]ProfileReport{},
	}
	for k, r := range all {
		report.Profiles[r.name] = judge(subjects, k, r, len(plan.Seeds))
	}
	return report, nil
}

// seed generates and scores one company.
func (plan Plan) seed(i int, all []rule) ([]subject, error) {
	staff := people.Company(plan.Seeds[i], plan.People, plan.Mix)
	done := routine.Month(staff, plan.Days)
	acts := routine.Recorded(plan.Seeds[i], done) // what vendors recorded, which is all that a scorer sees
	lives := map[string][]activity.Event{}
	for _, a := range acts {
		lives[a.Person] = append(lives[a.Person], a.Event())
	}
	for id, events := range lives {
		lives[id] = risk.Capped(events)
	}
	var subjects []subject
	for _, p := range staff {
		if !p.Employed(risk.Epoch) {
			continue
		}
		s := subject{seed: i, role: p.Role, story: p.Story, near: p.Near, positive: high(p.Label)}
		for _, r := range all {
			score := r.score(p.Role, lives[p.ID], risk.Epoch)
			s.scores, s.flagged = append(s.scores, score), append(s.flagged, high(r.level(score)))
			if p.Story != "" && p.Near == people.Real {
				s.days = append(s.days, detection(r, p, lives[p.ID]))
			}
		}
		subjects = append(subjects, s)
	}
	if plan.Dump != "" {
		if err := dump(plan, plan.Seeds[i], staff, done, acts, lives, all); err != nil {
			return nil, err
		}
	}
	return subjects, nil
}

// detection returns after how many days of the storyline its carrier is first HIGH, or a negative number if never.
func detection(r rule, p people.Person, events []activity.Event) float64 {
	began := routine.Began(p)
	for day := 0; ; day++ {
		at := began.Add(time.Duration(day) * 24 * time.Hour)
		if at.After(risk.Epoch) {
			at = risk.Epoch
		}
		if high(r.level(r.score(p.Role, events, at))) {
			return at.Sub(began).Hours() / 24
		}
		if at.Equal(risk.Epoch) {
			return -1
		}
	}
}

func judge(subjects []subject, k int, r rule, seeds int) ProfileReport {
	report := ProfileReport{
		Version:    r.version,
		Baseline:   r.baseline != nil,
		Storylines: map[string]StoryQuality{},
		Roles:      map[string]Quality{},
	}
	report.Overall = quality(subjects, k, seeds)
	for _, role := range risk.Roles {
		report.Roles[string(role)] = quality(pick(subjects, func(s subject) bool { return s.role == role }), k, seeds)
	}
	for _, story := range people.Stories {
		own := pick(subjects, func(s subject) bool { return s.story == story })
		q := StoryQuality{Quality: quality(own, k, seeds), Level: people.Tales[story].Level}
		var days []float64
		carriers := 0
		for _, s := range own {
			if s.near == people.NearMiss {
				q.NearMisses++
				continue
			}
			carriers++
			if d := s.days[k]; d >= 0 {
				days = append(days, d)
			}
		}
		slices.Sort(days)
		if len(days) >= fewest {
			q.DaysToDetection = Rate{(days[(len(days)-1)/2] + days[len(days)/2]) / 2, true}
		}
		q.Detected = over(float64(len(days)), float64(carriers), carriers >= fewest)
		report.Storylines[string(story)] = q
	}
	return report
}

func pick(subjects []subject, match func(subject) bool) []subject {
	var list []subject
	for _, s := range subjects {
		if match(s) {
			list = append(list, s)
		}
	}
	return list
}

// resamples is how many times the seeds are resampled for the intervals.
const resamples = 1000

func quality(subjects []subject, k, seeds int) Quality {
	// The highest score first. Equal scores have no order.
	sorted := slices.Clone(subjects)
	slices.SortStableFunc(sorted, func(a, b subject) int { return cmp.Compare(b.scores[k], a.scores[k]) })
	q := Quality{People: len(sorted)}
	for _, s := range sorted {
		if s.positive {
			q.Positive++
		}
		if s.flagged[k] {
			q.Flagged++
		}
	}
	once := make([]float64, seeds)
	for i := range once {
		once[i] = 1
	}
	q.Rates = rates(sorted, k, once)
	if seeds < 2 {
		return q
	}
	draws := stream(seeds)
	samples := make([]Rates, resamples)
	for i := range samples {
		weights := make([]float64, seeds)
		for range seeds {
			weights[draws.IntN(seeds)]++
		}
		samples[i] = rates(sorted, k, weights)
	}
	for _, m := range measures {
		if !m.rate(&q.Rates).Known {
			continue
		}
		values := make([]float64, 0, resamples)
		for i := range samples {
			if r := m.rate(&samples[i]); r.Known {
				values = append(values, r.Value)
			}
		}
		slices.Sort(values)
		if n := len(values); n > 0 {
			*m.interval(&q.CI95) = Interval{
				{values[int(.025*float64(n-1))], true},
				{values[int(math.Ceil(.975*float64(n-1)))], true},
			}
		}
	}
	return q
}

// measures pair each rate with its interval.
var measures = []struct {
	name     string
	rate     func(*Rates) *Rate
	interval func(*Intervals) *Interval
}{
	{"precision", func(r *Rates) *Rate { return &r.Precision }, func(i *Intervals) *Interval { return &i.Precision }},
	{"recall", func(r *Rates) *Rate { return &r.Recall }, func(i *Intervals) *Interval { return &i.Recall }},
	{"f1", func(r *Rates) *Rate { return &r.F1 }, func(i *Intervals) *Interval { return &i.F1 }},
	{
		"false positive rate",
		func(r *Rates) *Rate { return &r.FalsePositive },
		func(i *Intervals) *Interval { return &i.FalsePositive },
	},
	{"ROC area", func(r *Rates) *Rate { return &r.ROC }, func(i *Intervals) *Interval { return &i.ROC }},
	{"PR area", func(r *Rates) *Rate { return &r.PR }, func(i *Intervals) *Interval { return &i.PR }},
	{
		"recall at 5 %",
		func(r *Rates) *Rate { return &r.RecallAtFPR5 },
		func(i *Intervals) *Interval { return &i.RecallAtFPR5 },
	},
	{
		"recall at 0.1 %",
		func(r *Rates) *Rate { return &r.RecallAtFPR01 },
		func(i *Intervals) *Interval { return &i.RecallAtFPR01 },
	},
}

// rates measures people in falling order of score. Each counts with the weight of the person's seed.
func rates(sorted []subject, k int, weights []float64) Rates {
	var positive, negative, hit, alarm float64
	for i := range sorted {
		s := &sorted[i]
		w := weights[s.seed]
		switch {
		case s.positive:
			positive += w
		default:
			negative += w
		}
		switch {
		case !s.flagged[k]:
		case s.positive:
			hit += w
		default:
			alarm += w
		}
	}
	both := positive >= fewest && negative >= fewest
	r := Rates{
		Precision:     over(hit, hit+alarm, hit+alarm >= fewest),
		Recall:        over(hit, positive, positive >= fewest),
		F1:            over(2*hit, 2*hit+alarm+(positive-hit), positive >= fewest),
		FalsePositive: over(alarm, negative, negative >= fewest),
	}
	var tp, fp, roc, pr, at5, at01 float64
	for i := 0; i < len(sorted); {
		var p, n float64
		j := i
		for ; j < len(sorted) && sorted[j].scores[k] == sorted[i].scores[k]; j++ {
			if sorted[j].positive {
				p += weights[sorted[j].seed]
			} else {
				n += weights[sorted[j].seed]
			}
		}
		roc += n * (tp + p/2)
		tp, fp = tp+p, fp+n
		if tp > 0 {
			pr += p * tp / (tp + fp)
		}
		if fp <= .05*negative {
			at5 = tp
		}
		if fp <= .001*negative {
			at01 = tp
		}
		i = j
	}
	r.ROC, r.PR = over(roc, positive*negative, both), over(pr, positive, both)
	r.RecallAtFPR5, r.RecallAtFPR01 = over(at5, positive, both), over(at01, positive, both)
	return r
}
