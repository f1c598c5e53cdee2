package site

import (
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"example.org/security-training/services/env"
)

// devDir is the variable that names the folder from which pages are read while they are developed.
const devDir = "LMS_DEV_DIR"

// DevDir reads LMS_DEV_DIR: the absolute path of the source tree's services/lms/site, from which templates and static
// files are then read at each request; "" if it is not set. It changes where they are read from, and nothing else: who
// may see a page, what is escaped and what a page may load stay as they are.
func DevDir(lookup env.Lookup) (string, error) {
	dir := env.Read(lookup).Optional(devDir, "")
	if dir == "" {
		return "", nil
	}
	_, err := os.Stat(filepath.Join(dir, "templates", "layout.html"))
	if !filepath.IsAbs(dir) {
		err = errors.New("the path is not absolute")
	}
	if err != nil {
		return "", fmt.Errorf(
			"read settings: %s: want the absolute path of services/lms/site in the source tree: %w", devDir, err)
	}
	return dir, nil
}

// folder are the templates and the assets of a folder, read again each time that one is asked for.
type folder struct {
	dir   string
	words []template.FuncMap
}

// brokenTemplate is the error of a template of a folder that does not parse, or cannot be filled in.
type brokenTemplate struct{ cause error }

func (b *brokenTemplate) Error() string { return b.cause.Error() }

func (b *brokenTemplate) Unwrap() error { return b.cause }

// templateOf is how html/template begins to say where an error is: its own name, then the file's.
var templateOf = regexp.MustCompile(`(html/)?template: ?`)

// words say what is wrong, with the file's path in the folder and the line.
func (b *brokenTemplate) words() string {
	return templateOf.ReplaceAllString(b.cause.Error(), "templates/")
}

// open opens the folder. Links that lead out of it are not followed.
func (f *folder) open(read func(fs.FS) error) error {
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return fmt.Errorf("read %s: %w", devDir, err)
	}
	defer root.Close()
	return read(root.FS())
}

func (f *folder) template(name string) (t *template.Template, err error) {
	err = f.open(func(from fs.FS) error {
		a, err := loadAssets(from)
		if err != nil {
			return err
		}
		t, err = parsePage(from, name, a, f.words...)
		return err
	})
	return t, err
}

// asset finds a file by its name alone: a page may have been sent before the file was edited.
func (f *folder) asset(served string) (found asset, ok bool, err error) {
	ext := path.Ext(served)
	stem := strings.TrimSuffix(served, ext)
	name := strings.TrimSuffix(stem, path.Ext(stem)) + ext
	err = f.open(func(from fs.FS) error {
		a, err := loadAssets(from)
		if err != nil {
			return err
		}
		found, ok = a.served[strings.TrimPrefix(a.names[name], "/static/")]
		found.etag = "" // never to be kept by a browser
		return nil
	})
	return found, ok, err
}

// broken says to an instructor which line of a template is wrong, where pages are read from a folder.
func broken(v *Request, err error) (string, bool) {
	var b *brokenTemplate
	if v.Viewer == nil || !v.Viewer.Instructor() || !errors.As(err, &b) {
		return "", false
	}
	return b.words(), true
}
