package arch

import (
	"go/ast"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestFilesKeepTheHousesWords also reads files that are not Go.
func TestFilesKeepTheHousesWords(t *testing.T) {
	dir := root(t)
	sync := regexp.MustCompile(`(?i)keep (this |these |it )?in ` + `sync`)
	todo := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	place := regexp.MustCompile(`(^|[\s"'(=])/(root|work)/`)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != dir && slices.Contains([]string{".git", "bin", "screenshots"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !slices.Contains(
			[]string{".go", ".yaml", ".yml", ".md", ".sql", ".html", ".css", ".mod", ""},
			filepath.Ext(path),
		) {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for n, line := range strings.Split(string(b), "\n") {
			for what, re := range map[string]*regexp.Regexp{
				"what must agree is written once": sync, "a note to oneself": todo, "a path of one machine": place,
			} {
				if re.MatchString(line) {
					rel, _ := filepath.Rel(dir, path)
					t.Errorf("%s:%d: %s: %s", rel, n+1, what, strings.TrimSpace(line))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMakefileIsAListOfCommands(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root(t), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	target := regexp.MustCompile(`^([a-z0-9-]+):`)
	phony := ""
	for _, line := range strings.Split(string(b), "\n") {
		if after, ok := strings.CutPrefix(line, ".PHONY:"); ok {
			phony = " " + after + " "
		}
	}
	name, lines := "", 0
	for n, line := range strings.Split(string(b), "\n") {
		switch m := target.FindStringSubmatch(line); {
		case m != nil:
			name, lines = m[1], 0
			if !strings.Contains(line, "## ") {
				t.Errorf("Makefile:%d: %s does not say what it is for", n+1, name)
			}
			if !strings.Contains(phony, " "+name+" ") {
				t.Errorf("Makefile:%d: %s is not .PHONY", n+1, name)
			}
		case strings.HasPrefix(line, "\t"):
			if lines++; lines > 5 {
				t.Errorf("Makefile:%d: %s has over 5 lines: a program is written in Go", n+1, name)
			}
		}
	}
	for _, want := range []string{"help", "lab-up", "lab-down", "test", "e2e", "play", "golden", "lint", "check"} {
		if !strings.Contains(phony, " "+want+" ") {
			t.Errorf("the Makefile lacks %s", want)
		}
	}
}

// TestPathsInDocumentsAreThere checks that each path that a document names is a folder or a file. In
// LESSONS_LEARNED.md it reads the guards only, since the other lines tell of the past.
func TestPathsInDocumentsAreThere(t *testing.T) {
	dir := root(t)
	span := regexp.MustCompile("`((?:services|synth|lab|e2e|manifests|docs|tools)/[^` ]+)`")
	for _, document := range []string{"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "LESSONS_LEARNED.md"} {
		text := read(t, document)
		if document == "LESSONS_LEARNED.md" {
			text = guards(text)
		}
		found := span.FindAllStringSubmatch(text, -1)
		if len(found) == 0 {
			t.Errorf("%s names no path: is the pattern right?", document)
		}
		for _, m := range found {
			path := strings.TrimSuffix(m[1], "/...")
			if strings.Contains(path, "NAME") || strings.Contains(path, "NNNNN") { // for the reader to fill in
				path = filepath.Dir(path)
			}
			all, err := filepath.Glob(filepath.Join(dir, strings.ReplaceAll(path, "…", "*")))
			if err != nil || len(all) == 0 {
				t.Errorf("%s names %s, which is not there", document, m[1])
			}
		}
	}
}

// read is the text of a file in the root folder.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// guards are the lines of the guards of LESSONS_LEARNED.md: from "- **Guard**" to the next item or the next heading.
func guards(text string) string {
	var b strings.Builder
	in := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "- ") || strings.HasPrefix(line, "#") {
			in = strings.HasPrefix(line, "- **Guard**")
		}
		if in {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestEachTestThatADocumentNamesIsThere reads every document in the root folder. A name in backquotes must be the whole
// name of a test. Any other name, as after -run, must be the beginning of one.
func TestEachTestThatADocumentNamesIsThere(t *testing.T) {
	var tests []string
	for _, f := range tree(t) {
		if !strings.HasSuffix(f.path, "_test.go") {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				tests = append(tests, fn.Name.Name)
			}
		}
	}
	documents, err := filepath.Glob(filepath.Join(root(t), "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile("`?\\b(?:Test|Fuzz)[A-Z][A-Za-z0-9]*`?")
	found := map[string]int{}
	for _, path := range documents {
		document := filepath.Base(path)
		n := 0
		for line := range strings.Lines(read(t, document)) {
			n++
			for _, m := range name.FindAllString(line, -1) {
				found[document]++
				want := strings.Trim(m, "`")
				whole := m == "`"+want+"`"
				if !slices.ContainsFunc(tests, func(is string) bool {
					return is == want || !whole && strings.HasPrefix(is, want)
				}) {
					t.Errorf("%s:%d names %s, which is no test of the tree: find its successor with git log -S %s",
						document, n, want, want)
				}
			}
		}
	}
	for _, document := range []string{"LESSONS_LEARNED.md", "CONTRIBUTING.md", "SYNTHETIC_DATA_SPEC.md"} {
		if found[document] == 0 {
			t.Errorf("%s names no test: is the pattern right?", document)
		}
	}
}
