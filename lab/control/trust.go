package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"example.org/security-training/lab"
)

// ErrUntrusted says that another user could change what is at a path.
var ErrUntrusted = errors.New("other users can change it")

// Private checks that only root and the caller can change what is at path, which need not exist yet. It returns path
// without symbolic links. Every folder on the way, including the targets of links, must belong to root or to the
// caller, and others must not be able to write it. That excludes /tmp, although it is sticky: any user can make the
// folder that does not exist yet. The error wraps ErrUntrusted.
//
// A folder that its group can write is accepted if the group is the owner's private one, which many distributions make
// for each user.
func Private(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return private("/", strings.Split(strings.Trim(path, "/"), "/"), 40)
}

// private follows rest from dir, which has no links. Links is how many symbolic links it may still follow.
func private(dir string, rest []string, links int) (string, error) {
	if err := ownersOnly(dir); err != nil {
		return "", err
	}
	for i, name := range rest {
		switch name {
		case "", ".":
			continue
		case "..":
			dir = filepath.Dir(dir)
			continue
		}
		next := filepath.Join(dir, name)
		fi, err := os.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			return filepath.Join(next, filepath.Join(rest[i+1:]...)), nil // the caller will make it, in a trusted folder
		}
		if err != nil {
			return "", err
		}
		if fi.Mode()&fs.ModeSymlink != 0 {
			if links == 0 {
				return "", fmt.Errorf("%s: %w", next, syscall.ELOOP)
			}
			if err := ours(next, fi); err != nil {
				return "", err
			}
			target, err := os.Readlink(next)
			if err != nil {
				return "", err
			}
			if filepath.IsAbs(target) {
				dir = "/"
			}
			return private(dir, append(strings.Split(strings.Trim(target, "/"), "/"), rest[i+1:]...), links-1)
		}
		dir = next
		if fi.IsDir() {
			err = ownersOnly(dir)
		} else {
			err = ours(dir, fi)
		}
		if err != nil {
			return "", err
		}
	}
	return dir, nil
}

// ownersOnly checks that only root and the caller can change a folder.
func ownersOnly(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if err := ours(dir, fi); err != nil {
		return err
	}
	mode, st := fi.Mode().Perm(), fi.Sys().(*syscall.Stat_t)
	if mode&0o002 != 0 || mode&0o020 != 0 && !privateGroup(st.Uid, st.Gid) {
		return fmt.Errorf("%s has mode %#o: %w", dir, mode, ErrUntrusted)
	}
	return nil
}

// ours checks that something belongs to root or to the caller.
func ours(path string, fi fs.FileInfo) error {
	if uid := fi.Sys().(*syscall.Stat_t).Uid; uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to the user with uid %d: %w", path, uid, ErrUntrusted)
	}
	return nil
}

// privateGroup says whether a group has the name of its user. Distributions name a user's private group so.
func privateGroup(uid, gid uint32) bool {
	if uid == 0 && gid == 0 {
		return true
	}
	u, err1 := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	g, err2 := user.LookupGroupId(strconv.FormatUint(uint64(gid), 10))
	return err1 == nil && err2 == nil && u.Username == g.Name
}

// OwnHome is a hint for errors about the labs' folder.
const OwnHome = "LAB_HOME=$HOME/labs lab up   (a folder that only you can write; as root, unset LAB_HOME)"

// untrusted is the error for a folder that cannot be used for labs.
func untrusted(what string, why error) error {
	return &lab.Error{Code: lab.ExitPrecondition, What: what, Why: why, Try: OwnHome}
}

// Trusted checks that a lab's folder belongs to the caller and that no one else can change it. It names the programs
// that a supervisor executes.
func (f StateDir) Trusted() error {
	if _, err := Private(string(f)); err != nil {
		return untrusted("use the lab in "+string(f), err)
	}
	return f.checkOwner()
}

// checkOwner checks that a lab's folder, if it exists, belongs to the caller. Another user's settings would decide what
// is executed.
func (f StateDir) checkOwner() error {
	fi, err := os.Lstat(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	uid := int(fi.Sys().(*syscall.Stat_t).Uid)
	if !fi.IsDir() || uid != os.Geteuid() {
		return untrusted(
			"use the lab in "+string(f),
			fmt.Errorf("it belongs to the user with uid %d, and you are %d: %w", uid, os.Geteuid(), ErrUntrusted),
		)
	}
	return nil
}

// LongestAudit is the number of bytes of an audit that are read. A lab writes about 400 for each decision.
const LongestAudit = 1 << 30

// OpenUntrusted opens a file for reading that a less trusted user can replace, as a workload can replace its own audit.
// The path of the file's folder must be trusted. OpenUntrusted does not follow a link and does not wait for a pipe's
// writer. It returns an error for anything but a regular file of at most most bytes.
func OpenUntrusted(path string, most int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := Regular(f, most); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Regular checks that f, which was opened without waiting, is a regular file of at most most bytes.
func Regular(f *os.File, most int64) error {
	fi, err := f.Stat()
	switch {
	case err != nil:
	case !fi.Mode().IsRegular():
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: fmt.Errorf("%v is not a regular file", fi.Mode())}
	case fi.Size() > most:
		err = &fs.PathError{
			Op:   "open",
			Path: f.Name(),
			Err:  fmt.Errorf("%d bytes are more than the %d that are read of it", fi.Size(), most),
		}
	}
	return err
}
