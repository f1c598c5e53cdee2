package control

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"example.org/security-training/services/env/needtest"
)

// A folder that its group can change is trusted only if the group is the user's private one.
func TestAFolderThatAnotherGroupCanChangeIsNoPlaceForLabs(t *testing.T) {
	if os.Geteuid() != 0 {
		needtest.Lacks(t, needtest.Root, "a folder cannot be given to another group")
	}
	const strangers = 65534
	private := needtest.PrivateDir(t)
	for name, c := range map[string]struct {
		mode    os.FileMode
		gid     int
		trusted bool
	}{
		"the user's own group may change it": {0o770, 0, true},
		"another group may read it":          {0o750, strangers, true},
		"another group may change it":        {0o770, strangers, false},
		"another group may add to it":        {0o730, strangers, false},
	} {
		dir := filepath.Join(private, "labs")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 0, c.gid), os.Chmod(dir, c.mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := Private(dir + "/lab"); c.trusted != (err == nil) || !c.trusted && !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
}
