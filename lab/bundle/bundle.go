// Package bundle packs what is needed to find out why a lab does not work into one file that can be handed on: logs,
// the state, the ends of the audit chains, and versions. The file has no secrets: only listed files are packed, and
// each is searched for the lab's own secrets and for anything that looks like a secret.
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

// How much is packed of files that grow without limit.
const (
	logBytes   = 4 << 20 // from the end of each log
	auditLines = 200     // from the end of each chain
)

// Source is what a bundle is made of. Any part may be missing: a lab that never came up has no folder, and a supervisor
// that was killed does not answer.
type Source struct {
	Folder  control.StateDir
	Version string
	Why     error // the error because of which the bundle is made, if any
	Doctor  any   // the output of `lab doctor -o json`
	Status  func(ctx context.Context) (lab.Status, error)
	Runtime Explainer // nil if everything is in the folder
	Secrets []string  // to be hidden, in addition to those in the folder
	Now     time.Time
}

// Explainer is a runtime that knows more about a lab than is in its folder.
type Explainer interface {
	// Explain returns files by name, and the secrets that must not appear in them. With an error it returns what it
	// has.
	Explain(ctx context.Context, f control.StateDir) (files map[string][]byte, secrets []string, err error)
}

// Write writes the bundle to w as a .tar.gz. Its file "missing.txt" lists what could not be packed. It returns an error
// if w fails, or if the lab's secrets cannot be read; then it writes nothing.
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
		if err != nil { // without them, nothing can be hidden
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

// pack writes files and hides in each what b hides.
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

// below returns the paths of the files in a folder whose names end in ending, by their names without it.
func below(dir, ending string) map[string]string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // the lab never came up
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

// end reads the last n bytes of a file.
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
		text = text[i+1:] // drop the first line, which is incomplete and may be part of a secret
	}
	return text, err
}

func lastLines(text []byte, n int) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-1-n):], nil)
}

// stamp is the format of the time in a bundle's name.
const stamp = "20060102T150405.000"

// Place is the default path of a bundle: in folder, named by the lab and the time.
func Place(folder, name string, now time.Time) string {
	return filepath.Join(folder, fmt.Sprintf("%s-%s.tar.gz", strings.Trim(name, "-"), now.UTC().Format(stamp)))
}

var placed = regexp.MustCompile(`-([0-9]{8}T[0-9]{6}\.[0-9]{3})\.tar\.gz$`)

// KeepLast removes the oldest bundles in a folder, by the time in their names, until n are left. It leaves other files
// alone.
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
