package local

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/lms/site"
	"example.org/security-training/services/topology"
)

// TestTheLearningSystemAloneIsToldWherePagesAreDeveloped reads the environment of the workloads as the learning system
// does.
func TestTheLearningSystemAloneIsToldWherePagesAreDeveloped(t *testing.T) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.Abs("../../services/lms/site")
	if err != nil {
		t.Fatal(err)
	}
	for _, is := range []string{"", dir} {
		s := &Supervisor{
			topo: topo, folder: folder{"/lab"}, settings: settings{Settings: control.Settings{Host: "127.0.0.1", DevDir: is}},
		}
		for _, w := range topo.Workloads {
			want := is
			if w.Kind != topology.KindDashboard {
				want = ""
			}
			if got, err := site.DevDir(told(s.environment(w))); err != nil || got != want {
				t.Errorf("%s, of a lab with %q: %q, %v", w.Name, is, got, err)
			}
		}
	}
}

// told looks variables up in a process's environment.
func told(environment []string) env.Lookup {
	return func(name string) (string, bool) {
		for _, v := range environment {
			if len(v) > len(name) && v[:len(name)+1] == name+"=" {
				return v[len(name)+1:], true
			}
		}
		return "", false
	}
}

func TestPagesMustBeReadableByAUserOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	for _, own := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(own, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	inner := filepath.Join(dir, "closed", "site")
	file := filepath.Join(inner, "a.css")
	if err := errors.Join(
		os.MkdirAll(inner, 0o755), os.WriteFile(file, nil, 0o644),
	); err != nil { //nolint:gosec // to be read
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		mode os.FileMode
		ok   bool
	}{
		{"closed", 0o711, true},
		{"closed", 0o700, false},
		{"closed/site", 0o750, false},
		{"closed/site/a.css", 0o640, false},
	} {
		path := filepath.Join(dir, c.path)
		was, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		err = readableByAll(inner)
		if errors.Is(err, errUnreadable) == c.ok {
			t.Errorf("%s with %#o: %v", c.path, c.mode, err)
		}
		if err := os.Chmod(path, was.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	var unusable *lab.Error
	if err := chooseDevDir(
		&settings{}, env.Map(map[string]string{"LMS_DEV_DIR": "relative"}),
	); !errors.As(err, &unusable) {
		t.Errorf("a relative path: %v", err)
	}
}
