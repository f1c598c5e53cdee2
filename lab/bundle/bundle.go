// Package bundle packs what it takes to find out why a lab does not work into one file that can be handed on:
// logs, the state, the ends of the audit's chains, versions. No secret is in it: what is packed is listed, and every
// byte of it is searched for the lab's own secrets and for what looks like one.
package bundle

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
)

// How much is packed of what grows without end.
const (
	logBytes   = 4 << 20 // of each log, its end
	auditLines = 200     // of each chain, its end
)

// Source is where a bundle comes from. Each part may be missing: a lab that never came up has no folder, and a
// supervisor that was killed does not answer.
type Source struct {
	Folder  control.StateDir
	Version string
	Why     error // what failed, if that is why there is a bundle
	Doctor  any   // as `lab doctor -o json` has it
	Status  func(ctx context.Context) (lab.Status, error)
	Runtime Explainer // nil where everything is in the folder
	Secrets []string  // what must not be told, beside what the folder holds
	Now     time.Time
}

// Explainer is a runtime that knows more about a lab than its folder has.
type Explainer interface {
	// Explain gives files by name, and the secrets that must be kept out of them. It gives what it has even with an error.
	Explain(ctx context.Context, f control.StateDir) (files map[string][]byte, secrets []string, err error)
}

// Write writes the bundle to w as a .tar.gz. What could not be had stands in its file "missing.txt". An error is w's,
// or that the lab's secrets could not be read: then nothing is written.
func Write(ctx context.Context, w io.Writer, s Source) error {
	files := map[string][]byte{}
	var missing []error
	add := func(name string, content []byte, err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, fmt.Errorf("%s: %w", name, err))
		}
		if len(content) > 0 {
			files[name] = content
		}
	}
	add("version.txt", []byte(s.Version+"\n"), nil)
	if s.Why != nil {
		add("why.txt", []byte(s.Why.Error()+"\n"), nil)
	}
	doctor, err := json.MarshalIndent(s.Doctor, "", "  ")
	add("doctor.json", doctor, err)
	if s.Status != nil {
		st, err := s.Status(ctx)
		if err == nil {
			var text []byte
			text, err = json.MarshalIndent(st, "", "  ")
			add("status.json", text, nil)
		}
		add("status.json", nil, err)
	}
	secrets, words := append([]string{}, s.Secrets...), []string(nil)
	if s.Folder != "" {
		for _, name := range []string{
			"lab.json", "images.json", "processes.json", "topology.yaml", "topology.shipped.yaml", "checkpoints.jsonl",
		} {
			content, err := end(os.Open, s.Folder.Path(name), logBytes)
			if name == "checkpoints.jsonl" {
				content = lastLines(content, auditLines)
			}
			add(name, content, err)
		}
		found, parts, unread, err := secretsIn(s.Folder)
		add("secrets", nil, unread)
		if err != nil { // then nobody knows what to look for
			return fmt.Errorf("read the lab's secrets: %w", err)
		}
		secrets, words = append(secrets, found...), parts
		for name, path := range below(s.Folder.Logs(), ".log") {
			content, err := end(os.Open, path, logBytes)
			add("logs/"+name+".log", content, err)
		}
		content, err := end(os.Open, s.Folder.Log(), logBytes)
		add("logs/supervisor.log", content, err)
		audits := map[string]string{"supervisor": s.Folder.Path("supervisor.audit")}
		for name := range below(s.Folder.Path("w"), "") {
			audits[name] = s.Folder.WorkloadAudit(name)
		}
		for name, path := range audits {
			content, err := end(untrusted, path, logBytes)
			add("audit/"+name+".jsonl", lastLines(content, auditLines), err)
		}
	}
	if s.Runtime != nil {
		more, hidden, err := s.Runtime.Explain(ctx, s.Folder)
		secrets = append(secrets, hidden...)
		for name, content := range more {
			add(name, content, nil)
		}
		add("runtime", nil, err)
	}
	if err := errors.Join(missing...); err != nil {
		files["missing.txt"] = []byte(err.Error() + "\n")
	}
	return pack(w, files, newBlinder(secrets, words), s.Now)
}

// pack writes files, each without what b hides.
func pack(w io.Writer, files map[string][]byte, b *blinder, now time.Time) error {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	for _, name := range sorted(files) {
		content := b.hide(files[name])
		if err := t.WriteHeader(
			&tar.Header{Name: "lab-bundle/" + name, Mode: 0o600, Size: int64(len(content)), ModTime: now},
		); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
		if _, err := t.Write(content); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// below are the entries of a folder whose names end in ending, by their names without it.
func below(dir, ending string) map[string]string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // of a lab that never came up
	}
	out := map[string]string{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ending); ok {
			out[name] = filepath.Join(dir, e.Name())
		}
	}
	return out
}

// untrusted opens a file that a workload can replace.
func untrusted(path string) (*os.File, error) {
	return control.OpenUntrusted(path, control.LongestAudit)
}

// end is the last n bytes of a file.
func end(open func(string) (*os.File, error), path string, n int64) ([]byte, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() > n {
		if _, err := f.Seek(fi.Size()-n, io.SeekStart); err != nil {
			return nil, err
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, n))
	if i := bytes.IndexByte(text, '\n'); fi.Size() > n && i >= 0 {
		text = text[i+1:] // it begins in the middle of a line, perhaps of a secret
	}
	return text, err
}

func lastLines(text []byte, n int) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-1-n):], nil)
}

// stamp is the time in a bundle's name.
const stamp = "20060102T150405.000"

// Place is where a bundle goes that was given no name: into the folder, under the lab's name and the time.
func Place(folder, name string, now time.Time) string {
	return filepath.Join(folder, fmt.Sprintf("%s-%s.tar.gz", strings.Trim(name, "-"), now.UTC().Format(stamp)))
}

var placed = regexp.MustCompile(`-([0-9]{8}T[0-9]{6}\.[0-9]{3})\.tar\.gz$`)

// KeepLast removes the oldest bundles of a folder, by the time in their names, until n are left. Other files stay.
func KeepLast(folder string, n int) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("remove old bundles: %w", err)
	}
	var bundles []string
	at := func(name string) string { return placed.FindStringSubmatch(name)[1] }
	for _, e := range entries {
		if e.Type().IsRegular() && placed.MatchString(e.Name()) {
			bundles = append(bundles, e.Name())
		}
	}
	slices.SortFunc(bundles, func(a, b string) int { return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a, b)) })
	for _, old := range bundles[:max(0, len(bundles)-n)] {
		if err := os.Remove(filepath.Join(folder, old)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove old bundles: %w", err)
		}
	}
	return nil
}
