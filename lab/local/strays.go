package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.org/security-training/lab/control"
)

// A process number does not identify a process, because the kernel uses numbers again. A process belongs to the lab if
// it has a uid that only this lab has; if its number and its start time are those that the supervisor recorded; if its
// environment has the mark of the lab; or if its parent belongs to the lab. The supervisor adopts the processes that a
// workload leaves behind, so they keep a parent that belongs to the lab.

// uidsPerLab is how many uids a lab has for its workloads.
const uidsPerLab = 64

// mark is the variable that names the lab's folder to every process of it.
const mark = "SECURITY_TRAINING_PROCESS_OF"

// birth identifies a process among all that ever have the same number.
type birth struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // clock ticks after boot, proc_pid_stat(5)
}

// roster is the supervisor's record of its processes, for a `down` after the supervisor was killed.
type roster struct {
	Supervisor int              `json:"supervisor"`
	Boot       string           `json:"boot"` // the kernel's ID of this boot
	Processes  map[string]birth `json:"processes"`
}

// kernelProcess is the kernel's information about a running process.
type kernelProcess struct {
	birth
	parent  int
	threads int    // including threads that have ended and were not waited for
	uids    [4]int // real, effective, saved, of the file system
}

// bootID is the kernel's ID of this boot, or "" if there is none.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// processNumbers returns the numbers of all processes, or none if there is no /proc.
func processNumbers() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	out := make([]int, 0, len(entries))
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// kernelProcesses returns all running processes. It leaves out zombies, which have ended and were not waited for.
func kernelProcesses() map[int]kernelProcess {
	out := map[int]kernelProcess{}
	for _, pid := range processNumbers() {
		if p, ok := kernelProcessOf(pid); ok {
			out[pid] = p
		}
	}
	return out
}

// kernelProcessOf returns false if the process does not run.
func kernelProcessOf(pid int) (kernelProcess, bool) {
	p, state := statOf(pid)
	ended := state == "Z" || state == "X"
	if state == "" || ended && p.threads < 2 { // the first thread has ended, but others still run
		return p, false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return p, false
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			for i, f := range strings.Fields(rest) {
				if i < len(p.uids) {
					p.uids[i], _ = strconv.Atoi(f)
				}
			}
		}
	}
	return p, true
}

// statOf reads proc_pid_stat(5): birth, parent and state. The state is "" if there is no such process.
func statOf(pid int) (kernelProcess, string) {
	p := kernelProcess{birth: birth{PID: pid}}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, ""
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // from field 3, the state, on
	if len(fields) < 20 {
		return p, ""
	}
	p.parent, _ = strconv.Atoi(fields[1])
	p.threads, _ = strconv.Atoi(fields[17])
	p.Started = fields[19]
	return p, fields[0]
}

// zombies returns the children of parent that have ended and were not waited for.
func zombies(parent int) []int {
	var out []int
	for _, pid := range processNumbers() {
		if p, state := statOf(pid); state == "Z" && p.parent == parent {
			out = append(out, pid)
		}
	}
	return out
}

// has says whether one of p's uids is in the block of a lab that begins at first.
func (p kernelProcess) has(first int) bool {
	return slices.ContainsFunc(p.uids[:], func(uid int) bool { return uid >= first && uid < first+uidsPerLab })
}

// marked says whether p was started with the mark of the lab in folder.
func (p kernelProcess) marked(folder string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
	return err == nil &&
		slices.ContainsFunc(bytes.Split(b, []byte{0}), func(v []byte) bool { return string(v) == mark+"="+folder })
}

// survivors returns the running processes of the lab in f, without the caller. Uids is the first uid of its workloads,
// or 0.
func survivors(f folder, uids int) []kernelProcess {
	all := kernelProcesses()
	known := readRoster(f)
	births := slices.Collect(maps.Values(known.Processes))
	if known.Boot != bootID() {
		births = nil
	}
	ours := map[int]bool{}
	for pid, p := range all {
		if uids != 0 && p.has(uids) || slices.Contains(births, p.birth) || p.marked(string(f.StateDir)) {
			ours[pid] = true
		}
	}
	var out []kernelProcess
	for pid, p := range all {
		// The way up ends at 0. It is limited, because the list was not made in one moment and may have cycles.
		for up, steps := p, 0; steps < len(all) && !ours[pid]; steps++ {
			ours[pid] = ours[up.parent]
			up = all[up.parent]
			if up.PID == 0 {
				break
			}
		}
		if ours[pid] && pid != os.Getpid() {
			out = append(out, p)
		}
	}
	return out
}

