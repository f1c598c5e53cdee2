// Package archive writes a simulated company to a folder: its people, their activity as events, the vendors' payloads,
// and the answer key, with hashes of all files. The same parameters give the same bytes on every machine.
package archive

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.org/security-training/services/activity"
	"example.org/security-training/services/risk"
	"example.org/security-training/services/source"
	"example.org/security-training/synth/people"
	"example.org/security-training/synth/routine"
	"example.org/security-training/synth/world"
)

// File writes a JSON file.
type File struct {
	w io.Writer
	e *json.Encoder
}

func newFile(w io.Writer) *File {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return &File{w, e}
}

// Line adds one JSON line.
func (f *File) Line(v any) error { return f.e.Encode(v) }

// Document writes one indented value.
func (f *File) Document(v any) error {
	f.e.SetIndent("", "  ")
	return f.e.Encode(v)
}

// List writes a JSON array with one element on each line.
func (f *File) List(list any) error {
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	for i, r := range raw {
		before := ",\n"
		if i == 0 {
			before = "[\n"
		}
		if _, err := fmt.Fprintf(f.w, "%s%s", before, r); err != nil {
			return err
		}
	}
	if len(raw) == 0 {
		_, err = io.WriteString(f.w, "[")
	}
	if err == nil {
		_, err = io.WriteString(f.w, "\n]\n")
	}
	return err
}

// WriteFile writes a file with the content that write produces.
func WriteFile(name string, write func(*File) error) (err error) {
	out, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(name), err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := bufio.NewWriterSize(out, 1<<16)
	if err := write(newFile(w)); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(name), err)
	}
	return w.Flush()
}

// Company holds the parameters of an archive, as in its company.json.
type Company struct {
	Seed   uint64     `json:"seed"`
	People int        `json:"people"`
	Days   int        `json:"days"`
	Mix    people.Mix `json:"mix"`
}

// Validate returns the faults of the parameters.
func (c Company) Validate() error {
	if c.People < 1 || c.People > 50_000 || c.Days < 0 || c.Days > 365 {
		return fmt.Errorf("%d people, %d days: want 1 to 50000 people and 0 to 365 days", c.People, c.Days)
	}
	_, err := people.MixFrom(string(c.Mix))
	return err
}

// Names of an archive's files. In addition, each source has a folder of payloads, one file of JSON lines for each day.
const (
	companyFile = "company.json"
	peopleFile  = "people.json"
	eventsFile  = "events.ndjson"
	answersFile = "answers.json"
	gapsFile    = "gaps.json" // the gaps in vendors' records, a part of the answer key
	sumsFile    = "SHA256SUMS"
)

// payload is one line of a payload file.
type payload struct {
	Kind string          `json:"kind"` // the vendor's name of the record type
	Body json.RawMessage `json:"body"`
}

// shelf receives files: it writes them to a folder, or only computes their hashes.
type shelf struct {
	open func(name string) (io.WriteCloser, error)
	sums map[string]string
}

type nowhere struct{ io.Writer }

func (nowhere) Close() error { return nil }

func (s *shelf) put(name string, write func(*File) error) error {
	out, err := s.open(name)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(out, sum), 1<<16)
	err = errors.Join(write(newFile(w)), w.Flush(), out.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	s.sums[name] = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// Write writes the company to folder, which need not exist. Files with other names stay.
func Write(c Company, folder string) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("write company: %w", err)
	}
	s := &shelf{sums: map[string]string{}, open: func(name string) (io.WriteCloser, error) {
		full := filepath.Join(folder, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return nil, err
		}
		return os.Create(full)
	}}
	if err := s.company(c); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, sumsFile), []byte(s.listing()), 0o644)
}

// listing is the list of hashes in the format of sha256sum.
func (s *shelf) listing() string {
	var names []string
	for n := range s.sums {
		names = append(names, n)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "%s  %s\n", s.sums[n], n)
	}
	return b.String()
}

