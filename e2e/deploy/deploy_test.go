// Package deploy follows DEPLOYMENT_ARCHITECTURE.md: it reads the commands that the document prints and runs each of
// them as it is printed, on a kind cluster of its own, from a copy of the source tree. It has tests only.
package deploy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"
	"sigs.k8s.io/yaml"

	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/env/needtest"
)

// canary looks like a Gemini key, and is none.
const canary = "AIzaSyCANARY-deploy-0123456789abcdefghi"

// interrupted ends when somebody wants the tests to end: what was made is removed then as well.
var interrupted context.Context

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	interrupted = ctx
	code := m.Run()
	stop()
	os.Exit(code)
}

// site is where the commands are run.
type site struct {
	ctx       context.Context
	tree      string // a copy of the source
	env       []string
	cluster   string
	config    string // of kubectl
	node      string // kind's image
	official  []string
	offline   string // --set arguments that the test adds to what is printed: which images the machine has
	namespace string
	forwarded string // where port-forward listens
	stop      func() // ends it
}

// step runs one printed command, the one that begins so; or, without a beginning, does what no command does.
type step struct {
	begins string
	do     func(t *testing.T, s *site, command string)
}

func (s step) find(commands []string) (string, error) {
	var found []string
	for _, c := range commands {
		if strings.HasPrefix(c, s.begins) {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d printed commands begin with %q, want one", len(found), s.begins)
	}
	return found[0], nil
}

// plan is everything in the order in which it is run.
func plan() []step {
	plain := func(t *testing.T, s *site, c string) { s.run(t, c) }
	says := func(want ...string) func(*testing.T, *site, string) {
		return func(t *testing.T, s *site, c string) {
			out := s.run(t, c)
			for _, w := range want {
				if !strings.Contains(out, w) {
					t.Errorf("%s: does not say %q\n%s", c, w, out)
				}
			}
		}
	}
	return []step{
		{"helm lint", says("0 chart(s) failed")},
		{"helm template", says("kind: StatefulSet", "kind: DaemonSet", "kind: NetworkPolicy")},
		{"", eachValue},
		{"kind create cluster", func(t *testing.T, s *site, c string) { s.run(t, c+" --image "+s.node) }},
		{"make build", plain},
		{"docker build", plain},
		{"kind load", plain},
		{"", func(t *testing.T, s *site, _ string) {
			s.run(t, "kind load docker-image "+strings.Join(s.official, " "))
		}},
		{"helm install", func(t *testing.T, s *site, c string) { s.run(t, c+s.offline) }},
		{"kubectl get pods", watchPods},
		{"kubectl port-forward", forward},
		{"open ", browse},
		{"kubectl logs -n security-training sts/spire-server", says("Agent attestation request completed")},
		{"kubectl logs -n security-training daemonset/spire-agent", says("attestation")},
		{"kubectl exec", entries},
		{"kubectl logs -n security-training -l app=lms", says("spiffe://")},
		{"kubectl logs -n security-training -l app=llm-gateway", says("spiffe identity")},
		{"kubectl create secret", plain},
		{
			"helm upgrade security-system ./manifests/chart --set",
			func(t *testing.T, s *site, c string) { s.run(t, c+s.offline); ownSecret(t, s) },
		},
		{
			"helm upgrade security-system ./manifests/chart --reset",
			func(t *testing.T, s *site, c string) { s.run(t, c); ownSecret(t, s) },
		},
		{"helm uninstall", uninstall},
		{"", fromThePreviousChart},
		{"kind delete cluster", func(t *testing.T, s *site, c string) { s.run(t, c); nothingLeft(t, s) }},
	}
}

func TestEveryPrintedCommandWorks(t *testing.T) {
	if v, _ := env.Process("LAB_RUNTIME"); v != "kind" {
		needtest.Lacks(t, needtest.Kind, "it makes a cluster of its own: LAB_RUNTIME=kind")
	}
	commands := printed(t)
	s := prepare(t)
	for _, p := range plan() {
		command := ""
		if p.begins != "" {
			var err error
			if command, err = p.find(commands); err != nil {
				t.Fatal(err)
			}
		}
		p.do(t, s, command)
		if t.Failed() {
			return
		}
	}
}

// prepare finds what the commands need, and has everything removed at the end.
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

// images chooses those that the lab's settings name, or kind's and the chart's own.
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

// buildTools builds kind and helm at the versions of go.mod. Their commands need a little more than what the module
// links, which a copy of go.mod is given.
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

// copySource copies the tree as somebody who cloned it has it: nothing built. Nothing that is run changes the original.
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
		if errors.Is(err, fs.ErrNotExist) { // gone since it was listed
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

// removeAtTheEnd has the cluster removed, and the engine's tags as they were before, whatever happens.
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
				t.Logf("give the earlier image its tag again: %v\n%s", err, out) // it had no other tag, and went with it
			}
		}
		if noNetwork != nil {
			_, _ = docker("network", "rm", "kind") // unless another cluster has come to use it
		}
	})
}

