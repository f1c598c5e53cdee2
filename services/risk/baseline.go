package risk

import (
	"embed"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"time"

	"sigs.k8s.io/yaml"

	"example.org/security-training/services/activity"
)

// Baseline is a published rule of another product, as versioned data, to compare profiles with. It scores people
// without explaining the score; no lab uses it as its profile.
type Baseline struct {
	Name         string   `json:"name"`
	Version      int      `json:"version"`
	Rule         string   `json:"rule"`
	Window       Duration `json:"window"`       // events of (τ − window, τ]
	SeveritiesOf string   `json:"severitiesOf"` // the name of the profile whose severities it uses
	Levels       Bounds   `json:"levels"`

	Exponent float64 `json:"exponent"` // zeta: i-th input ÷ i^exponent
	Divisor  float64 `json:"divisor"`

	Points struct { // alert: more than this many points within the span
		Over int64    `json:"over"`
		Span Duration `json:"span"`
	} `json:"points"`
	Breadth struct { // alert: at least this many tactics and sources within the span
		Tactics int      `json:"tactics"`
		Sources int      `json:"sources"`
		Span    Duration `json:"span"`
	} `json:"breadth"`
	Tactics map[activity.Verb]string `json:"tactics"`

	severities map[activity.Verb]Micro
}

// Rules of a Baseline.
const (
	Zeta  = "zeta"
	Alert = "alert"
)

//go:embed baselines/*.yaml
var baselineFiles embed.FS

// Baselines lists the baselines by name.
func Baselines() []*Baseline { return slices.Clone(baselines) }

var baselines = mustBaselines()

func mustBaselines() []*Baseline {
	files, err := baselineFiles.ReadDir("baselines")
	if err != nil {
		panic(err)
	}
	var all []*Baseline
	for _, f := range files {
		text, err := baselineFiles.ReadFile(path.Join("baselines", f.Name()))
		if err != nil {
			panic(err)
		}
		b, err := ParseBaseline(text)
		if err != nil {
			panic(fmt.Errorf("%s: %w", f.Name(), err))
		}
		all = append(all, b)
	}
	return all
}

// ParseBaseline reads a baseline and reports all its faults at once.
func ParseBaseline(text []byte) (*Baseline, error) {
	var b Baseline
	if err := yaml.UnmarshalStrict(text, &b); err != nil {
		return nil, fmt.Errorf("read baseline: %w", err)
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if p, err := ProfileByName(b.SeveritiesOf); err != nil {
		faults = append(faults, err)
	} else {
		b.severities = p.Severities
	}
	if b.Name == "" || b.Version < 1 || b.Window <= 0 {
		fault("name %q, version %d, window %v: want all three", b.Name, b.Version, time.Duration(b.Window))
	}
	if !b.Levels.rise() {
		fault("levels: want them rising inside 0 to 1")
	}
	switch b.Rule {
	case Zeta:
		if b.Exponent <= 1 || b.Divisor <= 0 {
			fault("exponent %v, divisor %v: want one above 1 and one above 0", b.Exponent, b.Divisor)
		}
	case Alert:
		if b.Points.Over <= 0 || b.Points.Span <= 0 || b.Breadth.Span <= 0 ||
			b.Breadth.Tactics < 1 || b.Breadth.Sources < 1 {
			fault("points and breadth: want thresholds and spans above 0")
		}
		for v := range b.severities {
			if b.Tactics[v] == "" {
				fault("tactics: none for %s", v)
			}
		}
	default:
		fault("rule %q: want %s or %s", b.Rule, Zeta, Alert)
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("read baseline %s: %w", b.Name, errors.Join(faults...))
	}
	return &b, nil
}

// Level is the level of a person with this score.
func (b *Baseline) Level(s Score) Level { return b.Levels.level(s) }

// Score is a person's score at τ from the person's events, in any order, duplicates allowed.
func (b *Baseline) Score(events []activity.Event, at time.Time) Score {
	begin := at.Add(-time.Duration(b.Window))
	risky := slices.DeleteFunc(distinct(events, at), func(e *activity.Event) bool {
		return b.severities[e.Verb] == 0 || !e.At.After(begin)
	})
	if b.Rule == Zeta {
		inputs := make([]float64, len(risky))
		for i, e := range risky {
			inputs[i] = 100 * b.severities[e.Verb].Float()
		}
		return fraction(b.Sum(inputs) / 100)
	}
	return b.nearest(sortByTime(risky))
}

// fraction is x as a Score, limited to [0, 1].
func fraction(x float64) Score { return min(One, max(0, Score(math.Round(x*float64(One))))) }

// Sum is the zeta sum of inputs from 0 to 100, in any order: Σ s_i / i^exponent ÷ divisor, the largest first.
func (b *Baseline) Sum(inputs []float64) float64 {
	sorted := slices.Clone(inputs)
	slices.Sort(sorted)
	slices.Reverse(sorted)
	total := 0.0
	for i, s := range sorted {
		total += s / math.Pow(float64(i+1), b.Exponent)
	}
	return total / b.Divisor
}

// Criticality is a sum from 0 to 100 after the odds that it stands for are multiplied.
func Criticality(sum, odds float64) float64 {
	p := sum / 100
	if p >= 1 {
		return 100
	}
	o := p / (1 - p) * odds
	return 100 * o / (1 + o)
}

// nearest is the score of rule alert. It is HIGH or above when the window held an alert, higher by how far the
// thresholds were exceeded, and below HIGH by how much was missing.
func (b *Baseline) nearest(risky []*activity.Event) Score {
	var points, over int64 // whole millionths of a point
	breadth, alert := 0.0, false
	over = b.Points.Over * 1e6
	first := 0
	var sum int64
	for i, e := range risky {
		sum += 100 * int64(b.severities[e.Verb])
		for !risky[first].At.After(e.At.Add(-time.Duration(b.Points.Span))) {
			sum -= 100 * int64(b.severities[risky[first].Verb])
			first++
		}
		points = max(points, sum)
		tactics, sources := map[string]bool{}, map[activity.Source]bool{}
		for j := i; j >= 0 && risky[j].At.After(e.At.Add(-time.Duration(b.Breadth.Span))); j-- {
			tactics[b.Tactics[risky[j].Verb]], sources[risky[j].Source] = true, true
		}
		t, s := float64(len(tactics))/float64(b.Breadth.Tactics), float64(len(sources))/float64(b.Breadth.Sources)
		breadth = max(breadth, min(t, s))
		alert = alert || t >= 1 && s >= 1
	}
	high := b.Levels.High.Float()
	near := max(float64(points)/float64(over), breadth)
	if alert = alert || points > over; !alert {
		return min(fraction(high*near), Score(b.Levels.High)*1e6-1)
	}
	return fraction(high + (1-high)*(1-1/max(1, near)))
}
