// Package bench measures what the program's parts cost. It compares each part with a peer, which does the same work
// with less around it.
//
// The ratio of the two is the result; absolute values are context. Both sides take turns in the rounds of one run, and
// the side that goes first alternates. The first round warms up and does not count. After each round the counts and
// contents are checked: a side that did less than it should is not measured.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"example.org/security-training/lab/progress"
)

// LeastRounds is the default number of rounds for a result.
const LeastRounds = 7

// ErrUnknown says that there is no benchmark of that name.
var ErrUnknown = errors.New("no such benchmark")

// Benchmark is one comparison.
type Benchmark struct {
	ID   string
	What string // "ours ÷ peer", for people
	Unit string
	Good float64 // a ratio, or a value of ours if there is no peer
	Goal float64
	Bound
	Needs Need

	begin func(ctx context.Context, s *stage) (*contest, error)
}

// Bound says on which side of the goal a good result is.
type Bound string

// The two bounds.
const (
	AtLeast Bound = "at least"
	AtMost  Bound = "at most"
)

// Need says what a benchmark needs in addition to this process.
type Need int

// Nothing at all; the local runtime and its programs; or a lab for the benchmarks alone.
const (
	Nothing Need = iota
	Programs
	ALab
)

// stage is what the benchmarks of one run share.
type stage struct {
	size   size
	rounds int
	lab    func(context.Context) (*insider, error)
	up     *UpLocal
}

// size is how much work each benchmark does in a round.
type size struct {
	handshakes int
	requests   int
	people     int // people who are scored
	company    int // people who cause records at vendors
	days       int // days of these records
	findings   int // findings that are ingested
	visits     int // events whose way to the score is timed
}

var full = size{handshakes: 600, requests: 6000, people: 50_000, company: 50, days: 30, findings: 4000, visits: 60}

// side is one of the two sides of a comparison, or the only one.
type side struct {
	want int // how many things it must do in a round
	// run does them. It returns how many it did, and the result in the benchmark's unit.
	run func(context.Context) (done int, value float64, err error)
}

// contest is a benchmark that has begun.
type contest struct {
	ours  side
	peer  *side                                 // nil if there is none
	check func(context.Context) (string, error) // after each round: says what is missing, or ""
	notes func() []Note                         // at the end: other results
	end   func() error
}

// Note is a value that was measured in addition to the result.
type Note struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
}

// shortfall is the error of a side that did less than it should.
type shortfall struct{ what string }

func (s *shortfall) Error() string { return "did less than it should: " + s.what }

// measured is the result of one round.
type measured struct{ ours, peer float64 }

// order says which side goes first in a round; true is ours.
func order(round int) [2]bool {
	if round%2 == 0 {
		return [2]bool{true, false}
	}
	return [2]bool{false, true}
}

// play runs the rounds. It drops the first one.
func (c *contest) play(ctx context.Context, rounds int) ([]measured, error) {
	var list []measured
	for round := range rounds + 1 {
		var m measured
		for _, ours := range order(round) {
			who, name, into := &c.ours, "ours", &m.ours
			if !ours {
				who, name, into = c.peer, "peer", &m.peer
			}
			if who == nil {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			runtime.GC() // so that neither side collects the garbage of the other
			done, value, err := who.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", name, round, err)
			}
			if done < who.want {
				return nil, &shortfall{fmt.Sprintf("%s, round %d: %d of %d", name, round, done, who.want)}
			}
			*into = value
		}
		if c.check != nil {
			missing, err := c.check(ctx)
			if err != nil {
				return nil, fmt.Errorf("check round %d: %w", round, err)
			}
			if missing != "" {
				return nil, &shortfall{fmt.Sprintf("round %d: %s", round, missing)}
			}
		}
		if round > 0 {
			list = append(list, m)
		}
	}
	return list, nil
}

// median is the middle of list, or the mean of the two in the middle.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// quantile is the value at or below which a share q of list is, by nearest rank.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// Plan says what to measure.
type Plan struct {
	Names  []string // empty: all
	Rounds int
	// Lab brings up a lab for the benchmarks when the first one needs it. Inside has the function that takes it down.
	Lab func(context.Context) (*Inside, error)
	Up  *UpLocal // brings up further labs, one at a time
	size
}

// Pick returns the benchmarks called names, each once and in the order of All. The error is ErrUnknown and lists all
// names.
func Pick(names []string) ([]Benchmark, error) {
	all := All()
	var unknown []string
	for _, n := range names {
		if !slices.ContainsFunc(all, func(b Benchmark) bool { return b.ID == n }) {
			unknown = append(unknown, n)
		}
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("%w: %s; there are %s", ErrUnknown, strings.Join(unknown, ", "), strings.Join(Names(), ", "))
	}
	if len(names) == 0 {
		return all, nil
	}
	return slices.DeleteFunc(all, func(b Benchmark) bool { return !slices.Contains(names, b.ID) }), nil
}

// Names returns the names of all benchmarks.
func Names() []string {
	var list []string
	for _, b := range All() {
		list = append(list, b.ID)
	}
	return list
}

// Measure runs the benchmarks of a plan one after the other. If one fails, its result and the error say why, and the
// others are still measured, unless ctx ends or their lab cannot be brought up.
func Measure(ctx context.Context, p Plan, say progress.Reporter) (Report, error) {
	list, err := Pick(p.Names)
	if err != nil {
		return Report{}, err
	}
	return measure(ctx, list, p, say)
}

// measure is Measure for a list of benchmarks.
func measure(ctx context.Context, list []Benchmark, p Plan, say progress.Reporter) (r Report, err error) {
	if p.Rounds < 1 {
		return r, fmt.Errorf("%d rounds: want 1 or more", p.Rounds)
	}
	r.begin()
	s := &stage{size: cmp.Or(p.size, full), rounds: p.Rounds, up: p.Up}
	var inside *insider
	s.lab = func(ctx context.Context) (*insider, error) {
		if inside != nil {
			return inside, nil
		}
		var err error
		inside, err = enter(ctx, p.Lab)
		return inside, err
	}
	defer func() {
		if inside != nil {
			err = errors.Join(err, inside.leave(say))
		}
	}()
	var failed []error
	for _, b := range list {
		result := b.result()
		var err error
		if b.Needs == ALab && inside == nil {
			err = progress.Step(say, "a lab for the benchmarks alone", func() error {
				_, err := s.lab(ctx)
				return err
			})
		}
		if err == nil {
			err = progress.Step(
				say,
				fmt.Sprintf("%s: %d rounds", b.ID, p.Rounds),
				func() error { return b.run(ctx, s, &result) },
			)
		}
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if err != nil {
			result.Failed = err.Error()
			failed = append(failed, fmt.Errorf("%s: %w", b.ID, err))
		}
		r.Benchmarks = append(r.Benchmarks, result)
		if errors.Is(err, errNoLab) {
			break
		}
	}
	if inside != nil {
		r.Versions.PostgreSQL = inside.postgres
	}
	r.Load.After = load()
	return r, errors.Join(failed...)
}

// run measures b and stores the result in r.
func (b Benchmark) run(ctx context.Context, s *stage, r *Result) (err error) {
	c, err := b.begin(ctx, s)
	if err != nil {
		return err
	}
	defer func() {
		if c.end != nil {
			err = errors.Join(err, c.end())
		}
	}()
	rounds, err := c.play(ctx, s.rounds)
	if err != nil {
		return err
	}
	r.fill(rounds, c.peer == nil)
	if c.notes != nil {
		r.Notes = c.notes()
	}
	return nil
}
