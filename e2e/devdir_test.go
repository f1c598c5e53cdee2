package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/security-training/lab"
	"example.org/security-training/lab/local"
	"example.org/security-training/services/env/needtest"
)

// siteCopy is a copy of the pages' source, in a folder that only its owner can write.
func siteCopy(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(needtest.PrivateDir(t), "site")
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // the learning system reads it under a uid of its own
		t.Fatal(err)
	}
	for _, part := range []string{"templates", "static"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join("../services/lms/site", part))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// closed says whether dir is below a folder that other users may not enter.
func closed(t *testing.T, dir string) bool {
	t.Helper()
	for ; dir != "/"; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm()&0o001 == 0 {
			return true
		}
	}
	return false
}

// TestAnEditedPageIsSeenOnReloadInALabThatWasMadeForIt also checks that a lab that came up without LMS_DEV_DIR refuses
// to take it later.
func TestAnEditedPageIsSeenOnReloadInALabThatWasMadeForIt(t *testing.T) {
	dir := siteCopy(t)
	variable := "LMS_DEV_DIR=" + dir
	out, err := command(t.Context(), l.name, "up", "--runtime", l.runtime).withEnv(variable).run()
	want := lab.ExitConflict
	if l.inCluster() {
		want = lab.ExitUsage
	}
	if code(err) != want || !strings.Contains(out, "LMS_DEV_DIR") {
		t.Errorf("for a lab that is there: %v, want exit %d\n%s", err, want, out)
	}
	name := l.name + "-p"
	out, err = command(t.Context(), name, "up", "--runtime", local.RuntimeName, "--people", "5", "--days", "1").
		withEnv(variable).run()
	if os.Geteuid() == 0 && closed(t, dir) { // the learning system has a uid of its own
		if code(err) != lab.ExitPrecondition || !strings.Contains(out, "other users may not read it") {
			t.Errorf("of a clone that root alone may read: %v, want exit %d\n%s", err, lab.ExitPrecondition, out)
		}
		return
	}
	t.Cleanup(func() {
		if out, err := command(context.WithoutCancel(t.Context()), name, "down").run(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
	})
	if err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	text, err := command(t.Context(), name, "status", "-o", "json").stdout()
	if err != nil {
		t.Fatal(err)
	}
	var st lab.Status
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(dir, "templates", "verify.html")
	for content, want := range map[string]int{
		`{{define "content"}}<h1>Edited once</h1>{{end}}`:  http.StatusOK,
		`{{define "content"}}<h1>Edited twice</h1>{{end}}`: http.StatusOK,
		`{{define "content"}}<h1>{{.}</h1>{{end}}`:         http.StatusInternalServerError,
	} {
		if err := os.WriteFile(page, []byte(content), 0o644); err != nil { //nolint:gosec // as above
			t.Fatal(err)
		}
		status, body := pageOf(t, st.Dashboard+"/verify")
		edited := strings.Contains(body, strings.TrimSuffix(strings.TrimPrefix(content, `{{define "content"}}`), `{{end}}`))
		if status != want || edited != (want == http.StatusOK) || strings.Contains(body, "verify.html") {
			t.Errorf("%s: %d\n%s", content, status, body)
		}
	}
}

func pageOf(t *testing.T, url string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
