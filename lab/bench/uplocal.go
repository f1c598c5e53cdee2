package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/security-training/lab"
)

// UpLocal brings up labs of local processes and takes them down, one after the other.
type UpLocal struct {
	// Up brings a lab up as `lab up` does, from nothing until a page is served and an event is scored.
	Up func(context.Context) (lab.Status, error)
	// Again does the same once more, when there is nothing to do.
	Again func(context.Context) error
	// Down removes the lab. It is no error if there is none.
	Down func(context.Context) error
	// Floor does only what no lab can come up without. It returns how many programs it started and how long it took.
	Floor func(context.Context) (int, time.Duration, error)
}

// upLocal compares bringing up a lab, with its default history, with copying a database's folder, starting its server
// and starting each program.
func upLocal(ctx context.Context, s *stage) (*contest, error) {
	u := s.up
	if u == nil {
		return nil, fmt.Errorf("%w, and this program cannot bring one up", errNoLab)
	}
	programs, _, err := u.Floor(ctx) // makes the template that both sides copy
	if err != nil {
		return nil, err
	}
	var again []float64
	return &contest{
		ours: side{programs, func(ctx context.Context) (n int, seconds float64, err error) {
			defer func() {
				down, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
				defer cancel()
				err = errors.Join(err, u.Down(down))
			}()
			begin := time.Now()
			st, err := u.Up(ctx)
			if err != nil {
				return 0, 0, err
			}
			seconds = time.Since(begin).Seconds()
			begin = time.Now()
			if err := u.Again(ctx); err != nil {
				return 0, 0, err
			}
			again = append(again, time.Since(begin).Seconds()*1000)
			for _, w := range st.Workloads {
				if w.Ready {
					n++
				}
			}
			if !st.Seeded || !st.Healthy {
				return 0, 0, &shortfall{"the lab is not healthy, or has no history"}
			}
			return n, seconds, nil
		}},
		peer: &side{programs, func(ctx context.Context) (int, float64, error) {
			n, took, err := u.Floor(ctx)
			return n, took.Seconds(), err
		}},
		notes: func() []Note { return []Note{{"a second up, with nothing to do", "ms", median(again[1:])}} },
	}, nil
}
