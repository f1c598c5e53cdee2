package bench

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/riskscorer/scorerapi"
	"example.org/security-training/services/source"
	"example.org/security-training/services/topology"
	"example.org/security-training/services/wait"
	"example.org/security-training/synth/routine"
)

const (
	// probed is how many of the company's people only get probes. So their scores are as quick to compute as anyone's.
	probed = 10
	// pace is the time between two probes. It does not depend on how long the probes before take.
	pace = 50 * time.Millisecond
)

// fresh measures the time from a collector's acceptance of a finding until the person's risk, on the scorer's route,
// has the finding among its parts. The load is half of the rate at which findings can be ingested, measured just
// before.
func fresh(ctx context.Context, s *stage) (*contest, error) {
	in, err := s.lab(ctx)
	if err != nil {
		return nil, err
	}
	v, err := in.vendor(ctx)
	if err != nil {
		return nil, err
	}
	most, err := v.rate(ctx, s.size.findings)
	if err != nil {
		return nil, err
	}
	rate := most / 2
	load := int(rate * (time.Duration(s.size.visits) * pace).Seconds())
	var halves []float64
	var stored uint64
	return &contest{
		ours: side{s.size.visits, func(ctx context.Context) (int, float64, error) {
			background, err := v.findings(ctx, load)
			if err != nil {
				return 0, 0, err
			}
			probes, err := v.probes(s.size.visits)
			if err != nil {
				return 0, 0, err
			}
			before, err := v.awaitProcessed(ctx)
			if err != nil {
				return 0, 0, err
			}
			var waits []float64
			group, both := errgroup.WithContext(ctx)
			group.Go(func() error { return v.deliverAt(both, background, rate) })
			group.Go(func() (err error) {
				waits, err = v.timeProbes(both, probes)
				return err
			})
			if err := group.Wait(); err != nil {
				return 0, 0, err
			}
			after, err := v.awaitProcessed(ctx)
			stored = after.Stored - before.Stored
			halves = append(halves, quantile(waits, 0.5))
			return len(waits), quantile(waits, 0.99), err
		}},
		check: func(context.Context) (string, error) {
			if want := uint64(load + s.size.visits); stored != want {
				return fmt.Sprintf("%d of %d events are stored", stored, want), nil
			}
			return "", nil
		},
		notes: func() []Note {
			return []Note{{"half of them within", "ms", median(halves[1:])}, {"under a load of", "events/s", rate}}
		},
	}, nil
}

// rate returns how many findings can be ingested in a second: the better of two attempts.
func (v *vendor) rate(ctx context.Context, n int) (float64, error) {
	best := 0.0
	for range 2 {
		list, err := v.findings(ctx, n)
		if err != nil {
			return 0, err
		}
		begin := time.Now()
		if err := v.deliver(ctx, list); err != nil {
			return 0, err
		}
		if _, err := v.awaitProcessed(ctx); err != nil {
			return 0, err
		}
		best = max(best, float64(n)/time.Since(begin).Seconds())
	}
	return best, nil
}

// deliverAt delivers findings at a rate, whether the collector answers in time or not.
func (v *vendor) deliverAt(ctx context.Context, list []finding, rate float64) error {
	group, ctx := errgroup.WithContext(ctx)
	begin, sent := time.Now(), 0
	for part := range slices.Chunk(list, recordsPerDelivery) {
		due := begin.Add(time.Duration(float64(sent) / rate * float64(time.Second)))
		if err := wait.For(ctx, time.Until(due)); err != nil {
			break // Wait returns the error
		}
		sent += len(part)
		group.Go(func() error { return v.deliver(ctx, part) })
	}
	return group.Wait()
}

// probes returns findings that change the score, of people whom the load leaves out.
func (v *vendor) probes(n int) ([]finding, error) {
	list := make([]finding, n)
	for i := range list {
		v.number++
		person := v.staff[len(v.staff)-1-i%probed]
		at := risk.Epoch.Add(time.Duration(v.day)*24*time.Hour - time.Duration(n-i)*time.Second)
		var err error
		if list[i], err = v.report(
			routine.Act{
				ID: fmt.Sprintf("bench-%09d", v.number), At: at, Person: person.ID, Source: activity.SIEM,
				Verb: source.FindingKinds[0].Verb, Detail: "a probe",
			},
		); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// timeProbes delivers probes one at a time, at their own pace. It returns for each how many milliseconds passed from
// its acceptance until it was part of the score.
func (v *vendor) timeProbes(ctx context.Context, probes []finding) ([]float64, error) {
	var mu sync.Mutex
	var waits []float64
	group, ctx := errgroup.WithContext(ctx)
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for _, f := range probes {
		select {
		case <-ctx.Done():
			return nil, group.Wait()
		case <-tick.C:
		}
		group.Go(func() error {
			if err := v.post(ctx, f.body); err != nil {
				return err
			}
			accepted := time.Now()
			if err := v.awaitScore(ctx, f); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			waits = append(waits, float64(time.Since(accepted))/float64(time.Millisecond))
			return nil
		})
	}
	err := group.Wait()
	return waits, err
}

// awaitScore asks for the person's risk until the finding is a part of it.
func (v *vendor) awaitScore(ctx context.Context, f finding) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	scorer := v.one(topology.KindScorer, "").Name
	path := scorerapi.RouteRisk.For(f.person)
	for {
		var a risk.Assessment
		if err := v.op.Call(ctx, scorer, http.MethodGet, path, nil, &a); err != nil {
			return err
		}
		if slices.ContainsFunc(a.Contributions, func(c risk.Contribution) bool { return c.Event == f.event.ID }) {
			return nil
		}
		if err := wait.For(ctx, 2*time.Millisecond); err != nil {
			return fmt.Errorf("event %s is not in the score: %w", f.event.ID, err)
		}
	}
}
