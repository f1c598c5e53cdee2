package world

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/services/wait"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
)

// perform runs p to its end.
func (w *World) perform(ctx context.Context, p *play) error {
	mix, err := people.MixFrom(p.Mix)
	if err != nil {
		return err
	}
	var staff []people.Person
	if p.People > 0 {
		staff = people.Company(p.Seed, p.People, mix)
	}
	if p.Kind != Timeline {
		staff = append(staff, people.Contractors(p.Seed, p.People)...)
	}
	c := cast{}
	for _, person := range staff {
		c[person.ID] = person.Person
	}
	for _, person := range p.Cast {
		c[person.ID] = person
	}
	switch p.Kind {
	case History:
		return w.deliver(ctx, p, c, w.own(routine.Month(staff, p.Days)))
	case Live:
		return w.live(ctx, p, c, staff)
	default:
		acts := w.own(p.Acts)
		slices.SortStableFunc(acts, func(a, b routine.Act) int { return a.At.Compare(b.At) })
		return w.await(ctx, p, c, acts)
	}
}

// own keeps the acts of this vendor's source.
func (w *World) own(acts []routine.Act) []routine.Act {
	var list []routine.Act
	for _, a := range acts {
		if a.Source == w.source {
			list = append(list, a)
		}
	}
	return list
}

// live delivers the company's ordinary days from the lab's now on.
func (w *World) live(ctx context.Context, p *play, c cast, staff []people.Person) error {
	from, err := w.now(ctx, p)
	if err != nil {
		return err
	}
	for day := max(0, int(from.Sub(risk.Epoch)/(24*time.Hour))); ctx.Err() == nil; day++ {
		acts := slices.DeleteFunc(w.own(routine.Day(staff, day)), func(a routine.Act) bool { return !a.At.After(from) })
		if err := w.await(ctx, p, c, acts); err != nil {
			return err
		}
		if err := w.until(ctx, p, risk.Epoch.Add(time.Duration(day+1)*24*time.Hour)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// await delivers acts, which are in order of time, each when the lab's clock reaches it. Acts at the same time are
// delivered together.
func (w *World) await(ctx context.Context, p *play, c cast, acts []routine.Act) error {
	for len(acts) > 0 {
		if err := w.until(ctx, p, acts[0].At); err != nil {
			return err
		}
		now, err := w.now(ctx, p)
		if err != nil {
			return err
		}
		due := 1
		for due < len(acts) && !acts[due].At.After(now) {
			due++
		}
		if err := w.deliver(ctx, p, c, acts[:due]); err != nil {
			return err
		}
		acts = acts[due:]
	}
	return nil
}

// until waits for a time of the lab's clock, which may jump and change its pace.
func (w *World) until(ctx context.Context, p *play, moment time.Time) error {
	for {
		now, err := w.now(ctx, p)
		if err != nil {
			return err
		}
		if !moment.After(now) {
			return nil
		}
		if err := wait.For(ctx, w.look); err != nil {
			return err
		}
	}
}

// now reads the lab's time, and retries until there is an answer.
func (w *World) now(ctx context.Context, p *play) (time.Time, error) {
	pause := w.first
	for {
		c, err := w.clock(ctx)
		if err == nil {
			return c.Now, nil
		}
		if ctx.Err() != nil {
			return time.Time{}, ctx.Err()
		}
		p.update(func(s *Status) { s.Error = fmt.Sprintf("read the lab's clock: %v", err) })
		if err := wait.For(ctx, pause); err != nil {
			return time.Time{}, err
		}
		pause = min(pause*2, w.longest)
	}
}

// recorded is what the vendor has recorded of acts: dates by the vendor's clock, and with its gaps. Each act is still
// reported when it happens. A timeline has no such faults.
func recorded(p *play, acts []routine.Act) []routine.Act {
	if p.Kind == Timeline {
		return acts
	}
	return routine.Recorded(p.Seed, acts)
}

// repeated says whether a vendor reports an act's records twice, as for 2 in 100 acts.
func repeated(p *play, a routine.Act) bool {
	d := digest(a, "repeated")
	return p.Kind != Timeline && int(d[0])<<8+int(d[1]) < 65536*2/100
}

// together is how many records a delivery has, for vendors that concatenate them.
const together = 100

// job is a sequence of deliveries whose order must be kept: those of one act, or a batch.
type job []parcel

// deliver reports acts as the vendor does, and returns when every record is acknowledged or finally refused.
func (w *World) deliver(ctx context.Context, p *play, c cast, acts []routine.Act) error {
	var each []routine.Act
	for _, a := range acts {
		each = append(each, expand(a)...)
	}
	acts = recorded(p, each)
	p.update(func(s *Status) { s.Acts, s.Lost = s.Acts+len(acts), s.Lost+len(each)-len(acts) })
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	jobs := make(chan job)
	var group sync.WaitGroup
	for range w.workers {
		group.Go(func() {
			for j := range jobs {
				for _, one := range j {
					if err := w.hand(ctx, p, one); err != nil {
						stop(err)
						break
					}
				}
			}
		})
	}
	err := w.pack(ctx, p, c, acts, func(j job) error {
		select {
		case jobs <- j:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(jobs)
	group.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = w.log.fetched(ctx, p)
	}
	return err
}

// pack turns acts into the vendor's deliveries.
func (w *World) pack(ctx context.Context, p *play, c cast, acts []routine.Act, out func(job) error) error {
	var batch []source.Record
	n := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		n++
		one, err := w.wrap(p, "batch/"+acts[0].ID+"/"+strconv.Itoa(n), batch)
		if err != nil {
			return err
		}
		batch = nil
		return out(job{one})
	}
	for _, a := range acts {
		list, err := records(a, c)
		if err != nil {
			return err
		}
		once := len(list)
		if repeated(p, a) {
			list = append(list, list...)
		}
		var j job
		for i, r := range list {
			p.update(func(s *Status) { s.Issued++ })
			switch {
			case r.polled:
				w.log.append(p, r.Body)
			case w.row.Pushed[0].Delivery == nil: // this vendor has no delivery ids, and concatenates records
				batch = append(batch, r.Record)
			default:
				// A repeated record has the id of the first one.
				one, err := w.wrap(p, a.ID+"/"+strconv.Itoa(i%once), []source.Record{r.Record})
				if err != nil {
					return err
				}
				j = append(j, one)
			}
		}
		if len(j) > 0 {
			if err := out(j); err != nil {
				return err
			}
		}
		if len(batch) >= together {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return ctx.Err()
}

// Traces are the vendors' records of acts, in order. An oracle outside the lab computes the expected events from them.
func Traces(company []risk.Person, acts []routine.Act) (map[string][]source.Record, error) {
	c := cast{}
	for _, p := range company {
		c[p.ID] = p
	}
	traces := map[string][]source.Record{}
	var faults []error
	for _, act := range acts {
		for _, a := range expand(act) {
			list, err := records(a, c)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			for _, r := range list {
				traces[string(a.Source)] = append(traces[string(a.Source)], r.Record)
			}
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("trace acts: %w", err)
	}
	return traces, nil
}
