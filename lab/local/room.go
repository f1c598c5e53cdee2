package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

// Room is what a lab needs of a machine, in bytes.
type Room struct {
	Disk   uint64 // in the lab's folder, without its programs
	Memory uint64 // that must be free for the lab alone
}

const (
	kib = 1 << 10
	mib = 1 << 20
	// eventsADay is how many events one person of the company causes in a day: 14,792 by 50 people in 30 days.
	eventsADay = 10
)

// RoomFor is what a lab of so many people and days needs once it has its history. The disk space was measured on labs
// of 2 people and 1 day (43 MiB), of 50 and 30 (84), of 500 and 30 (598), and half-way of 2,000 and 30 (1,414). The
// memory is the least with which a lab runs, so that no lab is refused that would run; labs use more if there is more.
// An e2e test compares both with the lab under test.
func RoomFor(people, days int) Room {
	events := uint64(people) * uint64(days) * eventsADay
	return Room{Disk: 48*mib + events*4*kib, Memory: 160*mib + events*kib}
}

// machine is the free space of a machine. Tests have their own.
type machine struct {
	disk     func(dir string) (free uint64, err error) // for the caller, where dir is or would be
	memory   func() (free uint64, err error)           // available without swapping others out, plus free swap
	sameDisk func(a, b string) bool
}

var thisMachine = machine{disk: diskFree, memory: memoryFree, sameDisk: sameDisk}

// checkRoom returns an error if there is no room for the lab of spec in f, before anything is made. Programs need room
// if they have to be copied because they cannot be linked.
func (r *Runtime) checkRoom(m machine, f folder, spec lab.Spec) error {
	need := RoomFor(spec.People, spec.Days)
	var err error
	var programs uint64
	if !m.sameDisk(r.Binaries, string(f.StateDir)) {
		if programs, err = programBytes(r.Binaries); err != nil {
			return fmt.Errorf("measure the programs: %w", err)
		}
	}
	disk, err := m.disk(string(f.StateDir))
	if err != nil {
		return fmt.Errorf("measure the free disk space: %w", err)
	}
	memory, err := m.memory()
	if err != nil {
		return fmt.Errorf("measure the free memory: %w", err)
	}
	var faults []error
	company := fmt.Sprintf("%d people and %d days of history", spec.People, spec.Days)
	if take := need.Disk + programs; disk < take {
		faults = append(
			faults,
			fmt.Errorf("%s take %s of disk below %s, and %s are free", company, size(take), f.StateDir, size(disk)),
		)
	}
	if memory < need.Memory {
		faults = append(
			faults,
			fmt.Errorf("%s take %s of memory, and %s are free", company, size(need.Memory), size(memory)),
		)
	}
	if len(faults) == 0 {
		return nil
	}
	try := "df -h " + filepath.Dir(string(f.StateDir)) + ", free -h   (and make room"
	if n := mostPeople(spec, disk-min(disk, programs), memory); n > 0 {
		try = fmt.Sprintf(
			"lab up --people %d --days %d --name %s   (or make room: df -h, free -h",
			n,
			spec.Days,
			spec.Name,
		)
	}
	return &lab.Error{
		Code: lab.ExitPrecondition,
		What: "look for room for the lab",
		Why:  errors.Join(faults...),
		Try:  try + "; LAB_HOME names a folder on another disk)",
	}
}

// mostPeople is the largest company for which there is room, or 0.
func mostPeople(spec lab.Spec, disk, memory uint64) int {
	for n := spec.People; n >= 2; n = n * 9 / 10 {
		if need := RoomFor(n, spec.Days); need.Disk <= disk && need.Memory <= memory {
			return n
		}
	}
	return 0
}

// programBytes is the size of the programs if each workload has its own copy.
func programBytes(binaries string) (n uint64, err error) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		return 0, err
	}
	for _, w := range topo.Workloads {
		if w.Binary == "" {
			continue
		}
		fi, err := os.Stat(filepath.Join(binaries, w.Binary))
		if err != nil {
			return 0, err
		}
		n += uint64(fi.Size())
	}
	return n, nil
}

// size writes a number of bytes for people.
func size(n uint64) string {
	if n < 10<<30 {
		return fmt.Sprintf("%d MiB", n/mib)
	}
	return fmt.Sprintf("%d GiB", n>>30)
}

// parent is dir, or the first folder above it that exists.
func parent(dir string) (string, error) {
	for {
		_, err := os.Stat(dir)
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir, err
		}
		dir = filepath.Dir(dir)
	}
}

