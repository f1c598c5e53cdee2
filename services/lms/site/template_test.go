package site

import (
	"io/fs"
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
