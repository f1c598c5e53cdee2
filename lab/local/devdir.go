package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/services/env"
)

// chooseDevDir stores the folder from which the learning system reads its pages. The learning system must be able to
// read it with its own uid; chooseDevDir changes no permissions.
func chooseDevDir(st *settings, lookup env.Lookup) (err error) {
	st.DevDir, err = control.DevDirOf(lookup)
	if err != nil || st.DevDir == "" || st.UIDs == 0 {
		return err
	}
	if err := readableByAll(st.DevDir); err != nil {
		return &lab.Error{
			Code: lab.ExitPrecondition, What: "read pages from LMS_DEV_DIR",
			Why: fmt.Errorf("the learning system runs as a user of its own: %w", err),
			Try: "a clone that every user can read, such as one below /srv, or lab up as another user than root",
		}
	}
	return nil
}

// readableByAll checks that every user may read what is in dir, an absolute path without symbolic links.
func readableByAll(dir string) error {
	for above := filepath.Dir(dir); ; above = filepath.Dir(above) {
		fi, err := os.Stat(above)
		if err != nil {
			return err
		}
		if fi.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("%s: %w", above, errUnreadable)
		}
		if above == "/" {
			break
		}
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		need := fs.FileMode(0o004)
		if d.IsDir() {
			need = 0o005
		}
		if fi.Mode().Perm()&need != need {
			return fmt.Errorf("%s: %w", path, errUnreadable)
		}
		return nil
	})
}

var errUnreadable = errors.New("other users may not read it")
