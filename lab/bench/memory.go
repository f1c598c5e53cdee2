package bench

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.org/security-training/services/topology"
)

// memory measures the resident memory of the services' processes while nothing happens, several times, a second apart.
// Simulators, the stand-in for the model and PostgreSQL do not count.
func memory(ctx context.Context, s *stage) (*contest, error) {
	in, err := s.lab(ctx)
	if err != nil {
		return nil, err
	}
	want := 0
	for _, w := range in.topo.Workloads {
		if isService(w.Kind) {
			want++
		}
	}
	return &contest{ours: side{want, func(ctx context.Context) (int, float64, error) {
		select {
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-time.After(time.Second):
		}
		st, err := in.Lab.Status(ctx)
		if err != nil {
			return 0, 0, err
		}
		n, sum := 0, int64(0)
		for _, w := range st.Workloads {
			if !isService(w.Kind) || w.PID == 0 {
				continue
			}
			resident, err := residentBytes(w.PID)
			if err != nil {
				return n, 0, fmt.Errorf("%s: %w", w.Name, err)
			}
			n, sum = n+1, sum+resident
		}
		return n, float64(sum) / 1e6, nil
	}}}, nil
}

// isService says whether workloads of a kind are part of the product.
func isService(kind string) bool {
	switch kind {
	case topology.KindOperator, topology.KindSimulator, topology.KindModel:
		return false
	}
	return true
}

// residentBytes is the resident memory of a process, including shared pages.
func residentBytes(pid int) (int64, error) {
	text := field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
	kilobytes, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the resident memory of process %d: %q", pid, text)
	}
	return kilobytes << 10, nil
}
