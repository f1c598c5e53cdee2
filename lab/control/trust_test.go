package control

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/services/env"
	"example.org/security-training/services/env/needtest"
)

func TestAFolderThatOthersCanChangeIsNoPlaceForLabs(t *testing.T) {
	private := needtest.PrivateDir(t)
	make := func(mode os.FileMode, elem ...string) string {
		t.Helper()
		path := filepath.Join(append([]string{private}, elem...)...)
		if err := errors.Join(os.MkdirAll(path, 0o700), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(to, name string) string {
		t.Helper()
		path := filepath.Join(private, name)
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	make(0o777, "open")
	make(os.ModeSticky|0o777, "sticky")
	good := make(0o711, "good")
	link("loop", "loop")
	for path, want := range map[string]string{
		good:                              good,
		good + "/none/of/these/yet":       good + "/none/of/these/yet",
		link("good", "relative") + "/lab": good + "/lab",
		link(good, "absolute"):            good,
		private + "/good/../good":         good,
		"/tmp/labs":                       "",
		private + "/open":                 "",
		private + "/open/none/yet":        "",
		private + "/sticky/none":          "",
		link("sticky", "to-sticky"):       "",
		link("/tmp", "to-tmp") + "/labs":  "",
		private + "/loop":                 "",
	} {
		got, err := Private(path)
		if got != want || want == "" && err == nil {
			t.Errorf("%s: %q, %v; want %q", path, got, err, want)
		}
	}
	_, err := Home(env.Map(map[string]string{"LAB_HOME": "/tmp/labs"}))
	var e *lab.Error
	if !errors.As(err, &e) || e.Code != lab.ExitPrecondition || !errors.Is(err, ErrUntrusted) ||
		!strings.Contains(err.Error(), "/tmp has mode 0777") {
		t.Errorf("LAB_HOME=/tmp/labs: %v", err)
	}
	if strings.Contains(e.Try, "/tmp") {
		t.Errorf("what it advises is as bad: %s", e.Try)
	}
}

func TestWhatAnotherUserMadeIsNotTrusted(t *testing.T) {
	if os.Geteuid() != 0 {
		needtest.Lacks(t, needtest.Root, "only root can make files of another user")
	}
	const mallory = 65534
	home := needtest.PrivateDir(t)
	theirs, lab := filepath.Join(home, "theirs"), filepath.Join(home, "lab")
	link := filepath.Join(home, "link")
	for _, err := range []error{
		os.Mkdir(theirs, 0o755), os.Chown(theirs, mallory, mallory), os.Mkdir(lab, 0o700), os.Chown(lab, mallory, mallory),
		os.Symlink(home, link), os.Lchown(link, mallory, mallory),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Private(
		filepath.Join(theirs, "labs"),
	); !errors.Is(err, ErrUntrusted) ||
		!strings.Contains(err.Error(), "uid 65534") {
		t.Errorf("below another user's folder: %v", err)
	}
	if _, err := Private(filepath.Join(link, "labs")); !errors.Is(err, ErrUntrusted) {
		t.Errorf("behind another user's link: %v", err)
	}
	if _, err := StateDirOf(env.Map(map[string]string{"LAB_HOME": home}), "lab"); !errors.Is(err, ErrUntrusted) {
		t.Errorf("another user's lab: %v", err)
	}
	if err := StateDir(lab).Trusted(); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a supervisor of another user's lab: %v", err)
	}
}

// A file that a workload can replace is opened without following links, without waiting, and with a limit.
func TestAFileThatAWorkloadCanReplaceIsOpenedWithCare(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	sparse, err := os.Create(path("sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer sparse.Close()
	for _, err := range []error{
		os.WriteFile(
			path("plain"), []byte("text"), 0o600,
		), os.Symlink(path("plain"), path("link")), syscall.Mkfifo(path("pipe"), 0o600),
		os.Mkdir(path("folder"), 0o700), sparse.Truncate(1 << 40),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, good := range map[string]bool{
		"plain": true, "link": false, "pipe": false, "folder": false, "sparse": false, "none": false,
	} {
		done := make(chan error, 1)
		go func() {
			f, err := OpenUntrusted(path(name), 1<<20)
			if err == nil {
				err = f.Close()
			}
			done <- err
		}()
		select {
		case err := <-done:
			if (err == nil) != good {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it waits", name)
		}
	}
}
