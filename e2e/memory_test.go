package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"example.org/security-training/services/env/needtest"
)

// memoryHolds says whether the key is in a process's writable memory.
func memoryHolds(t *testing.T, pid int) bool {
	t.Helper()
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		needtest.Lacks(t, needtest.Memory, "the memory of another process cannot be read here: %v", err)
	}
	defer mem.Close()
	scan := bufio.NewScanner(maps)
	buf := make([]byte, 1<<20)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		var from, to int64
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &from, &to); err != nil || !strings.HasPrefix(fields[1], "rw") {
			continue
		}
		for at := from; at < to; at += int64(len(buf)) - int64(len(canary)) {
			n, err := mem.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
			if bytes.Contains(buf[:n], []byte(canary)) {
				return true
			}
			if err != nil {
				break
			}
		}
	}
	return false
}
