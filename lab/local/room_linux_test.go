package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
)

// with is a machine with one disk.
func with(disk, memory uint64) machine {
	return machine{
		disk:     func(string) (uint64, error) { return disk, nil },
		memory:   func() (uint64, error) { return memory, nil },
		sameDisk: func(string, string) bool { return true },
	}
}

func TestALabIsRefusedOnlyWhereThereIsNoRoomForItAndSaysWhatIsMissing(t *testing.T) {
	r, f := &Runtime{}, folder{control.StateDir("/labs/one")}
	small, large := lab.Spec{Name: "one", People: 50, Days: 30}, lab.Spec{Name: "one", People: 5000, Days: 90}
	for _, c := range []struct {
		spec         lab.Spec
		disk, memory uint64
		says         []string
	}{
		{small, 200 * mib, 512 * mib, nil},
		{small, 40 * mib, 512 * mib, []string{
			"50 people and 30 days of history take 106 MiB of disk below /labs/one, and 40 MiB are free", "df -h",
		}},
		{small, 200 * mib, 100 * mib, []string{"MiB of memory, and 100 MiB are free", "free -h"}},
		{large, 64 << 30, 64 << 30, nil},
		{large, 4 << 30, 8 << 30, []string{
			"5000 people and 90 days of history take 17 GiB of disk", "lab up --people 1",
		}},
		{large, 10 * mib, 10 * mib, []string{"of disk", "of memory"}},
	} {
		err := r.checkRoom(with(c.disk, c.memory), f, c.spec)
		var e *lab.Error
		if len(c.says) == 0 != (err == nil) || err != nil && (!errors.As(err, &e) || e.Code != lab.ExitPrecondition) {
			t.Errorf("%+v on %s of disk and %s of memory: %v", c.spec, size(c.disk), size(c.memory), err)
		}
		for _, want := range c.says {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("want %q in\n%v", want, err)
			}
		}
	}
	// The size that the error suggests has room.
	if n := mostPeople(large, 4<<30, 8<<30); n < 2 || RoomFor(n, 90).Disk > 4<<30 || RoomFor(n*5/4, 90).Disk < 4<<30 {
		t.Errorf("there is room for %d people in 4 GiB", n)
	}
}

