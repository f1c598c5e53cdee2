package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/kind/pkg/apis/config/defaults"
	"sigs.k8s.io/yaml"

	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/env/needtest"
)

// prepare finds or builds what the commands need, and has everything removed at the end.
func prepare(t *testing.T) *site {
	t.Helper()
	needtest.Engine(t)
	dir := t.TempDir()
	s := &site{
		tree:    filepath.Join(dir, "tree"),
		config:  filepath.Join(dir, "kubeconfig"),
		cluster: fmt.Sprintf("deploy-%d", os.Getpid()),
	}
	s.images(t)
	if _, err := exec.LookPath("kubectl"); err != nil {
		needtest.Lacks(t, needtest.Kind, "kubectl is not on PATH")
	}
	ctx, cancel := context.WithCancel(interrupted)
	if end, ok := t.Deadline(); ok {
		ctx, cancel = context.WithDeadline(interrupted, end.Add(-time.Minute)) // enough to remove everything
	}
	t.Cleanup(cancel)
	s.ctx = ctx
	tools := filepath.Join(dir, "tools")
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if !slices.Contains([]string{"PATH", "KUBECONFIG", "CGO_ENABLED", "GEMINI_API_KEY", "MAKEFLAGS", "GOFLAGS"}, name) {
			s.env = append(s.env, e)
		}
	}
	path, _ := env.Process("PATH")
	s.env = append(
		s.env,
		"PATH="+tools+string(os.PathListSeparator)+path,
		"KUBECONFIG="+s.config,
		"KIND_CLUSTER_NAME="+s.cluster,
		"GEMINI_API_KEY="+canary,
		"HELM_CACHE_HOME="+filepath.Join(
			dir,
			"helm",
			"cache",
		),
		"HELM_CONFIG_HOME="+filepath.Join(dir, "helm", "config"),
		"HELM_DATA_HOME="+filepath.Join(dir, "helm", "data"),
	)
	buildTools(t, s, tools)
	copySource(t, s.tree)
	s.removeAtTheEnd(t)
	return s
}

// images chooses the images that the lab's settings name, or else kind's and the chart's own.
func (s *site) images(t *testing.T) {
	t.Helper()
	b, err := fs.ReadFile(manifests.Chart(), "values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type image struct{ Repository, Tag string }
	var v struct {
		Namespace string
		Postgres  struct{ Image image }
		Spire     struct{ Server, Agent struct{ Image image } }
	}
	if err := yaml.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	e := env.Read(env.Process)
	s.namespace = v.Namespace
	s.node = needtest.LocalImage(t, e.Optional("LAB_KIND_NODE_IMAGE", defaults.Image))
	db := e.Optional("LAB_POSTGRES_IMAGE", v.Postgres.Image.Repository+":"+v.Postgres.Image.Tag)
	i := strings.LastIndexByte(db, ':')
	spire := e.Optional("LAB_SPIRE_VERSION", v.Spire.Server.Image.Tag)
	server, agent := v.Spire.Server.Image.Repository+":"+spire, v.Spire.Agent.Image.Repository+":"+spire
	for _, name := range []string{db, server, agent} {
		s.official = append(s.official, needtest.LocalImage(t, name))
	}
	s.offline = fmt.Sprintf(
		" --set postgres.image.repository=%s --set postgres.image.tag=%s --set spire.server.image.tag=%s --set "+
			"spire.agent.image.tag=%s",
		db[:i],
		db[i+1:],
		spire,
		spire,
	)
}

// buildTools builds kind and helm at the versions of go.mod. Their commands need a few modules that go.mod does not
// list. Those are added to a copy of go.mod.
func buildTools(t *testing.T, s *site, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []struct{ name, path string }{
		{"helm", "helm.sh/helm/v4/cmd/helm"}, {"kind", "sigs.k8s.io/kind"},
	} {
		cmd := exec.CommandContext(
			s.ctx,
			"go",
			"build",
			"-modfile="+filepath.Join(dir, "go.mod"),
			"-mod=mod",
			"-o",
			filepath.Join(dir, tool.name),
			tool.path,
		)
		cmd.Dir, cmd.Env = root, append(slices.Clone(s.env), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", tool.name, err, out)
		}
	}
}

// copySource copies the tree without built files, like a fresh clone. The commands run in the copy and do not change
// the original.
func copySource(t *testing.T, to string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && slices.Contains([]string{".git", "bin", "node_modules", "screenshots"}, d.Name()):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // deleted since it was listed
			return nil
		} else if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// removeAtTheEnd has the cluster removed and the engine's tags restored when the test ends, even if it fails.
func (s *site) removeAtTheEnd(t *testing.T) {
	t.Helper()
	docker := func(args ...string) (string, error) {
		out, err := exec.Command("docker", args...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	latest, err := docker("image", "inspect", "--format", "{{.Id}}", s.application())
	if err != nil {
		latest = ""
	}
	_, noNetwork := docker("network", "inspect", "kind")
	t.Cleanup(func() {
		if s.stop != nil {
			s.stop()
		}
		remove := exec.Command("bash", "-c", "kind delete cluster")
		remove.Env = s.env
		if out, err := remove.CombinedOutput(); err != nil {
			t.Errorf("remove the cluster: %v\n%s", err, out)
		}
		for _, tag := range []string{s.application(), s.previous()} {
			if _, err := docker("image", "inspect", tag); err != nil {
				continue
			}
			if out, err := docker("rmi", tag); err != nil {
				t.Errorf("remove %s: %v\n%s", tag, err, out)
			}
		}
		if latest != "" {
			if out, err := docker("tag", latest, s.application()); err != nil {
				t.Logf("give the earlier image its tag again: %v\n%s", err, out) // it had no other tag and was removed with it
			}
		}
		if noNetwork != nil {
			_, _ = docker("network", "rm", "kind") // unless another cluster has come to use it
		}
	})
}

func (*site) application() string { return "security-training-app:latest" }

func (s *site) previous() string { return "security-training-app:" + s.cluster }

// command prepares a shell line.
func (s *site) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", line)
	cmd.Dir, cmd.Env, cmd.WaitDelay = s.tree, s.env, 5*time.Second
	return cmd
}

// run runs a line to its end and returns what it printed on both streams.
func (s *site) run(t *testing.T, line string) string {
	t.Helper()
	start := time.Now()
	out, err := s.command(s.ctx, line).CombinedOutput()
	t.Logf("%6.1f s  %s", time.Since(start).Seconds(), line)
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", line, err, out, s.look())
	}
	return string(out)
}

// look describes the pods and their events, for the message of a failure.
func (s *site) look() string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := s.command(ctx, "[ ! -s "+s.config+" ] || kubectl get pods,events -n "+s.namespace+" 2>&1 | tail -n 60").
		CombinedOutput()
	if err != nil {
		return ""
	}
	return "\n" + string(out)
}