func diskFree(dir string) (uint64, error) {
	dir, err := parent(dir)
	if err != nil {
		return 0, err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}

func sameDisk(a, b string) bool {
	device := func(dir string) (uint64, bool) {
		dir, err := parent(dir)
		if err != nil {
			return 0, false
		}
		fi, err := os.Stat(dir)
		if err != nil {
			return 0, false
		}
		return uint64(fi.Sys().(*syscall.Stat_t).Dev), true //nolint:unconvert // the field has another type on macOS
	}
	x, okX := device(a)
	y, okY := device(b)
	return okX && okY && x == y
}

// memoryFree is MemAvailable plus the free swap of /proc/meminfo, or what this process's control group may still use if
// that is less.
func memoryFree() (uint64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	free, err := meminfo(f)
	if err != nil {
		return 0, err
	}
	if left, limited := groupLeft("/sys/fs/cgroup"); limited {
		free = min(free, left)
	}
	return free, nil
}

// meminfo reads proc_meminfo(5).
func meminfo(r io.Reader) (uint64, error) {
	var free uint64
	found := false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || words[0] != "MemAvailable:" && words[0] != "SwapFree:" {
			continue
		}
		n, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/meminfo: %w", err)
		}
		free += n * kib
		found = found || words[0] == "MemAvailable:"
	}
	if err := lines.Err(); err != nil || !found {
		return 0, errors.Join(errors.New("read /proc/meminfo: it does not say MemAvailable"), err)
	}
	return free, nil
}

// groupLeft is the memory that a control group (version 2), as containers have, may still use: its limit minus what it
// uses and cannot reclaim. Limited is false if there is no limit.
func groupLeft(dir string) (left uint64, limited bool) {
	number := func(name string) (uint64, bool) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		return n, err == nil // "max" is no limit
	}
	most, ok1 := number("memory.max")
	used, ok2 := number("memory.current")
	if !ok1 || !ok2 {
		return 0, false
	}
	stat, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(stat)) {
		if text, is := strings.CutPrefix(strings.TrimSpace(line), "inactive_file "); is {
			if n, err := strconv.ParseUint(text, 10, 64); err == nil {
				used -= min(used, n)
			}
		}
	}
	return most - min(most, used), true
}

const (
	// asGoodAsFull is the free space at which a disk counts as full: PostgreSQL writes its WAL in files of 16 MiB.
	asGoodAsFull = 2 * mib
	// fullTimes is how many times in a row a disk must be full before the waiting ends.
	fullTimes = 5
	// little is the free space below which a log that reports a full disk is believed.
	little = 64 * mib
)

// ErrDiskFull is the cause of a failure when the disk that a lab is on has become full.
var ErrDiskFull = fmt.Errorf("the disk is full: %w", syscall.ENOSPC)

// OnDisk calls do, which writes to the disk of the lab in f. If that disk stays full for five seconds, the context of
// do ends, and the error names the full disk as the cause.
func OnDisk(ctx context.Context, f control.StateDir, do func(context.Context) error) error {
	return onDisk(ctx, thisMachine, f, time.Second, do)
}

func onDisk(
	ctx context.Context,
	m machine,
	f control.StateDir,
	every time.Duration,
	do func(context.Context) error,
) error {
	began := time.Now()
	watched, stop := watchDisk(ctx, m, string(f), every)
	defer stop()
	err := do(watched)
	if err != nil && errors.Is(context.Cause(watched), ErrDiskFull) {
		err = fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return whyFull(m, err, f, began)
}

// watchDisk returns a context that ends, with ErrDiskFull as its cause, once the disk of dir was full five times in a
// row.
func watchDisk(ctx context.Context, m machine, dir string, every time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for full := 0; full < fullTimes; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if free, err := m.disk(dir); err == nil && free < asGoodAsFull {
				full++
			} else {
				full = 0
			}
		}
		cancel(ErrDiskFull)
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// whyFull returns err as the result of a full disk, if the disk of the lab's folder has no space left, or has little
// and one of the lab's logs has reported a full disk since began. Otherwise it returns err unchanged. It also returns
// errors unchanged that only the caller can mend.
func whyFull(m machine, err error, f control.StateDir, began time.Time) error {
	var known *lab.Error
	if err == nil || errors.As(err, &known) && (known.Code == lab.ExitUsage || known.Code == lab.ExitConflict) {
		return err
	}
	free, unknown := m.disk(string(f))
	if unknown != nil {
		return err
	}
	said := ""
	if free < little {
		said = saidFull(f, began)
	}
	if !lab.DiskFull(err) && !saysFull(err.Error()) && said == "" && free >= asGoodAsFull {
		return err
	}
	came := err.Error() // a full disk has an exit code of its own
	e := &lab.Error{
		Code: lab.ExitPrecondition,
		What: "use the lab in " + string(f),
		Why:  fmt.Errorf("%w: %s are free; what came of it: %s", ErrDiskFull, size(free), came),
		Try:  "df -h " + string(f) + "   (make room there, then lab up)",
	}
	if said != "" {
		e.Log, e.Last = said, control.LastLines(said, 3)
	}
	return e
}

// saidFull returns the log of a lab that has reported a full disk since the given time, or "".
func saidFull(f control.StateDir, since time.Time) string {
	logs, err := filepath.Glob(filepath.Join(f.Logs(), "*.log"))
	if err != nil {
		return ""
	}
	for _, path := range append(logs, f.Log()) {
		fi, err := os.Stat(path)
		if err != nil || fi.ModTime().Before(since) {
			continue
		}
		if saysFull(control.LastLines(path, 50)) {
			return path
		}
	}
	return ""
}

// saysFull says whether a text has the error message of a full disk, from Go or from PostgreSQL.
func saysFull(text string) bool {
	return strings.Contains(strings.ToLower(text), syscall.ENOSPC.Error())
}