// Programs take room if they are on another disk.
func TestProgramsOnAnotherDiskTakeRoom(t *testing.T) {
	dir := t.TempDir()
	m := with(110*mib, 1<<30)
	spec, f := lab.Spec{Name: "one", People: 50, Days: 30}, folder{control.StateDir("/labs/one")}
	for _, name := range []string{"collector", "dbkeeper", "llmgateway", "lms", "riskscorer", "stubgemini", "world"} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(file.Truncate(20*mib), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	r := &Runtime{Binaries: dir}
	if err := r.checkRoom(m, f, spec); err != nil {
		t.Errorf("programs that are linked take none: %v", err)
	}
	m.sameDisk = func(string, string) bool { return false }
	if err := r.checkRoom(m, f, spec); err == nil {
		t.Error("programs that are copied take none")
	}
}

func TestFreeMemoryIsReadAsTheKernelSaysIt(t *testing.T) {
	got, err := meminfo(
		strings.NewReader("MemTotal:  100 kB\nMemAvailable:   70 kB\nSwapTotal: 9 kB\nSwapFree:        5 kB\n"),
	)
	if err != nil || got != 75*kib {
		t.Errorf("%d, %v; want %d", got, err, 75*kib)
	}
	if _, err := meminfo(strings.NewReader("MemTotal:  100 kB\n")); err == nil {
		t.Error("no MemAvailable is no error")
	}
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, limited := groupLeft(dir); limited {
		t.Error("where there is no control group there is a limit")
	}
	write("memory.max", "max\n")
	write("memory.current", "600\n")
	write("memory.stat", "anon 300\ninactive_file 200\n")
	if _, limited := groupLeft(dir); limited {
		t.Error("max is a limit")
	}
	write("memory.max", "1000\n")
	if left, limited := groupLeft(dir); !limited || left != 600 {
		t.Errorf("%d, %v; want 600: what is in inactive_file would be given back", left, limited)
	}
	for name, f := range map[string]func() (uint64, error){
		"disk": func() (uint64, error) { return diskFree("/no/such/folder") }, "memory": memoryFree,
	} {
		if n, err := f(); err != nil || n == 0 {
			t.Errorf("this machine's free %s: %d, %v", name, n, err)
		}
	}
}

// A disk that becomes full ends the waiting and is the cause. A disk that is full for a moment does not.
func TestADiskThatIsFullEndsWhatWaitsAndIsTheCause(t *testing.T) {
	f := control.StateDir(t.TempDir())
	free := uint64(1 << 30)
	asked := make(chan uint64)
	m := with(0, 0)
	m.disk = func(string) (uint64, error) {
		select {
		case free = <-asked:
		default:
		}
		return free, nil
	}
	waits := func(ctx context.Context) error {
		<-ctx.Done()
		return fmt.Errorf("wait for the scorer: %w", ctx.Err())
	}
	go func() { asked <- 0 }()
	err := onDisk(t.Context(), m, f, time.Millisecond, waits)
	var e *lab.Error
	if !errors.As(err, &e) || e.Code != lab.ExitPrecondition || !errors.Is(err, syscall.ENOSPC) ||
		!strings.Contains(err.Error(), "the disk is full") ||
		!strings.Contains(err.Error(), "df -h") {
		t.Errorf("%v", err)
	}

	looks := 0
	m.disk = func(string) (uint64, error) { // full until the waiting ended, then not any more
		if looks++; looks <= fullTimes {
			return 0, nil
		}
		return 1 << 30, nil
	}
	if err := onDisk(t.Context(), m, f, time.Millisecond, waits); !errors.As(err, &e) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("where there is room again: %v", err)
	}

	turns := 0
	m.disk = func(string) (uint64, error) { // full four times in a row
		turns++
		if turns%5 != 0 {
			return 0, nil
		}
		return 1 << 30, nil
	}
	ended := make(chan struct{})
	err = onDisk(t.Context(), m, f, time.Millisecond, func(ctx context.Context) error {
		defer close(ended)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond): // some tens of checks
			return nil
		}
	})
	if <-ended; err != nil {
		t.Errorf("a disk that was full for moments: %v", err)
	}
}

// An error with another reason stays as it is; one that a log explains by a full disk does not.
func TestOnlyAFullDiskIsTheCauseOfAFullDisksFailures(t *testing.T) {
	f := control.StateDir(t.TempDir())
	if err := os.Mkdir(f.Logs(), 0o700); err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-time.Minute)
	timeout := &lab.Error{Code: lab.ExitTimeout, What: "wait for the scorer", Why: context.DeadlineExceeded}
	usage := &lab.Error{Code: lab.ExitUsage, What: "make a link", Why: errors.New("no one")}
	code := func(err error) int {
		var e *lab.Error
		if errors.As(err, &e) {
			return e.Code
		}
		return 0
	}
	if err := whyFull(with(1<<30, 0), timeout, f, began); code(err) != lab.ExitTimeout {
		t.Errorf("with room: %v", err)
	}
	if err := whyFull(with(mib, 0), usage, f, began); code(err) != lab.ExitUsage {
		t.Errorf("the caller's mistake: %v", err)
	}
	full := &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	said := errors.New("initdb: could not write: No space left on device")
	for name, err := range map[string]error{
		"no room":         whyFull(with(mib, 0), timeout, f, began),
		"ENOSPC":          whyFull(with(1<<30, 0), full, f, began),
		"a program's say": whyFull(with(1<<30, 0), said, f, began),
	} {
		if code(err) != lab.ExitPrecondition || !strings.Contains(err.Error(), "the disk is full") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(
		f.WorkloadLog("postgres"),
		[]byte("PANIC:  could not write: No space left on device\n"),
		0o600,
	); err != nil {
		t.Fatal(err)
	}
	if err := whyFull(
		with(32*mib, 0),
		timeout,
		f,
		began,
	); code(err) != lab.ExitPrecondition ||
		!strings.Contains(err.Error(), "could not write") {
		t.Errorf("the database's log says it: %v", err)
	}
	if err := whyFull(with(32*mib, 0), timeout, f, time.Now().Add(time.Minute)); code(err) != lab.ExitTimeout {
		t.Errorf("a log of before: %v", err)
	}
}
