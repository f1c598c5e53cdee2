package control

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"example.org/security-training/lab"
	"example.org/security-training/services/env"
	"example.org/security-training/services/env/needtest"
)

// sourceTree is a copy of services/lms/site in a folder that only its owner can write. The clone may be elsewhere.
func sourceTree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(needtest.PrivateDir(t), "site")
	if err := os.CopyFS(dir, os.DirFS("../../services/lms/site")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func exitOf(err error) int {
	var e *lab.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

func devDirOf(dir string) env.Lookup { return env.Map(map[string]string{"LMS_DEV_DIR": dir}) }

func TestPagesAreReadFromAFolderThatOnlyItsOwnerCanChange(t *testing.T) {
	open := filepath.Join(t.TempDir(), "site")
	if err := os.CopyFS(open, os.DirFS(sourceTree(t))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil { //nolint:gosec // it is to be refused
		t.Fatal(err)
	}
	own := sourceTree(t)
	for dir, ok := range map[string]bool{
		"": true, own: true, open: false, "services/lms/site": false, filepath.Dir(own): false,
	} {
		got, err := DevDirOf(devDirOf(dir))
		if (err == nil) != ok || ok && got != dir {
			t.Errorf("LMS_DEV_DIR=%s: %q, %v", dir, got, err)
		}
		if !ok && exitOf(err) != lab.ExitUsage {
			t.Errorf("LMS_DEV_DIR=%s: exit %d", dir, exitOf(err))
		}
		if dir == open && !errors.Is(err, ErrUntrusted) {
			t.Errorf("%v does not say that others can change it", err)
		}
	}
}

func TestALabThatReadsItsPagesFromElsewhereIsNotTheOneAskedFor(t *testing.T) {
	dir := sourceTree(t)
	for _, c := range []struct {
		is, asked string
		ok        bool
	}{{"", "", true}, {dir, "", true}, {dir, dir, true}, {"", dir, false}, {"/elsewhere", dir, false}} {
		err := Settings{DevDir: c.is}.sameDevDir(devDirOf(c.asked), lab.Spec{Name: "one"})
		if (err == nil) != c.ok || !c.ok && exitOf(err) != lab.ExitConflict {
			t.Errorf("is %q, asked %q: %v", c.is, c.asked, err)
		}
	}
}
