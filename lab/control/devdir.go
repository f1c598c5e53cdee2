package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"example.org/security-training/lab"
	"example.org/security-training/services/env"
)

// DevDirOf reads LMS_DEV_DIR: the source tree's services/lms/site, from which the learning system then reads its
// templates and static files at each request. It returns an absolute path without symbolic links, or "" if the variable
// is not set. The folder's scripts run in an instructor's browser, so it refuses a folder that other users can change.
func DevDirOf(lookup env.Lookup) (string, error) {
	dir := env.Read(lookup).Optional("LMS_DEV_DIR", "")
	if dir == "" {
		return "", nil
	}
	refuse := func(why error) (string, error) {
		return "", &lab.Error{
			Code: lab.ExitUsage, What: "read pages from LMS_DEV_DIR", Why: why,
			Try: "LMS_DEV_DIR=$PWD/services/lms/site lab up   (in a clone that only you can write)",
		}
	}
	if !filepath.IsAbs(dir) {
		return refuse(fmt.Errorf("%s is not an absolute path", dir))
	}
	real, err := Private(dir)
	if err == nil {
		_, err = os.Stat(filepath.Join(real, "templates", "layout.html"))
	}
	if err != nil {
		return refuse(err)
	}
	return real, nil
}

// sameDevDir refuses a lab that reads its pages from another folder than the caller's environment asks for.
func (s Settings) sameDevDir(lookup env.Lookup, want lab.Spec) error {
	dir, err := DevDirOf(lookup)
	if err != nil || dir == "" || dir == s.DevDir {
		return err
	}
	is := "LMS_DEV_DIR=" + s.DevDir
	if s.DevDir == "" {
		is = "no LMS_DEV_DIR"
	}
	return &lab.Error{
		Code: lab.ExitConflict, What: "bring up " + want.Name, Why: errors.New("it is there, made with " + is),
		Try: "lab down --name " + want.Name + "   (or another --name)",
	}
}