func (*site) application() string { return "security-training-app:latest" }
func (s *site) previous() string  { return "security-training-app:" + s.cluster }

// command prepares a shell's line.
func (s *site) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", line)
	cmd.Dir, cmd.Env, cmd.WaitDelay = s.tree, s.env, 5*time.Second
	return cmd
}

// run runs a line to its end and gives what it said on both streams.
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

// look is how the pods are, for whoever reads of a failure.
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

// eachValue sets each value that values.yaml documents, alone: to what stands there, and to every choice that its
// comment names.
func eachValue(t *testing.T, s *site, _ string) {
	b, err := fs.ReadFile(manifests.Chart(), "values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := yaml.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	choices := map[string][]any{
		"llm.backend":                     {"stub", "gemini"},
		"spire.socket":                    {"hostPath", "csi"},
		"spire.agent.kubeletVerification": {true, false},
		"global.geminiSecret":             {"mine"},
	}
	n := 0
	var walk func(prefix string, v map[string]any)
	walk = func(prefix string, v map[string]any) {
		for name, value := range v {
			path := prefix + name
			if m, ok := value.(map[string]any); ok {
				walk(path+".", m)
				continue
			}
			tried := append([]any{value}, choices[path]...)
			if name == "pullPolicy" {
				tried = []any{"Always", "IfNotPresent", "Never"}
			}
			for _, v := range tried {
				text, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				line := fmt.Sprintf("helm template security-system ./manifests/chart --set-json '%s=%s'", path, text)
				if path == "llm.backend" && v == "gemini" {
					line += " --set global.geminiSecret=mine"
				}
				out, err := s.command(s.ctx, line).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "kind: StatefulSet") {
					t.Errorf("%s: %v\n%s", line, err, out)
				}
				n++
			}
		}
	}
	walk("", all)
	if n < 40 {
		t.Errorf("%d values were tried", n)
	}
	unknown := "helm template security-system ./manifests/chart --set-json 'unknown.value=1'"
	if out, err := s.command(s.ctx, unknown).CombinedOutput(); err == nil {
		t.Errorf("an unknown value is taken\n%s", out)
	}
}

// pods is how many pods there are when all is well: one for each row that runs, and SPIRE's.
func pods(t *testing.T) int {
	n := 3 // server, agent of the one node, registration
	for _, w := range topo(t).Workloads {
		if w.Binary != "" {
			n++
		}
	}
	return n
}

// watchPods watches as a person would, and ends the command, which would never end, when every pod is there and ready.
func watchPods(t *testing.T, s *site, command string) {
	ctx, cancel := context.WithTimeout(s.ctx, 8*time.Minute)
	defer cancel()
	cmd := s.command(ctx, command)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := map[string]bool{}
	lines := bufio.NewScanner(out)
	all := false
	for !all && lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 3 || f[0] == "NAME" {
			continue
		}
		is, want, _ := strings.Cut(f[1], "/")
		ready[f[0]] = is == want && f[2] == "Running" || f[2] == "Completed"
		all = len(ready) == pods(t)
		for _, r := range ready {
			all = all && r
		}
	}
	cancel()
	_ = cmd.Wait() // it was ended
	t.Logf("%6.1f s  %s", time.Since(start).Seconds(), command)
	if !all {
		t.Fatalf("%s: of %d pods these were seen, and whether they were ready: %v%s", command, pods(t), ready, s.look())
	}
}