// patience is how long processes may take to end after SIGKILL.
const patience = 10 * time.Second

// endStrays ends every running process of the lab in f except the caller. The error names those that did not end.
func endStrays(f folder) error {
	var st settings
	if err := f.Read(&st); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var uids []int
	if st.UIDs != 0 {
		for i := range uidsPerLab {
			uids = append(uids, st.UIDs+i)
		}
	}
	return endAll(uids, func() []kernelProcess { return survivors(f, st.UIDs) })
}

// endAll kills every process of uids, which must be the lab's alone, and the processes that list returns, until it
// returns none. No list can have a process that keeps forking and ending; killing by uid ends it.
func endAll(uids []int, list func() []kernelProcess) error {
	killUsers(uids)
	late := time.After(patience)
	for round := 0; ; round++ {
		left := list()
		if len(left) == 0 {
			return nil
		}
		for _, p := range left {
			if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("end process %d: %w", p.PID, err)
			}
		}
		if round >= 3 { // they may fork faster than they can be listed
			killUsers(usersOf(left))
		}
		select {
		case <-late:
			return fmt.Errorf("end process %d: it still runs %s after it was killed", left[0].PID, patience)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// usersOf returns the uids of a list of processes that no other process has. It excludes, for example, the database's
// uid and the caller's.
func usersOf(list []kernelProcess) []int {
	listed, shared := map[int]bool{}, map[int]bool{}
	for _, p := range list {
		listed[p.PID] = true
	}
	for _, p := range kernelProcesses() {
		for _, uid := range p.uids {
			shared[uid] = shared[uid] || !listed[p.PID]
		}
	}
	var uids []int
	for _, p := range list {
		if uid := p.uids[0]; !shared[uid] && !slices.Contains(uids, uid) {
			uids = append(uids, uid)
		}
	}
	return uids
}

// endUser ends every process of a workload's own uid.
func endUser(who account) error {
	return endAll([]int{who.uid}, func() (left []kernelProcess) {
		for _, p := range kernelProcesses() {
			if slices.Contains(p.uids[:], who.uid) {
				left = append(left, p)
			}
		}
		return left
	})
}

// freeUIDs returns the first uid of a block for the workloads of the lab on host. The block is far from the uids of
// people and packages, belongs to no other lab in the same home, and no running process has one of its uids.
func freeUIDs(host, home string) (int, error) {
	n, err := strconv.Atoi(host[strings.LastIndexByte(host, '.')+1:]) // the host is one of our 127.0.0.n
	if err != nil {
		return 0, fmt.Errorf("choose uids: %w", err)
	}
	taken := map[int]bool{}
	others, err := filepath.Glob(filepath.Join(home, "*", "lab.json"))
	if err != nil {
		return 0, fmt.Errorf("choose uids: %w", err)
	}
	for _, path := range others {
		var st settings
		if err := control.StateDir(filepath.Dir(path)).Read(&st); err == nil {
			taken[st.UIDs] = true
		}
	}
	all := slices.Collect(maps.Values(kernelProcesses()))
	const first, last = 2_000_000_000 / uidsPerLab * uidsPerLab, 1<<31 - 1
	for uids := first + uidsPerLab*n; uids+uidsPerLab <= last; uids += uidsPerLab * 256 {
		used := slices.ContainsFunc(all, func(p kernelProcess) bool { return p.has(uids) })
		if !used && !taken[uids] {
			return uids, nil
		}
	}
	return 0, errors.New("choose uids: processes of other labs have all of them")
}

// readRoster reads the supervisor's record. It is empty if there is none.
func readRoster(f folder) roster {
	var r roster
	b, err := os.ReadFile(f.processes())
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return roster{}
	}
	return r
}

// remembered returns the numbers of the processes in the supervisor's record.
func remembered(f folder) map[string]int {
	pids := map[string]int{}
	for name, b := range readRoster(f).Processes {
		pids[name] = b.PID
	}
	return pids
}

// awaitEnd waits until there is no process pid.
func awaitEnd(ctx context.Context, pid int, patience time.Duration) error {
	if pid == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for running(pid) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d still runs: %w", pid, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// running says whether pid runs. A zombie does not.
func running(pid int) bool {
	_, ok := kernelProcessOf(pid)
	return ok
}
