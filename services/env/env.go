// Package env reads settings from the environment through an injected lookup, and reports every fault at once.
// It is the only package that reads the process's environment.
package env

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Lookup returns a variable, as os.LookupEnv does.
type Lookup func(name string) (string, bool)

// Process is the lookup of this process's environment.
func Process(name string) (string, bool) { return os.LookupEnv(name) }

// Map is a lookup of fixed values, for tests.
func Map(m map[string]string) Lookup {
	return func(name string) (string, bool) { v, ok := m[name]; return v, ok }
}

// Reader reads settings and collects all faults for Err.
type Reader struct {
	lookup Lookup
	faults []error
}

// Read starts reading.
func Read(lookup Lookup) *Reader { return &Reader{lookup: lookup} }

// Err joins all faults so far, nil if there is none.
func (r *Reader) Err() error {
	if len(r.faults) == 0 {
		return nil
	}
	return fmt.Errorf("read settings: %w", errors.Join(r.faults...))
}

func (r *Reader) fault(name, format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...)))
}

// Required is the value of name. A missing or empty value is a fault.
func (r *Reader) Required(name string) string {
	v, ok := r.lookup(name)
	if !ok || v == "" {
		r.fault(name, "is not set")
	}
	return v
}

// Optional is the value of name, or otherwise when it is missing or empty.
func (r *Reader) Optional(name, otherwise string) string {
	if v, ok := r.lookup(name); ok && v != "" {
		return v
	}
	return otherwise
}

// OneOf is the value of name, which must be one of choices; the first is the default.
func (r *Reader) OneOf(name string, choices ...string) string {
	v := r.Optional(name, choices[0])
	for _, c := range choices {
		if v == c {
			return v
		}
	}
	r.fault(name, "%q is not one of %s", v, strings.Join(choices, ", "))
	return v
}

// Int is the whole number in name, or otherwise when it is missing.
func (r *Reader) Int(name string, otherwise int) int {
	v := r.Optional(name, strconv.Itoa(otherwise))
	n, err := strconv.Atoi(v)
	if err != nil {
		r.fault(name, "%q is not a whole number", v)
	}
	return n
}

// Duration is the duration in name ("30s"), or otherwise when it is missing.
func (r *Reader) Duration(name string, otherwise time.Duration) time.Duration {
	v := r.Optional(name, otherwise.String())
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		r.fault(name, "%q is not a duration such as 30s", v)
	}
	return d
}

// Secret is the trimmed content of the file that name points to. Secrets travel by file, never by value.
func (r *Reader) Secret(name string) []byte {
	path := r.Required(name)
	if path == "" {
		return nil
	}
	b, err := os.ReadFile(path)
	var at *fs.PathError
	if errors.As(err, &at) && !filepath.IsAbs(path) { // this may be the secret itself, so it is not quoted
		r.fault(name, "want the absolute path of a file (%v)", at.Err)
		return nil
	} else if err != nil {
		r.fault(name, "%v", err)
		return nil
	}
	if b = []byte(strings.TrimSpace(string(b))); len(b) == 0 {
		r.fault(name, "%s is empty", path)
	}
	return b
}
