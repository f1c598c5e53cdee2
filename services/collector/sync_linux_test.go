package collector

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/source"
)

// unwritten is how many pages of the file at path the kernel has yet to write to the disk.
func unwritten(t testing.TB, path string) uint64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var pages unix.Cachestat_t
	if err := unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &pages, 0); err != nil {
		needtest.Lacks(t, needtest.PageCache, "cachestat(2): %v", err)
	}
	return pages.Dirty + pages.Writeback
}

// A process that is killed loses nothing of a file, a machine that is: so the kernel is asked whether all of the file
// has reached the disk at the moment of the answer.
func TestWhatIsAnsweredIsOnTheDiskAlready(t *testing.T) {
	c := start(t, activity.Git, 1000)
	path := c.spool.db.Path()
	other := filepath.Join(filepath.Dir(path), "unsynced")
	if err := os.WriteFile(other, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if unwritten(t, other) == 0 {
		needtest.Lacks(t, needtest.PageCache, "%s has no disk behind it", filepath.Dir(path))
	}
	for i := range 10 {
		want(t, send(c, fmt.Sprint("d", i), push(fmt.Sprint("sha", i))), http.StatusAccepted)
		if n := unwritten(t, path); n != 0 {
			t.Fatalf("delivery %d is answered while %d pages of the spool are not on the disk", i+1, n)
		}
	}
	page := []source.Record{{Kind: "ping", Body: []byte(`{}`)}}
	if _, _, err := c.spool.acceptPage(t.Context(), page, "/next"); err != nil {
		t.Fatal(err)
	}
	if n := unwritten(t, path); n != 0 {
		t.Errorf("a page counts as taken while %d pages of the spool are not on the disk", n)
	}
}
