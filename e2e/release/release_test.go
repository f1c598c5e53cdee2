// Package release checks `make release`: the programs that it is told to build, and the files that it leaves in dist/.
package release

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"example.org/security-training/services/env/needtest"
)

var (
	root   = filepath.Join("..", "..")
	dist   = filepath.Join(root, "dist")
	config = filepath.Join(root, "tools", "release", "goreleaser.yaml")
)

// build is one program of goreleaser.yaml.
type build struct {
	Main    string   `yaml:"main"`
	Binary  string   `yaml:"binary"`
	GOOS    []string `yaml:"goos"`
	GOARCH  []string `yaml:"goarch"`
	Flags   []string `yaml:"flags"`
	LDFlags []string `yaml:"ldflags"`
}

func builds(t *testing.T) []build {
	t.Helper()
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Builds []build `yaml:"builds"`
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c.Builds
}

// programs are the main packages of this repository that users get: all but the one that counts skipped tests.
func programs(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, parent := range []string{"services/cmd", "synth/cmd", "lab/cmd"} {
		entries, err := os.ReadDir(filepath.Join(root, parent))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() && e.Name() != "tally" {
				out = append(out, "./"+parent+"/"+e.Name())
			}
		}
	}
	return out
}

// A release has every program for every system, built with the flags of `make build`.
func TestTheReleaseBuildsEveryProgramAsMakeDoes(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, b := range builds(t) {
		listed = append(listed, b.Main)
		if b.Binary != "bin/"+path.Base(b.Main) {
			t.Errorf("%s becomes %s", b.Main, b.Binary)
		}
		if !slices.Equal(b.GOOS, []string{"linux", "darwin"}) || !slices.Equal(b.GOARCH, []string{"amd64", "arm64"}) {
			t.Errorf("%s is built for %v and %v", b.Main, b.GOOS, b.GOARCH)
		}
		if strings.HasPrefix(b.Main, "./lab/") {
			continue // it says which release it is
		}
		flags := strings.Join(b.Flags, " ") + " -ldflags=" + strings.Join(b.LDFlags, " ")
		want := "go build " + flags + " -o bin/ ./services/cmd/..."
		if !strings.Contains(string(makefile), want) {
			t.Errorf("the release builds %s by %q, and the Makefile does not", b.Main, want)
		}
	}
	want := programs(t)
	slices.Sort(want)
	slices.Sort(listed)
	if !slices.Equal(listed, want) {
		t.Errorf("the release builds %v, want %v", listed, want)
	}
}

// packed are the files of an archive, by their names. It keeps the content of the files that keep names.
func packed(t *testing.T, archive string, keep func(name string) bool) map[string][]byte {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatalf("%s: %v", archive, err)
	}
	out := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", archive, err)
		}
		out[h.Name] = nil
		if keep(h.Name) {
			if out[h.Name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// made lists the files in dist that match a pattern.
func made(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dist, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// `make release` runs this test on the files that it has made.
func TestTheReleasesArchivesHoldWhatTheyShould(t *testing.T) {
	if _, err := os.Stat(dist); err != nil {
		needtest.Lacks(t, needtest.Release, "there is no release: make release makes one, and runs this test")
	}
	here := runtime.GOOS + "_" + runtime.GOARCH
	var systems []string
	for _, b := range builds(t)[:1] {
		for _, system := range b.GOOS {
			for _, processor := range b.GOARCH {
				systems = append(systems, system+"_"+processor)
			}
		}
	}
	for _, system := range systems {
		found := made(t, "*_"+system+".tar.gz")
		if len(found) != 1 {
			t.Errorf("for %s there are %v", system, found)
			continue
		}
		name := strings.TrimSuffix(filepath.Base(found[0]), ".tar.gz")
		files := packed(t, found[0], func(file string) bool { return system == here && path.Base(file) == "lab" })
		want := []string{
			"README.md", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "DEPLOYMENT_ARCHITECTURE.md",
			"docs/dashboard.png", path.Base(chart(t)), "man/lab.1", "man/lab-up.1",
		}
		for _, p := range programs(t) {
			want = append(want, "bin/"+path.Base(p))
		}
		for _, file := range want {
			if _, ok := files[name+"/"+file]; !ok {
				t.Errorf("%s lacks %s", found[0], file)
			}
		}
		if system == here {
			tellsItsVersion(t, files[name+"/bin/lab"], name)
		}
	}
	checksummed(t)
	billed(t)
}

// chart checks the chart's package.
func chart(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, ".release", "*.tgz"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages of the chart: %v, %v", found, err)
	}
	if _, ok := packed(t, found[0], func(string) bool { return false })["security-training/Chart.yaml"]; !ok {
		t.Errorf("%s has no Chart.yaml", found[0])
	}
	return found[0]
}

// tellsItsVersion runs the lab program of the archive and checks the version that it prints.
func tellsItsVersion(t *testing.T, program []byte, archive string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lab")
	if err := os.WriteFile(file, program, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), file, "version", "-o", "json").Output()
	var v struct {
		Version, Commit, Chart string
		Parts                  []struct{ Name, Version string }
	}
	if err = errors.Join(err, json.Unmarshal(out, &v)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	commit, err := exec.CommandContext(t.Context(), "git", "-C", root, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	if v.Version == "" || !strings.Contains(archive, "_"+v.Version+"_") || v.Commit != strings.TrimSpace(string(commit)) ||
		v.Chart == "" || len(v.Parts) < 5 {
		t.Errorf("the lab of %s says that it is %+v; the commit is %s", archive, v, commit)
	}
}

// checksummed checks the checksums, and that each archive and the chart have one.
func checksummed(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dist, "checksums.txt"))
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if sum, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			sums[name] = sum
		}
	}
	for _, file := range append(made(t, "*.tar.gz"), chart(t)) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); sums[filepath.Base(file)] != hex.EncodeToString(sum[:]) {
			t.Errorf("the checksum of %s is %q", file, sums[filepath.Base(file)])
		}
	}
}

// billed checks that the bill of materials names the modules that go.mod requires.
func billed(t *testing.T) {
	t.Helper()
	found := made(t, "*.cdx.json")
	if len(found) != 1 {
		t.Fatalf("bills of materials: %v", found)
	}
	text, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		BOMFormat  string `json:"bomFormat"`
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(text, &bill); err != nil || bill.BOMFormat != "CycloneDX" {
		t.Fatalf("%s is of format %q: %v", found[0], bill.BOMFormat, err)
	}
	for _, want := range []string{"github.com/spiffe/go-spiffe/v2", "helm.sh/helm/v4", "github.com/jackc/pgx/v5"} {
		if !slices.ContainsFunc(bill.Components, func(c struct{ Name, Version string }) bool { return c.Name == want }) {
			t.Errorf("%s does not name %s", found[0], want)
		}
	}
}
