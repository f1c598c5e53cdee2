package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.org/security-training/lab"
)

// UpLocal brings labs of local processes up and takes them down, one after the other.
type UpLocal struct {
	// Up brings one up as the command of that name does, from nothing to a page that is served and an event that is
	// scored.
	Up func(context.Context) (lab.Status, error)
	// Again is the same on that lab, where there is nothing to do.
	Again func(context.Context) error
	// Down removes it; that there is none is no error.
	Down func(context.Context) error
	// Floor does what no lab can come up without, and says how many programs it started and how long it took.
	Floor func(context.Context) (int, time.Duration, error)
}

// upLocal: a lab from nothing, with the history that a new one has by default, against copying a database's folder,
// starting its server and starting each program.
func upLocal(ctx context.Context, s *stage) (*contest, error) {
	u := s.up
	if u == nil {
		return nil, fmt.Errorf("%w, and this program cannot bring one up", errNoLab)
	}
	programs, _, err := u.Floor(ctx) // which also makes the template that both copy
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
