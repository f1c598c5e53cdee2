package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"example.org/security-training/services/env/needtest"
)

// A bundle is handed to strangers. It contains none of the lab's real secrets, and it contains what helps to find a
// fault.
func TestABundleTellsOfEveryWorkloadAndHoldsNoSecret(t *testing.T) {
	link, err := command(t.Context(), l.name, "open").stdout()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(strings.TrimSpace(link))
	if err != nil || u.Query().Get("token") == "" {
		t.Fatalf("open printed %q, %v", link, err)
	}
	secrets := map[string]string{"the model's key": canary, "a sign-in link": u.Query().Get("token")}
	err = filepath.WalkDir(string(l.StateDir()), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // a socket, or gone again
		}
		switch filepath.Ext(path) {
		case ".secret", ".key":
		default:
			return nil
		}
		if b, err := os.ReadFile(path); err == nil && !strings.Contains(path, filepath.Join("pg", "data")) {
			secrets[path] = strings.TrimSpace(string(b))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if l.inCluster() {
		a := kube(t)
		list, err := a.CoreV1().Secrets(a.namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list.Items {
			if strings.HasPrefix(s.Name, "source-") {
				secrets["secret "+s.Name] = string(s.Data["secret"])
			}
		}
	}
	if len(secrets) < 4 {
		t.Fatalf("%d secrets are looked for: this proves nothing", len(secrets))
	}
	// The lab itself logs no secret. So the test puts some into a log file that no program writes.
	path := l.StateDir().WorkloadLog("said-by-mistake")
	t.Cleanup(func() { // other tests look for the key everywhere
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	})
	var log strings.Builder
	for what, s := range secrets {
		if what == "a sign-in link" { // only the dashboard knows the token: the bundle finds it by the text before it
			s = strings.TrimSpace(link)
		}
		log.WriteString("said by mistake: " + s + "\n")
	}
	if err := os.WriteFile(path, []byte(log.String()), 0o600); err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	out, err := command(t.Context(), l.name, "bundle", "--to", file).withEnv("GEMINI_API_KEY=" + canary).stdout()
	if err != nil || strings.TrimSpace(out) != file {
		t.Fatalf("bundle printed %q, %v", out, err)
	}
	files := bundled(t, file)
	want := []string{"doctor.json", "status.json", "lab.json", "version.txt", "topology.yaml", "audit/supervisor.jsonl"}
	for _, w := range l.st.Workloads {
		want = append(want, "logs/"+w.Name+".log", "audit/"+w.Name+".jsonl")
	}
	if info, err := os.Stat(l.StateDir().Log()); err == nil &&
		info.Size() > 0 { // a supervisor has nothing to say of a lab that is well
		want = append(want, "logs/supervisor.log")
	}
	if l.inCluster() {
		want = append(want, "kubernetes/pods.yaml", "kubernetes/events.yaml")
	}
	for _, name := range want {
		if len(files[name]) == 0 {
			t.Errorf("%s is not in the bundle; missing.txt: %s", name, files["missing.txt"])
		}
	}
	for name, text := range files {
		for what, s := range secrets {
			if bytes.Contains(text, []byte(s)) {
				t.Errorf("%s holds %s", name, what)
			}
		}
	}
	if !bytes.Contains(files["logs/said-by-mistake.log"], []byte("said by mistake: ")) {
		t.Error("the log is not the lab's: this proves nothing")
	}
}

func bundled(t *testing.T, path string) map[string][]byte {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the bundle's file: %v, %v", info, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[strings.TrimPrefix(h.Name, "lab-bundle/")], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// A start that fails says why, and where everything about it is.
func TestUpThatFailsLeavesABundle(t *testing.T) {
	dir := t.TempDir()
	_, err := command(
		t.Context(),
		"fails",
		"up",
		"--runtime",
		"local",
	).withEnv("LAB_ARTIFACTS="+dir, "LAB_HOME="+filepath.Join(needtest.PrivateDir(t), "labs"), "LLM_BACKEND=gemini").
		stdout()
	if code(err) != 3 {
		t.Fatalf("up without a key for the model it was told to use: %v", err)
	}
	made, globErr := filepath.Glob(filepath.Join(dir, "fails-*.tar.gz"))
	if globErr != nil || len(made) != 1 || !strings.Contains(err.Error(), "bundle: "+made[0]) {
		t.Fatalf("%v, %v, want one bundle that the error names: %v", made, globErr, err)
	}
	if files := bundled(t, made[0]); !bytes.Contains(files["why.txt"], []byte("LLM_BACKEND=gemini needs a key")) ||
		len(files["doctor.json"]) == 0 {
		t.Errorf("the bundle says %q", files["why.txt"])
	}
}
