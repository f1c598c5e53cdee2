// Package bench measures what this program's parts cost, each against a peer that does the same work with less around
// it.
//
// The ratio is the result, the absolute value is context. Both sides take turns in rounds of one run, and who begins
// alternates; the first round warms up and is dropped. After each round counts and contents are checked: a side that
// did less than it should has not been measured.
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

// LeastRounds is how many rounds a result rests on, unless somebody asks for another number.
const LeastRounds = 7

// ErrUnknown says that there is no benchmark of a name.
var ErrUnknown = errors.New("no such benchmark")

// Benchmark is one comparison.
type Benchmark struct {
	ID   string
	What string // ours ÷ peer, for people
	Unit string
	Good float64 // of the ratio; of the value itself where there is no peer
	Goal float64
	Bound
	Needs Need

	begin func(ctx context.Context, s *stage) (*contest, error)
}

// Bound says on which side of the goal it is good to be.
type Bound string

// The two.
const (
	AtLeast Bound = "at least"
	AtMost  Bound = "at most"
)

// Need says what a benchmark needs beside this process.
type Need int

// Nothing; the local runtime and the programs that it runs; a lab that is up, for the benchmarks alone.
const (
	Nothing Need = iota
	Programs
	ALab
)

// stage is what benchmarks of one run share.
type stage struct {
	size   size
	rounds int
	lab    func(context.Context) (*insider, error)
	up     *UpLocal
}

// size is how much each benchmark does in a round.
type size struct {
	handshakes int
	requests   int
	people     int // who are scored
	company    int // who leave traces at vendors
	days       int // for so long
	findings   int // that are ingested
	visits     int // events that are looked for on the way to the score
}

var full = size{handshakes: 600, requests: 6000, people: 50_000, company: 50, days: 30, findings: 4000, visits: 60}

// side is one of the two that are compared, or the only one.
type side struct {
	want int // how many it does in a round
	// run does them, and says how many it did and what they came to in the benchmark's unit.
	run func(context.Context) (done int, value float64, err error)
}

// contest is a benchmark that has begun.
type contest struct {
	ours  side
	peer  *side                                 // nil: there is none
	check func(context.Context) (string, error) // after each round: what is missing, if anything is
	notes func() []Note                         // at the end: what else was measured
	end   func() error
}

// Note is what was measured beside the result.
type Note struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
}

// shortfall is the error of a benchmark that did less than it should.
type shortfall struct{ what string }

func (s *shortfall) Error() string { return "did less than it should: " + s.what }

// measured is one round.
type measured struct{ ours, peer float64 }

// order is who plays in a round, by turns: true is ours.
func order(round int) [2]bool {
	if round%2 == 0 {
		return [2]bool{true, false}
	}
	return [2]bool{false, true}
}

// play runs the rounds, of which the first is dropped.
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
			runtime.GC() // so that nobody pays for what the other one has left
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

// median is the middle of list, or the mean of the two that are there.
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

// quantile is the value below which a share q of list is, by nearest rank.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// Plan says what to measure.
type Plan struct {
	Names  []string // none: all
	Rounds int
	// Lab brings a lab of its own up when the first benchmark that needs one begins, and returns what takes it down again.
	Lab func(context.Context) (*Inside, error)
	Up  *UpLocal // brings further labs up, one at a time
	size
}

// Pick is the benchmarks of names, each once and in their own order; ErrUnknown names all there are.
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

// Names lists every benchmark.
func Names() []string {
	var list []string
	for _, b := range All() {
		list = append(list, b.ID)
	}
	return list
}

// Measure runs the benchmarks of a plan, one after the other. A benchmark that failed is in the report, with why, and
// in the error; the others are measured all the same, unless ctx ends or their lab cannot be had.
func Measure(ctx context.Context, p Plan, say progress.Reporter) (Report, error) {
	list, err := Pick(p.Names)
	if err != nil {
		return Report{}, err
	}
	return measure(ctx, list, p, say)
}

// measure is Measure of a list.
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

// run measures b into r.
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
