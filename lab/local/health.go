package local

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"example.org/security-training/services/topology"
)

// watchHealth asks the health port of every workload, more often while one of them is not ready.
func (s *Supervisor) watchHealth(ctx context.Context) {
	for {
		s.mu.Lock()
		var group sync.WaitGroup
		all := true
		changed := s.changed
		for _, p := range s.processes {
			if p.row.Health == 0 {
				continue
			}
			running := p.cmd != nil
			group.Go(func() {
				ready, why := false, "not running"
				if running {
					ready, why = s.ask(ctx, p.row)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if p.ready != ready {
					p.ready = ready
					s.signal()
				}
				if ready || running {
					p.why = why
				}
			})
		}
		s.mu.Unlock()
		group.Wait()
		s.mu.Lock()
		for _, p := range s.processes {
			all = all && (p.row.Health == 0 || p.ready)
		}
		s.mu.Unlock()
		pause := 25 * time.Millisecond
		if all {
			pause = 500 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if all {
				continue
			}
			<-time.After(pause)
		case <-time.After(pause):
		}
	}
}

func (s *Supervisor) ask(ctx context.Context, w topology.Workload) (bool, string) {
	url := "http://" + net.JoinHostPort(s.settings.Host, strconv.Itoa(w.Health)) + "/ready"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err.Error()
	}
	resp, err := s.probe.Do(req)
	if err != nil {
		return false, "does not answer yet"
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return false, "says that it is not ready"
	}
	return true, ""
}
