package site

import (
	"bytes"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.org/security-training/services/env"
)

// edited is a copy of the source tree's folder, with one more page.
type edited string

func newEdited(t *testing.T) edited {
	t.Helper()
	dir := edited(t.TempDir())
	if err := os.CopyFS(string(dir), files); err != nil {
		t.Fatal(err)
	}
	dir.write(t, "templates/plain.html", `{{define "content"}}<p>first</p>{{end}}`)
	return dir
}

func (d edited) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(d), name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// opened serves the page "plain" from dir to one who has the role.
func opened(t *testing.T, dir, role string, log *bytes.Buffer) (get func(path string) *httptest.ResponseRecorder) {
	t.Helper()
	viewer := &Viewer{Principal: Principal{Role: role}, Name: "Ada"}
	s, err := New(Config{
		Dir: dir, Log: slog.New(slog.NewTextHandler(log, nil)),
		Recognise: func(v *Request) error { v.Viewer = viewer; return nil },
		// The console's.
		Words: []template.FuncMap{{"asked": fmt.Sprint, "consolebar": fmt.Sprint, "parts": strings.Fields}},
	})
	if err != nil {
		t.Fatal(err)
	}
	show := func(v *Request) error { return s.Render(v, "plain", "Plain", "/", "<b>model</b>") }
	pages := []Page{
		{Pattern: "GET /{$}", Access: SignedIn, Show: show},
		{Pattern: "GET /admin", Access: Admins, Show: show},
	}
	h := s.Handler(pages, nil, func(next http.Handler) http.Handler { return next })
	return func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
}

func TestAnEditedTemplateIsSeenOnReload(t *testing.T) {
	dir := newEdited(t)
	get := opened(t, string(dir), RoleInstructor, &bytes.Buffer{})
	for _, c := range []struct{ page, want string }{
		{`{{define "content"}}<p>first</p>{{end}}`, "<p>first</p>"},
		{`{{define "content"}}<p>second {{.}}</p>{{end}}`, "<p>second &lt;b&gt;model&lt;/b&gt;</p>"}, // and it is escaped
	} {
		dir.write(t, "templates/plain.html", c.page)
		w := get("/")
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s", c.page, w.Code, w.Body)
		}
		if got := w.Header().Get("Content-Security-Policy"); got != Policy {
			t.Errorf("the page's policy is %q", got)
		}
	}
	if w := get("/admin"); w.Code != http.StatusForbidden {
		t.Errorf("a page for admins: %d", w.Code)
	}
}

func TestAnEditedStyleIsSeenOnReload(t *testing.T) {
	dir := newEdited(t)
	get := opened(t, string(dir), RoleInstructor, &bytes.Buffer{})
	style := regexp.MustCompile(`/static/app\.[0-9a-f]+\.css`)
	before := style.FindString(get("/").Body.String())
	dir.write(t, "static/app.css", "p { color: red }")
	dir.write(t, "static/app.css~", "an editor's copy")
	after := style.FindString(get("/").Body.String())
	if before == "" || before == after {
		t.Errorf("the style is %q before, and %q after an edit", before, after)
	}
	for _, path := range []string{before, after} { // a page that was open asks by the old name
		w := get(path)
		if w.Code != http.StatusOK || w.Body.String() != "p { color: red }" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s %q", path, w.Code, w.Body, w.Header())
		}
	}
	if w := get("/static/app.css~"); w.Code != http.StatusNotFound {
		t.Errorf("an editor's copy is served: %d", w.Code)
	}
}

func TestABrokenTemplateNamesFileAndLineToAnInstructor(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"does not parse": {"templates/plain.html", "{{define \"content\"}}\n<p>{{.}</p>{{end}}", "templates/plain.html:2:"},
		"has no such field": {
			"templates/plain.html", "{{define \"content\"}}\n\n<p>{{.Nothing}}</p>{{end}}", "templates/plain.html:3:",
		},
		"cannot be escaped": {
			"templates/plain.html", "{{define \"content\"}}\n<p title=\"{{if .}}\"{{end}}>{{end}}", "templates/plain.html:2",
		},
		"is the layout": {"templates/layout.html", "{{define \"layout\"}}\n{{nothing}}{{end}}", "templates/layout.html:2:"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, log := newEdited(t), &bytes.Buffer{}
			teacher, learner := opened(t, string(dir), RoleInstructor, log), opened(t, string(dir), RolePerson, log)
			dir.write(t, c.file, c.text)
			w := teacher("/")
			if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("to an instructor: %d %s", w.Code, w.Body)
			}
			w = learner("/")
			if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), c.want) ||
				!strings.Contains(w.Body.String(), "Something went wrong") {
				t.Errorf("to a learner: %d %s", w.Code, w.Body)
			}
			if !strings.Contains(log.String(), strings.TrimPrefix(c.want, "templates/")) {
				t.Errorf("the log does not say where: %s", log)
			}
		})
	}
}

func TestWithoutTheVariableNoFolderIsRead(t *testing.T) {
	dir := newEdited(t)
	t.Chdir(string(dir)) // where a folder could be found by accident
	dir.write(t, "templates/error.html", `{{define "content"}}from the folder{{end}}`)
	get := opened(t, "", RoleInstructor, &bytes.Buffer{})
	page := get("/nothing").Body.String()
	if strings.Contains(page, "from the folder") || !strings.Contains(page, "Page not found") {
		t.Errorf("the error page is %s", page)
	}
	w := get(regexp.MustCompile(`/static/app\.[0-9a-f]{16}\.css`).FindString(page))
	if built, err := fs.ReadFile(files, "static/app.css"); err != nil || !bytes.Equal(w.Body.Bytes(), built) ||
		!strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
		t.Errorf("the style: %d %q %v", w.Code, w.Header(), err)
	}
	if w := get("/static/app.0000000000000000.css"); w.Code != http.StatusNotFound {
		t.Errorf("a style of another content: %d", w.Code)
	}
	// What is wrong with a page is for the log alone.
	if w := get("/"); w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "template") {
		t.Errorf("a page that cannot be shown: %d %s", w.Code, w.Body)
	}
}

func TestALinkOutOfTheFolderIsNotFollowed(t *testing.T) {
	dir, secret := newEdited(t), filepath.Join(t.TempDir(), "secret.css")
	if err := os.WriteFile(secret, []byte("a secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	get := opened(t, string(dir), RoleInstructor, &bytes.Buffer{})
	if err := os.Symlink(secret, filepath.Join(string(dir), "static", "secret.css")); err != nil {
		t.Fatal(err)
	}
	w := get("/static/secret.0000000000000000.css")
	if w.Code == http.StatusOK || strings.Contains(w.Body.String(), "a secret") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestTheFolderIsNamedByOneVariable(t *testing.T) {
	dir := newEdited(t)
	for value, ok := range map[string]bool{
		"": true, string(dir): true,
		"services/lms/site": false, filepath.Join(string(dir), "static"): false, "/nowhere": false,
	} {
		got, err := DevDir(env.Map(map[string]string{"LMS_DEV_DIR": value}))
		if (err == nil) != ok || ok && got != value {
			t.Errorf("LMS_DEV_DIR=%s: %q, %v", value, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "LMS_DEV_DIR: ") {
			t.Errorf("%v does not name the variable", err)
		}
	}
}