// forward leaves the command running. It listens on a loopback address of the test's own: another lab may have the port
// on the usual one.
func forward(t *testing.T, s *site, command string) {
	pid := os.Getpid()
	address := fmt.Sprintf("127.%d.%d.%d", 64+pid>>16&63, pid>>8&255, 1+pid&127)
	ctx, cancel := context.WithCancel(s.ctx)
	cmd := s.command(ctx, command+" --address "+address)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.stop = func() {
		cancel()
		_ = cmd.Wait()
		s.stop = nil
	}
	said := regexp.MustCompile(`Forwarding from (\S+) ->`)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := said.FindStringSubmatch(lines.Text()); m != nil {
			s.forwarded = m[1]
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return
		}
	}
	t.Fatalf("%s: it does not forward", command)
}

// browse asks for the page that the command opens, by the way that is forwarded.
func browse(t *testing.T, s *site, command string) {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.forwarded)
		},
	}}
	resp, err := client.Get(strings.TrimPrefix(command, "open "))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(string(page), "Please sign in") {
		t.Errorf("%s: %s\n%s", command, resp.Status, page)
	}
	s.stop()
}

// entries compares the identities that SPIRE lists with the rows that run.
func entries(t *testing.T, s *site, command string) {
	out := s.run(t, command)
	is := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^SPIFFE ID\s*: (\S+)`).FindAllStringSubmatch(out, -1) {
		is[m[1]] = true
	}
	want := 1 // the alias of the nodes
	for _, w := range topo(t).Workloads {
		if w.Binary == "" {
			continue
		}
		want++
		if id := topo(t).ID(w.Name).String(); !is[id] {
			t.Errorf("SPIRE does not list %s", id)
		}
	}
	if len(is) != want {
		t.Errorf("SPIRE lists %d identities, want %d\n%s", len(is), want, out)
	}
}

// ready waits until everything that was asked for runs, is the newest and is ready.
func (s *site) ready(t *testing.T) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.config)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, 8*time.Minute)
	defer cancel()
	start := time.Now()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	var last []string
	for {
		waits, err := waiting(ctx, client, s.namespace)
		if err == nil {
			last = waits
		}
		if err == nil && len(waits) == 0 {
			t.Logf("%6.1f s  until all is ready", time.Since(start).Seconds())
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not ready: %v %v%s", last, err, s.look())
		}
	}
}

// waiting names what is not ready yet.
func waiting(ctx context.Context, client kubernetes.Interface, namespace string) (names []string, err error) {
	add := func(name string, well bool) {
		if !well {
			names = append(names, name)
		}
	}
	deployments, err := client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, d := range deployments.Items {
		n := *d.Spec.Replicas
		add(
			d.Name,
			d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedReplicas == n && d.Status.ReadyReplicas == n &&
				d.Status.Replicas == n,
		)
	}
	sets, err := client.AppsV1().StatefulSets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, d := range sets.Items {
		n := *d.Spec.Replicas
		add(
			d.Name,
			d.Status.ObservedGeneration >= d.Generation && d.Status.CurrentRevision == d.Status.UpdateRevision &&
				d.Status.ReadyReplicas == n,
		)
	}
	agents, err := client.AppsV1().DaemonSets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, d := range agents.Items {
		n := d.Status.DesiredNumberScheduled
		add(
			d.Name,
			n > 0 && d.Status.ObservedGeneration >= d.Generation && d.Status.UpdatedNumberScheduled == n &&
				d.Status.NumberReady == n,
		)
	}
	jobs, err := client.BatchV1().Jobs(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, j := range jobs.Items {
		add(j.Name, j.Status.Succeeded > 0)
	}
	if len(deployments.Items) == 0 || len(sets.Items) == 0 || len(agents.Items) == 0 || len(jobs.Items) == 0 {
		names = append(names, "what was installed")
	}
	return names, nil
}

// ownSecret waits for the gateway with the key out of the Secret that was made by hand. The chart's own is gone.
func ownSecret(t *testing.T, s *site) {
	s.ready(t)
	if out := s.run(t, "kubectl get pods -n "+s.namespace+" -l app=llm-gateway -o "+
		"jsonpath='{.items[*].spec.volumes[*].secret.secretName}'"); out != "my-gemini-key" {
		t.Errorf("the gateway mounts %q", out)
	}
	if out, err := s.command(s.ctx, "kubectl get secret gemini-api-key -n "+s.namespace).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "NotFound") {
		t.Errorf("the chart's Secret: %v\n%s", err, out)
	}
}

// uninstall runs the command and waits until the namespace and everything in it is gone.
func uninstall(t *testing.T, s *site, command string) {
	s.run(t, command)
	s.run(t, "kubectl wait --for=delete namespace/"+s.namespace+" --timeout=3m")
	left := "kubectl get clusterroles,clusterrolebindings,persistentvolumes -o name | grep -e " + s.namespace + " -e spire"
	if out := s.run(t, left+" || true"); out != "" {
		t.Errorf("%s leaves\n%s", command, out)
	}
}

// fromThePreviousChart installs what was there before the chart's last change, with its own programs, upgrades it to
// what is there now, and starts the database a second time: what was written stays.
func fromThePreviousChart(t *testing.T, s *site, _ string) {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(s.ctx, "git", args...)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	before := "HEAD"
	if _, err := git("diff", "--quiet", "HEAD", "--", "manifests/chart"); err == nil {
		last, err := git("log", "-1", "--format=%H", "--", "manifests/chart")
		if err != nil {
			t.Fatalf("find the chart's last change: %v\n%s", err, last)
		}
		before = last + "~1"
		// A chart that has not changed since the first commit is upgraded from there; where the history is cut off, that
		// cannot be known.
		if shallow, err := git("rev-parse", "--is-shallow-repository"); err == nil && shallow == "false" {
			if _, err := git("rev-parse", "--verify", before); err != nil {
				before = last
			}
		}
	}
	if out, err := git("rev-parse", "--verify", before); err != nil {
		t.Fatalf("find the chart before its last change; is the history there? %v\n%s", err, out)
	}
	archive := filepath.Join(filepath.Dir(s.tree), "before.tar")
	if out, err := git("archive", "--output="+archive, before); err != nil {
		t.Fatalf("unpack %s: %v\n%s", before, err, out)
	}
	old := *s
	old.tree = filepath.Join(filepath.Dir(s.tree), "before")
	if err := os.Mkdir(old.tree, 0o755); err != nil {
		t.Fatal(err)
	}
	old.run(t, "tar -xf "+archive)
	old.run(t, "make build && docker build -q -t "+s.previous()+" . && kind load docker-image "+s.previous())
	old.run(t, "helm install security-system ./manifests/chart --set image.tag="+s.cluster+s.offline)
	s.ready(t)
	s.sql(
		t,
		`insert into people.person (id, name, email, role, team, manager, joined, zone, accounts)
			values ('kept', 'K', 'k@example.org', 'r', 't', '', '2026-01-01', 'UTC', '{}')`,
	)
	kept := func(after string) {
		t.Helper()
		if out := s.sql(t, `select count(*) from people.person where id = 'kept'`); out != "1" {
			t.Errorf("after %s the row is there %q times", after, out)
		}
	}
	kept("it was written")
	s.run(t, "helm upgrade security-system ./manifests/chart"+s.offline)
	s.ready(t)
	kept("the upgrade")
	pod := "kubectl get pods -n " + s.namespace + " -l app=postgres -o jsonpath='{.items[*].metadata.uid}'"
	was := s.run(t, pod)
	s.run(t, "kubectl delete pod -n "+s.namespace+" -l app=postgres")
	s.ready(t)
	if is := s.run(t, pod); is == was {
		t.Error("it is the database's old pod")
	}
	kept("the database's second start")
	uninstall(t, s, "helm uninstall security-system")
}

// sql asks the database over its unix socket, as the account that dbkeeper has.
func (s *site) sql(t *testing.T, query string) string {
	t.Helper()
	line := fmt.Sprintf(
		`kubectl exec -n %s deploy/postgres -c server -- bash -c '`+
			`PATH="$PATH:/usr/lib/postgresql/${PG_MAJOR:-17}/bin"; `+
			`psql -v ON_ERROR_STOP=1 -p "$DB_PORT" -d security_training -Atc "$0"' "%s"`,
		s.namespace,
		query,
	)
	return strings.TrimSpace(s.run(t, line))
}

// nothingLeft looks for what the cluster was made of.
func nothingLeft(t *testing.T, s *site) {
	for _, line := range []string{
		"docker ps -aq --filter label=io.x-k8s.kind.cluster=" + s.cluster,
		"docker volume ls -q --filter label=io.x-k8s.kind.cluster=" + s.cluster,
		"kubectl config get-contexts -o name",
		"kubectl config get-clusters | grep -v ^NAME || true",
	} {
		if out := s.run(t, line); strings.TrimSpace(out) != "" {
			t.Errorf("%s: %s", line, out)
		}
	}
}
