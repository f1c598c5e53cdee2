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

// Room is what a lab takes of a machine, in bytes.
type Room struct {
	Disk   uint64 // below the lab's folder, without its programs
	Memory uint64 // that no other program can have meanwhile
}

const (
	kib = 1 << 10
	mib = 1 << 20
	// eventsADay is how many events a person of the company causes in a day: 14,792 by 50 people in 30 days.
	eventsADay = 10
)

// RoomFor is what a lab of so many people and days takes once it has its history. The disk was measured on labs of 2
// people and 1 day (43 MiB), of 50 and 30 (84), of 500 and 30 (598), and of 2,000 and 30 half-way (1,414). The memory
// is what a lab cannot do without, so that none is refused that would run: it takes more where there is more. e2e holds
// both against the lab under test.
func RoomFor(people, days int) Room {
	events := uint64(people) * uint64(days) * eventsADay
	return Room{Disk: 48*mib + events*4*kib, Memory: 160*mib + events*kib}
}

// machine is what there is of a machine. A test gives another.
type machine struct {
	disk     func(dir string) (free uint64, err error) // for the caller, on the file system that dir is on, or would be
	memory   func() (free uint64, err error)           // that can be had without swapping others out, and swap
	sameDisk func(a, b string) bool
}

var thisMachine = machine{disk: diskFree, memory: memoryFree, sameDisk: sameDisk}

// checkRoom says what is missing for the lab of spec in f, before anything is made. Programs are copied where they
// cannot be linked.
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

// mostPeople is the largest company for which there is room, 0 if there is for none.
func mostPeople(spec lab.Spec, disk, memory uint64) int {
	for n := spec.People; n >= 2; n = n * 9 / 10 {
		if need := RoomFor(n, spec.Days); need.Disk <= disk && need.Memory <= memory {
			return n
		}
	}
	return 0
}

// programBytes is how much the programs take where each workload has a copy of its own.
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

// size is a number of bytes for people.
func size(n uint64) string {
	if n < 10<<30 {
		return fmt.Sprintf("%d MiB", n/mib)
	}
	return fmt.Sprintf("%d GiB", n>>30)
}

// parent is dir, or the first folder above it that is there.
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
		return uint64(fi.Sys().(*syscall.Stat_t).Dev), true //nolint:unconvert // its type is another on macOS
	}
	x, okX := device(a)
	y, okY := device(b)
	return okX && okY && x == y
}

// memoryFree is MemAvailable and the free swap of /proc/meminfo, or what this process's control group has left, if that
// is less.
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

// groupLeft is what a control group (version 2) may still take, as a container has one: its limit, without what it uses
// and would not give back. limited is false where there is no limit.
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
	// asGoodAsFull is how little free space is none: PostgreSQL writes its log of changes in files of 16 MiB.
	asGoodAsFull = 2 * mib
	// fullTimes is how often in a row a disk must be full before what waits for it is ended.
	fullTimes = 5
	// little is how little space is free where a log that says so has the cause.
	little = 64 * mib
)

// ErrDiskFull is the cause of a failure when the disk that a lab is on has become full.
var ErrDiskFull = fmt.Errorf("the disk is full: %w", syscall.ENOSPC)

// OnDisk does what needs the disk that the lab in f is on. A disk that becomes full ends it after five seconds, and is
// the cause that its error names.
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

// watchDisk returns a context that ends, with ErrDiskFull as its cause, once the disk of dir has been full five times
// in a row.
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

// whyFull gives err as what a full disk caused, if that is what it is: there is no space left where the lab's folder
// is, or little, and one of its logs has said so since began. Else it returns err as it is, and so it does what the
// caller alone can mend.
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
	came := err.Error() // its own exit code is not this one's
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

// saidFull is the log of a lab in which it stands, since a time, that there is no space left; "" if there is none.
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

// saysFull says whether a text is, or has, the words of the error of a full disk, in Go's or in PostgreSQL's letters.
func saysFull(text string) bool {
	return strings.Contains(strings.ToLower(text), syscall.ENOSPC.Error())
}
