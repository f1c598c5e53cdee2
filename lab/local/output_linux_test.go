package local

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/security-training/services/env/needtest"
)

func TestALogIsTurnedBetweenLinesAndTheOneBeforeIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	for i := range 100 {
		for _, part := range []string{fmt.Sprintf("line %d of", i), " a talkative process\n"} {
			all.WriteString(part)
			if n, err := l.Write([]byte(part)); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
	}
	before, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	now, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(before) < 1000 || len(before) > 1100 || len(now) > 1100 || !strings.HasPrefix(string(now), "line ") ||
		!bytes.HasSuffix(all.Bytes(), append(before, now...)) {
		t.Errorf("before: %d bytes, now: %d, from %.20q", len(before), len(now), now)
	}
	again, err := openLog(path, 1000)
	if err != nil || again.size != int64(len(now)) {
		t.Errorf("opened again: %+v, %v", again, err)
	}
}

func TestALineWithoutEndTurnsTheLogAsWell(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		_, _ = l.Write([]byte(strings.Repeat("x", 100)))
	}
	for _, name := range []string{path, path + ".1"} {
		if fi, err := os.Stat(name); err != nil || fi.Size() > 2100 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
}

func TestALogThatIsALinkIsNotOpened(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "victim"), filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	if _, err := openLog(filepath.Join(dir, "log"), 1000); err == nil {
		t.Error("it was opened")
	}
	if _, err := os.Lstat(filepath.Join(dir, "victim")); !os.IsNotExist(err) {
		t.Errorf("what it points to was made: %v", err)
	}
}

// A full disk does not block a process, and the missing bytes are counted.
func TestWhatALogCouldNotTakeIsCounted(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		needtest.Lacks(t, needtest.DevFull, "%v", err)
	}
	defer full.Close()
	path := filepath.Join(t.TempDir(), "log")
	l, err := openLog(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	disk := l.file
	l.file = full
	for range 3 {
		if n, err := l.Write([]byte("12345\n")); n != 6 || err != nil {
			t.Fatal(n, err)
		}
	}
	l.file = disk
	_, _ = l.Write([]byte("again\n"))
	text, err := os.ReadFile(path)
	if want := "\n(18 bytes of this log could not be written)\nagain\n"; err != nil || string(text) != want {
		t.Errorf("%q, %v, want %q", text, err, want)
	}
}

// A file that cannot be opened, for example for lack of descriptors, is opened later.
func TestALogThatCouldNotBeTurnedGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := openLog(filepath.Join(dir, "log"), 10)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = l.Write([]byte("the first line\n"))
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	_, _ = l.Write([]byte("lost\n"))
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	_, _ = l.Write([]byte("again\n"))
	text, err := os.ReadFile(l.path)
	if want := "(5 bytes of this log could not be written)\nagain\n"; err != nil ||
		!strings.HasSuffix(string(text), want) {
		t.Errorf("%q, %v", text, err)
	}
}
