// Package deploy follows DEPLOYMENT_ARCHITECTURE.md: it reads the commands that the document prints and runs each of
// them as it is printed, on a kind cluster of its own, from a copy of the source tree. It has tests only.
package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"sigs.k8s.io/yaml"

	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/env/needtest"
)

// canary has the form of a Gemini key, but is invented.
const canary = "AIzaSyCANARY-deploy-0123456789abcdefghi"

// interrupted ends on an interrupt. The tests then remove what they have made, too.
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

// step runs the one printed command that begins with begins. Without begins, it does something that no printed command
// does.
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

// plan lists all steps in the order in which they are run.
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

// eachValue sets each value of values.yaml alone: to its default, and to every choice that its comment names.
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
