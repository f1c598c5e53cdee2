package site

import (
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"example.org/security-training/services/lesson"
)

func TestAssetsAreSmall(t *testing.T) {
	list, err := fs.ReadDir(files, "static")
	if err != nil || len(list) == 0 {
		t.Fatal(err, list)
	}
	for _, f := range list {
		if info, err := f.Info(); err != nil || info.Size() > 40<<10 {
			t.Errorf("%s: %v, %d bytes", f.Name(), err, info.Size())
		}
		if assetKinds[path.Ext(f.Name())] == "" {
			t.Errorf("%s is of no kind that is served", f.Name())
		}
	}
}

func TestLinesOfPagesAreShort(t *testing.T) {
	read := 0
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		read++
		for i, line := range strings.Split(string(text), "\n") {
			if n := utf8.RuneCountInString(line); n > 140 {
				t.Errorf("%s:%d has %d columns, of at most 140", path, i+1, n)
			}
		}
		return nil
	})
	if err != nil || read < 30 {
		t.Errorf("%d files, %v", read, err)
	}
}

// TestASectionHasANameOfItsOwn keeps a page from taking the place of a part that it includes.
func TestASectionHasANameOfItsOwn(t *testing.T) {
	all, err := fs.Glob(files, "templates/*.html")
	if err != nil || len(all) == 0 {
		t.Fatal(err, all)
	}
	in := map[string]string{}
	for _, path := range all {
		text, err := fs.ReadFile(files, path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\{\{define "([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
			name := m[1]
			if name == "content" || name == "head" { // each page has its own
				continue
			}
			if in[name] != "" {
				t.Errorf("%s and %s both define %q", in[name], path, name)
			}
			in[name] = path
		}
	}
}

// TestAPageShowsNothingThatALessonIsCleanedOf compares the characters that a page removes with those that are removed
// from a lesson.
func TestAPageShowsNothingThatALessonIsCleanedOf(t *testing.T) {
	removed := 0
	for r := rune(0xA0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) || lesson.Visible(string(r)) != "" {
			continue
		}
		removed++
		if got := removeInvisible([]byte(string(r))); len(got) != 0 {
			t.Errorf("%U is shown on a page", r)
		}
	}
	if removed < 1000 {
		t.Errorf("a lesson is cleaned of %d characters: this proves nothing", removed)
	}
}