// company writes all files, day by day.
func (s *shelf) company(c Company) error {
	staff := people.Company(c.Seed, c.People, c.Mix)
	everybody := append(slices.Clone(staff), people.Contractors(c.Seed, c.People)...)
	roster := people.Roster(everybody)
	if err := s.put(companyFile, func(f *File) error { return f.Document(c) }); err != nil {
		return err
	}
	if err := s.put(peopleFile, func(f *File) error { return f.List(people.Roster(staff)) }); err != nil {
		return err
	}
	if err := s.put(answersFile, func(f *File) error { return f.List(people.Key(staff)) }); err != nil {
		return err
	}
	owner := map[string]string{}
	for _, p := range staff {
		for _, a := range p.Accounts {
			owner[risk.AccountKey(a)] = p.ID
		}
	}
	acts := routine.Month(everybody, c.Days)
	if err := s.put(gapsFile, func(f *File) error {
		return f.List(routine.Losses(c.Seed, everybody, acts, c.Days))
	}); err != nil {
		return err
	}
	events := routine.TrainingEvents(acts)
	acts = slices.DeleteFunc(routine.Recorded(c.Seed, acts),
		func(a routine.Act) bool { return a.Source == activity.Training })
	memory := map[activity.Source]joins{}
	for _, row := range source.Table {
		memory[row.Source] = joins{}
	}
	day := func(a routine.Act) string { return a.At.UTC().Format(time.DateOnly) }
	for from := 0; from < len(acts); {
		to := from
		for to < len(acts) && day(acts[to]) == day(acts[from]) {
			to++
		}
		traces, err := world.Traces(roster, acts[from:to])
		if err != nil {
			return err
		}
		for _, row := range source.Table {
			records := traces[string(row.Source)]
			if len(records) == 0 {
				continue
			}
			found, err := s.day(row, day(acts[from]), records, memory[row.Source])
			if err != nil {
				return err
			}
			events = append(events, found...)
		}
		from = to
	}
	for i := range events {
		for _, a := range events[i].Accounts {
			if who := owner[risk.AccountKey(a)]; who != "" && events[i].Person == "" {
				events[i].Person = who
			}
		}
	}
	slices.SortStableFunc(events, func(a, b activity.Event) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	})
	return s.put(eventsFile, func(f *File) error {
		for _, e := range events {
			if err := f.Line(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// day writes a source's payloads of one day, and reads their events as its collector does.
func (s *shelf) day(row source.Row, day string, records []source.Record, m joins) ([]activity.Event, error) {
	var events []activity.Event
	err := s.put(path.Join(string(row.Source), day+".ndjson"), func(f *File) error {
		for _, r := range records {
			r.Body = source.Scrub(r.Body)
			if err := f.Line(payload{r.Kind, r.Body}); err != nil {
				return err
			}
			found, err := row.Events(r, m)
			if err != nil {
				return err
			}
			events = append(events, found...)
		}
		return nil
	})
	return events, err
}

// joins is the collector's memory between records.
type joins map[string][]byte

func (j joins) Get(key string) []byte        { return j[key] }
func (j joins) Put(key string, value []byte) { j[key] = value }
func (j joins) Delete(key string)            { delete(j, key) }

// Verify compares every file of an archive with its hash, and the hashes with those of the company generated again from
// its parameters. It names all files that differ, are missing, or are listed but not part of an archive.
func Verify(folder string) error {
	text, err := os.ReadFile(filepath.Join(folder, sumsFile))
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	listed := map[string]string{}
	for line := range strings.Lines(string(text)) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok || !filepath.IsLocal(filepath.FromSlash(name)) {
			return fmt.Errorf("verify: %s: line %q: want a hash and a name", sumsFile, line)
		}
		listed[name] = sum
	}
	text, err = os.ReadFile(filepath.Join(folder, companyFile))
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	var c Company
	if err := json.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("verify %s: %w", companyFile, err)
	}
	if err := c.Validate(); err != nil {
		return fmt.Errorf("verify %s: %w", companyFile, err)
	}
	again := &shelf{sums: map[string]string{}, open: func(string) (io.WriteCloser, error) {
		return nowhere{io.Discard},
			nil
	}}
	if err := again.company(c); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	names := map[string]bool{}
	for n := range listed {
		names[n] = true
	}
	for n := range again.sums {
		names[n] = true
	}
	var faults []error
	for n := range names {
		got, err := fileSum(filepath.Join(folder, filepath.FromSlash(n)))
		switch {
		case again.sums[n] == "":
			faults = append(faults, fmt.Errorf("%s: is listed, and this company has none", n))
		case listed[n] == "":
			faults = append(faults, fmt.Errorf("%s: is not listed", n))
		case err != nil:
			faults = append(faults, fmt.Errorf("%s: %w", n, err))
		case got != listed[n]:
			faults = append(faults, fmt.Errorf("%s: was changed: its hash is not the one listed", n))
		case again.sums[n] != listed[n]:
			faults = append(faults, fmt.Errorf("%s: generated again, it has another hash", n))
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if len(faults) > 0 {
		return fmt.Errorf("verify: %w", errors.Join(faults...))
	}
	return nil
}

func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
