package audit

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"example.org/security-training/services/env"
)

// limited has this test's program append to the file that it names, under a limit of the file's length.
const limited = "AUDIT_TEST_APPENDS_UNDER_A_LIMIT_TO"

// A disk that fills up takes the first part of what is written. Half a checkpoint must not stay: the next one would be
// appended to it.
func TestCheckpointsThatTheDiskTakesOnlyAPartOfAreNotThere(t *testing.T) {
	if path, is := env.Process(limited); is {
		signal.Ignore(syscall.SIGXFSZ)
		const most = 100
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
			t.Fatal(err)
		}
		if err := appendWhole(path, bytes.Repeat([]byte("second\n"), 20)); !errors.Is(err, syscall.EFBIG) {
			t.Errorf("%v, want that the file is too large", err)
		}
		return
	}
	path := filepath.Join(t.TempDir(), "checkpoints")
	first := bytes.Repeat([]byte("first\n"), 10)
	if err := appendWhole(path, first); err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(child.Environ(), limited+"="+path)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, first) {
		t.Errorf("the file holds %q, %v; want only what was there before", text, err)
	}
}
