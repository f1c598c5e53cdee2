package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"example.org/security-training/lab/control"
	"example.org/security-training/lab/progress"
	"example.org/security-training/services/env"
)

// Kept is an entry of the cache folder, which stays when a lab is removed.
type Kept struct {
	Path  string
	What  string // what it is and why it is kept, for people
	Bytes uint64
}

// String describes the entry on one line for people.
func (k Kept) String() string { return fmt.Sprintf("%s: %s, %s", k.Path, k.What, size(k.Bytes)) }

// inCache lists the entries of the cache folder by the beginning of their names. Other entries are not the lab's.
var inCache = []struct{ prefix, what string }{
	{"database-", "the database template, from which the next lab starts without initdb"},
	{"postgresql-", "PostgreSQL's programs, so that they are downloaded once"},
	{Bundles, "the last bundles"},
	{"making-", "a database template that was not finished"},
	{"fetching-", "a download that was not finished"},
}

// Bundles is the name of the folder of bundles within the cache folder.
const Bundles = "bundles"

// CacheDir is the folder of what labs leave to later labs. It need not exist yet. Other users cannot change it.
func CacheDir(lookup env.Lookup) (string, error) { return cache(lookup) }

// Cached lists what is in the cache folder.
func Cached(lookup env.Lookup) ([]Kept, error) {
	dir, err := cache(lookup)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the cache folder: %w", err)
	}
	var kept []Kept
	for _, e := range entries {
		for _, known := range inCache {
			if strings.HasPrefix(e.Name(), known.prefix) {
				path := filepath.Join(dir, e.Name())
				kept = append(kept, Kept{path, known.what, bytesIn(path)})
				break
			}
		}
	}
	return kept, nil
}

// bytesIn is the size of all files below a folder.
func bytesIn(dir string) (n uint64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // another lab has just removed it
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			n += uint64(fi.Size())
		}
		return nil
	})
	return n
}

// RemoveCache empties the cache folder, except for programs that a lab of this user runs. It waits for a `lab up` that
// is in progress.
func RemoveCache(ctx context.Context, lookup env.Lookup, p progress.Reporter) (removed, kept []Kept, err error) {
	f, err := control.StateDirOf(lookup, "lab") // any name will do: the turn is the same for all labs
	if err != nil {
		return nil, nil, err
	}
	turn, err := f.Turn(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(filepath.Dir(string(f))) // Turn may have made it; fails while there are labs
	defer turn.Close()
	all, err := Cached(lookup)
	if err != nil {
		return nil, nil, err
	}
	names, err := control.Names(lookup)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range all {
		if runs(lookup, names, k.Path) {
			kept = append(kept, k)
			continue
		}
		if err := os.RemoveAll(k.Path); err != nil {
			return removed, kept, fmt.Errorf("remove the cache: %w", err)
		}
		removed = append(removed, k)
	}
	if dir, err := cache(lookup); err == nil {
		_ = os.Remove(dir) // fails unless it is empty
	}
	return removed, kept, nil
}

// runs says whether a lab, or a process of a lab in another folder, runs a program below path.
func runs(lookup env.Lookup, labs []string, path string) bool {
	below := path + string(filepath.Separator)
	if programs, err := filepath.Glob("/proc/[0-9]*/exe"); err == nil { // the pattern is valid
		for _, p := range programs {
			if program, err := os.Readlink(p); err == nil && strings.HasPrefix(program, below) {
				return true
			}
		}
	}
	for _, name := range labs {
		f, err := control.StateDirOf(lookup, name)
		if err != nil {
			return true // unknown: assume that it does
		}
		var st settings
		if err := f.Read(&st); err != nil || strings.HasPrefix(st.Postgres+"/", below) {
			return true
		}
	}
	return false
}
