package site

import (
	"io/fs"
	"path"
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

// TestAPageShowsNothingThatALessonIsCleanedOf holds a page to what a lesson's text is cleaned of, character by
// character.
func TestAPageShowsNothingThatALessonIsCleanedOf(t *testing.T) {
	gone := 0
	for r := rune(0xA0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) || lesson.Visible(string(r)) != "" {
			continue
		}
		gone++
		if got := plainly([]byte(string(r))); len(got) != 0 {
			t.Errorf("%U is shown on a page", r)
		}
	}
	if gone < 1000 {
		t.Errorf("a lesson is cleaned of %d characters: this proves nothing", gone)
	}
}
