//go:build unix

package bench

import (
	"fmt"
	"runtime"
	"syscall"
	"time"
)

// perCore runs do on one core, and returns how many things it did in a second of this process's CPU time. Garbage
// collection counts; waiting for a busy machine does not.
func perCore(do func() (int, error)) (int, float64, error) {
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	begin, err := processorTime()
	if err != nil {
		return 0, 0, err
	}
	n, err := do()
	if err != nil {
		return n, 0, err
	}
	end, err := processorTime()
	return n, float64(n) / (end - begin).Seconds(), err
}

// processorTime returns the CPU time of all threads of this process.
func processorTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
