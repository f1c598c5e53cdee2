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

// Kept is something in the cache folder, which stays when a lab goes.
type Kept struct {
	Path  string
	What  string // for people, with why it is kept
	Bytes uint64
}

// String is a line for people.
func (k Kept) String() string { return fmt.Sprintf("%s: %s, %s", k.Path, k.What, size(k.Bytes)) }

// inCache says what an entry of the cache folder is, by the beginning of its name. What is not here is not the lab's.
var inCache = []struct{ prefix, what string }{
	{"database-", "the database template, from which the next lab starts without initdb"},
	{"postgresql-", "PostgreSQL's programs, so that they are downloaded once"},
	{Bundles, "the last bundles"},
	{"making-", "a database template that was not finished"},
	{"fetching-", "a download that was not finished"},
}

// Bundles is the name of the folder of bundles within the cache folder.
const Bundles = "bundles"

// CacheDir is the folder of what labs leave to the next ones. It may not be there yet. Other users cannot change it.
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

// bytesIn is what the files below a folder take.
func bytesIn(dir string) (n uint64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it is gone: another lab tidies up
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			n += uint64(fi.Size())
		}
		return nil
	})
	return n
}

// RemoveCache removes what is in the cache folder, except programs that a lab of this user runs: those are kept. It
// waits for a `lab up` that is at work.
func RemoveCache(ctx context.Context, lookup env.Lookup, p progress.Reporter) (removed, kept []Kept, err error) {
	f, err := control.StateDirOf(lookup, "lab") // any name will do: the turn is every lab's
	if err != nil {
		return nil, nil, err
	}
	turn, err := f.Turn(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(filepath.Dir(string(f))) // made for the turn, perhaps: it refuses while there are labs
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
		_ = os.Remove(dir) // which refuses while there is something in it
	}
	return removed, kept, nil
}

// runs says whether one of the labs runs programs below path, or a process that is one of another folder of labs.
func runs(lookup env.Lookup, labs []string, path string) bool {
	below := path + string(filepath.Separator)
	if programs, err := filepath.Glob("/proc/[0-9]*/exe"); err == nil { // the pattern is a good one
		for _, p := range programs {
			if program, err := os.Readlink(p); err == nil && strings.HasPrefix(program, below) {
				return true
			}
		}
	}
	for _, name := range labs {
		f, err := control.StateDirOf(lookup, name)
		if err != nil {
			return true // it cannot be known
		}
		var st settings
		if err := f.Read(&st); err != nil || strings.HasPrefix(st.Postgres+"/", below) {
			return true
		}
	}
	return false
}
