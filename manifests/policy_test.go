package manifests_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"example.org/security-training/manifests"
	"example.org/security-training/services/env/needtest"
	"example.org/security-training/services/topology"
)

// violations are what Pod Security restricted says of p, as "reason: detail".
func violations(t *testing.T, p pod) []string {
	t.Helper()
	latest := api.LatestVersion()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range evaluator.EvaluatePod(
		api.LevelVersion{Level: api.LevelRestricted, Version: latest}, &p.meta, &p.spec,
	) {
		if !r.Allowed {
			out = append(out, r.ForbiddenReason+": "+r.ForbiddenDetail)
		}
	}
	slices.Sort(out)
	return out
}

// TestPodsAreRestrictedButForWhatIsListedHere lists every exception: the agent and, in hostPath mode, the socket's
// volume.
func TestPodsAreRestrictedButForWhatIsListedHere(t *testing.T) {
	socket := `restricted volume types: volume "spire-agent-socket" uses restricted volume type "hostPath"`
	agent := []string{
		`host namespaces: hostPID=true`,
		`restricted volume types: volume "sockets" uses restricted volume type "hostPath"`,
		`runAsNonRoot != true: pod or container "spire-agent" must set securityContext.runAsNonRoot=true`,
		`runAsUser=0: pod must not set runAsUser=0`,
		`unrestricted capabilities: container "spire-agent" must not include "SYS_PTRACE" ` +
			`in securityContext.capabilities.add`,
	}
	for _, mode := range []string{"hostPath", "csi"} {
		got, want := map[string][]string{}, map[string][]string{}
		for name, p := range pods(render(t, set("spire.socket", mode))) {
			got[name], want[name] = violations(t, p), nil
		}
		want["spire-agent"] = agent
		for _, w := range running(t) {
			if mode == "hostPath" {
				want[w.Name] = []string{socket}
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-listed +measured)\n%s", mode, d)
		}
	}
}

func TestTheSocketsFolderIsMountedForReadingAndNothingElseOfTheNode(t *testing.T) {
	list := pods(render(t, values{"namespace": "elsewhere"}))
	for _, w := range running(t) {
		p := list[w.Name]
		for _, v := range p.spec.Volumes {
			if v.HostPath == nil {
				continue
			}
			if v.Name != "spire-agent-socket" || v.HostPath.Path != "/run/spire/elsewhere/agent-sockets" {
				t.Errorf("%s mounts %s of the node", w.Name, v.HostPath.Path)
			}
			for _, c := range p.spec.Containers {
				for _, m := range c.VolumeMounts {
					if m.Name == v.Name && (!m.ReadOnly || m.MountPath != "/run/spire/agent-sockets") {
						t.Errorf("%s: %s mounts the socket's folder at %s, for writing: %v", w.Name, c.Name, m.MountPath, !m.ReadOnly)
					}
				}
			}
		}
	}
	for _, v := range pods(render(t, set("spire.socket", "csi")))["lms"].spec.Volumes {
		if v.Name == "spire-agent-socket" && (v.CSI == nil || v.CSI.Driver != "csi.spiffe.io" || !*v.CSI.ReadOnly) {
			t.Errorf("csi: %+v", v)
		}
	}
}

// setup is one pod with the objects that belong to it.
type setup struct {
	pod
	policies []*networkingv1.NetworkPolicy
	budgets  []*policyv1.PodDisruptionBudget
}

// rule is a check of each pod. It names what is wrong.
type rule struct {
	name   string
	check  func(setup) string
	spoil  func(*setup) // an edit that the rule must notice
	except []string     // pods for which the rule need not hold, each with a comment that gives the reason
}

func each(f func(corev1.Container) string) func(setup) string {
	return func(s setup) string {
		for _, c := range s.spec.Containers {
			if why := f(c); why != "" {
				return c.Name + ": " + why
			}
		}
		return ""
	}
}

func quantity(l corev1.ResourceList) string {
	for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		if q, ok := l[r]; !ok || q.IsZero() {
			return "no " + string(r)
		}
	}
	return ""
}

// rules are the checks of tools that score charts, and some more.
var rules = []rule{
	{"limits are set", each(func(c corev1.Container) string { return quantity(c.Resources.Limits) }),
		func(s *setup) { delete(s.spec.Containers[0].Resources.Limits, corev1.ResourceMemory) }, nil},
	{"requests are set", each(func(c corev1.Container) string { return quantity(c.Resources.Requests) }),
		func(s *setup) { delete(s.spec.Containers[0].Resources.Requests, corev1.ResourceCPU) }, nil},
	{"requests are within limits", each(func(c corev1.Container) string {
		for r, q := range c.Resources.Requests {
			if q.Cmp(c.Resources.Limits[r]) > 0 {
				return "requests more " + string(r) + " than it may take"
			}
		}
		return ""
	}), func(s *setup) {
		s.spec.Containers[0].Resources.Limits[corev1.ResourceMemory] = resource.MustParse("1Mi")
	}, nil},
	{"image has a tag, and is not always pulled", func(s setup) string {
		for _, c := range s.spec.Containers {
			name, tag, ok := strings.Cut(c.Image[strings.LastIndex(c.Image, "/")+1:], ":")
			if !ok || name == "" || tag == "" {
				return c.Image
			}
			if c.ImagePullPolicy != corev1.PullIfNotPresent {
				return string(c.ImagePullPolicy)
			}
		}
		return ""
	}, func(s *setup) { s.spec.Containers[0].Image = "postgres" }, nil},
	{"root is read-only", each(func(c corev1.Container) string {
		if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil ||
			!*c.SecurityContext.ReadOnlyRootFilesystem {
			return "may write to its root"
		}
		return ""
	}), func(s *setup) { s.spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem = nil }, nil},
	{"no privilege is gained", each(func(c corev1.Container) string {
		sc := c.SecurityContext
		if sc == nil || sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation ||
			(sc.Privileged != nil && *sc.Privileged) {
			return "may gain privileges"
		}
		if sc.Capabilities == nil || !slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			return "keeps capabilities"
		}
		return ""
	}), func(s *setup) { s.spec.Containers[0].SecurityContext.Capabilities = nil }, nil},
	{"account is high or an image's own, and no root", func(s setup) string {
		sc := s.spec.SecurityContext
		if sc.RunAsUser == nil || *sc.RunAsUser == 0 || sc.RunAsGroup == nil || *sc.RunAsGroup == 0 || sc.FSGroup == nil {
			return "runs as root"
		}
		return ""
	}, func(s *setup) { s.spec.SecurityContext.RunAsUser = nil }, []string{"spire-agent"}}, // makes its socket on the node
	{"no token is mounted", func(s setup) string {
		if s.spec.AutomountServiceAccountToken == nil || *s.spec.AutomountServiceAccountToken {
			return "has a token for the API server"
		}
		for _, v := range s.spec.Volumes {
			if v.Projected == nil {
				continue
			}
			for _, p := range v.Projected.Sources {
				if p.ServiceAccountToken != nil {
					return "projects a token"
				}
			}
		}
		return ""
	}, func(s *setup) { s.spec.AutomountServiceAccountToken = nil },
		[]string{
			"spire-agent",
			"spire-server",
			"spire-register-workloads",
		}}, // asks the kubelet; asks for token reviews; execs into one pod
	{"account is its own", func(s setup) string {
		if s.spec.ServiceAccountName == "" || s.spec.ServiceAccountName == "default" {
			return "runs under the default account"
		}
		return ""
	}, func(s *setup) { s.spec.ServiceAccountName = "" }, nil},
	{"no links to services in the environment", func(s setup) string {
		if s.spec.EnableServiceLinks == nil || *s.spec.EnableServiceLinks {
			return "is told of every Service"
		}
		return ""
	}, func(s *setup) { s.spec.EnableServiceLinks = nil }, nil},
	{"probes are there and differ", each(func(c corev1.Container) string {
		switch {
		case c.Name == "bridge": // waits, and has nothing that could be asked
		case c.StartupProbe == nil || c.ReadinessProbe == nil || c.LivenessProbe == nil:
			return "lacks a probe"
		case cmp.Equal(c.ReadinessProbe.ProbeHandler, c.LivenessProbe.ProbeHandler):
			return "is ended when it is only not ready"
		}
		return ""
	}), func(s *setup) {
		s.spec.Containers[0].LivenessProbe.ProbeHandler = s.spec.Containers[0].ReadinessProbe.ProbeHandler
	},
		[]string{"spire-register-workloads"}}, // a job ends by itself
	{"some network policy speaks of it in both directions", func(s setup) string {
		for _, p := range s.policies {
			if p.Spec.PodSelector.MatchLabels["app"] == s.meta.Labels["app"] && len(p.Spec.PolicyTypes) == 2 {
				return ""
			}
		}
		return "only what is denied to all is denied to it"
	}, func(s *setup) { s.policies = nil }, nil},
	{"a disruption budget protects what cannot be done without", func(s setup) string {
		for _, b := range s.budgets {
			if b.Spec.Selector.MatchLabels["app"] == s.meta.Labels["app"] && *b.Spec.MaxUnavailable == intstr.FromInt32(0) {
				return ""
			}
		}
		return "may be evicted unasked"
	}, func(s *setup) { s.budgets = nil },
		// An evicted gateway, collector, scorer or learning system continues in its new pod. A simulator has no state to
		// lose. An agent belongs to its node, and a job ends.
		[]string{
			"lms",
			"llm-gateway",
			"risk-scorer",
			"git-collector",
			"jira-collector",
			"iam-collector",
			"siem-collector",
			"sim-git",
			"sim-jira",
			"sim-iam",
			"sim-siem",
			"stub-gemini",
			"spire-agent",
			"spire-register-workloads",
		}},
	{"no port of the node", func(s setup) string {
		if s.spec.HostNetwork {
			return "is in the node's network"
		}
		return each(func(c corev1.Container) string {
			for _, p := range c.Ports {
				if p.HostPort != 0 {
					return fmt.Sprint("takes the node's port ", p.HostPort)
				}
			}
			return ""
		})(s)
	}, func(s *setup) { s.spec.HostNetwork = true }, nil},
	{"no secret is in the environment", each(func(c corev1.Container) string {
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil || len(c.EnvFrom) > 0 {
				return e.Name
			}
		}
		return ""
	}), func(s *setup) {
		s.spec.Containers[0].Env = []corev1.EnvVar{
			{Name: "KEY", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "key"}}},
		}
	}, nil},
}

func setups(list objects) map[string]setup {
	out := map[string]setup{}
	policies := slices.Collect(maps.Values(all[*networkingv1.NetworkPolicy](list)))
	budgets := slices.Collect(maps.Values(all[*policyv1.PodDisruptionBudget](list)))
	for name, p := range pods(list) {
		out[name] = setup{p, policies, budgets}
	}
	return out
}

func TestEveryPodKeepsTheRules(t *testing.T) {
	needtest.Unhurried(t, "the chart is rendered twice for each rule")
	vals := loader.MergeMaps(
		values{"global": values{"geminiApiKey": "k"}, "lms": values{"peopleTLSSecret": "people"}},
		provider("client"),
	)
	for _, r := range rules {
		t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
			kept := 0
			for name, s := range setups(render(t, vals)) {
				why, excepted := r.check(s), slices.Contains(r.except, name)
				switch {
				case why != "" && !excepted:
					t.Errorf("%s: %s", name, why)
				case why == "" && excepted:
					t.Errorf("%s keeps the rule and needs no exception", name)
				case why == "":
					kept++
				}
			}
			if kept == 0 {
				t.Error("it holds of nothing")
			}
			for name, s := range setups(render(t, vals)) {
				if slices.Contains(r.except, name) {
					continue
				}
				if r.spoil(&s); r.check(s) == "" {
					t.Errorf("%s: broken on purpose, and not noticed", name)
				}
			}
		})
	}
}

// place is an end of a connection: a pod with its labels, or an address outside the cluster.
type place struct {
	labels labels.Set
	ip     string
}

func selects(t *testing.T, s metav1.LabelSelector, l labels.Set) bool {
	t.Helper()
	sel, err := metav1.LabelSelectorAsSelector(&s)
	if err != nil {
		t.Fatal(err)
	}
	return sel.Matches(l)
}

// reaches says whether one of peers selects p, which is a pod of the namespace or an address outside.
func reaches(t *testing.T, peers []networkingv1.NetworkPolicyPeer, p place) bool {
	t.Helper()
	for _, peer := range peers {
		switch {
		case peer.IPBlock != nil && p.ip != "":
			if peer.IPBlock.CIDR == "0.0.0.0/0" || strings.HasPrefix(peer.IPBlock.CIDR, p.ip+"/") {
				return true
			}
		case peer.PodSelector != nil && peer.NamespaceSelector == nil && p.labels != nil:
			if selects(t, *peer.PodSelector, p.labels) {
				return true
			}
		}
	}
	return len(peers) == 0 // Kubernetes: an empty list is everybody
}

func opens(ports []networkingv1.NetworkPolicyPort, port int) bool {
	if len(ports) == 0 {
		return true
	}
	return slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		return p.Port == nil || p.Port.IntValue() == port && (p.Protocol == nil || *p.Protocol == corev1.ProtocolTCP)
	})
}

// flows says whether the policies let a connection pass, as Kubernetes reads them: if any policy selects a side, one of
// that side's policies must allow the connection.
func flows(t *testing.T, policies map[string]*networkingv1.NetworkPolicy, from, to place, port int) bool {
	t.Helper()
	leaves, enters := from.labels == nil, to.labels == nil
	for _, p := range policies {
		if from.labels != nil && slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) &&
			selects(t, p.Spec.PodSelector, from.labels) {
			for _, r := range p.Spec.Egress {
				leaves = leaves || reaches(t, r.To, to) && opens(r.Ports, port)
			}
		}
		if to.labels != nil && slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) &&
			selects(t, p.Spec.PodSelector, to.labels) {
			for _, r := range p.Spec.Ingress {
				enters = enters || reaches(t, r.From, from) && opens(r.Ports, port)
			}
		}
	}
	return leaves && enters
}

// TestPacketsFlowWhereTheTopologyAdmitsACallerAndNowhereElse tries every pair of pods on every port that any pod has.
func TestPacketsFlowWhereTheTopologyAdmitsACallerAndNowhereElse(t *testing.T) {
	packetsFlowBy(t, string(manifests.Topology()), nil)
}

func TestNoPacketFlowsToWhereNoCallerIsListed(t *testing.T) {
	const list, none = "POST /v1/generate: [lms]", "POST /v1/generate: []"
	if n := strings.Count(string(manifests.Topology()), list); n != 1 {
		t.Fatalf("the topology has %q %d times", list, n)
	}
	text := strings.Replace(string(manifests.Topology()), list, none, 1)
	packetsFlowBy(t, text, set("topology", text))
}

func packetsFlowBy(t *testing.T, text string, vals values) {
	t.Helper()
	list := render(t, vals)
	policies := all[*networkingv1.NetworkPolicy](list)
	tp, err := topology.FromYAML([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	spire := map[string]int{"spire-agent spire-server": 8081}
	ports := []int{8081, 8080, 443}
	for _, w := range running(t) {
		ports = append(ports, w.Port, w.Health)
		for _, p := range []int{w.Web, w.WebTLS} {
			if p != 0 {
				ports = append(ports, p)
			}
		}
	}
	allowed, tried := 0, 0
	for from, f := range pods(list) {
		for to, p := range pods(list) {
			callee, row := tp.Workload(to)
			for _, port := range ports {
				want := row && port == callee.Port && tp.Admits(from, to) || spire[from+" "+to] == port
				tried++
				if want {
					allowed++
				}
				if got := flows(t, policies, place{labels: f.meta.Labels}, place{labels: p.meta.Labels}, port); got != want {
					t.Errorf("%s -> %s:%d: %v, want %v", from, to, port, got, want)
				}
			}
		}
	}
	if allowed < len(running(t)) || tried < 1000 {
		t.Errorf("%d of %d: the test tries nothing", allowed, tried)
	}
}

func TestOnlyThoseLeaveWhoMustAndOnlyByThatPort(t *testing.T) {
	outside := place{ip: "203.0.113.7"}
	for backend, vals := range map[string]values{
		"stub": nil, "gemini": set("global.geminiSecret", "s"),
		"provider": loader.MergeMaps(provider(""), set("networkPolicy.oidc.ports", []any{443, 8080})),
	} {
		list := render(t, vals)
		policies := all[*networkingv1.NetworkPolicy](list)
		got := map[string][]int{}
		for name, p := range pods(list) {
			for _, port := range []int{22, 53, 80, 443, 5432, 6443, 8080, 10250} {
				if flows(t, policies, place{labels: p.meta.Labels}, outside, port) {
					got[name] = append(got[name], port)
				}
				if flows(t, policies, outside, place{labels: p.meta.Labels}, port) {
					t.Errorf("%s: the world comes in on %d", name, port)
				}
			}
		}
		want := map[string][]int{"spire-server": {443, 6443}, "spire-register-workloads": {443, 6443}, "spire-agent": {10250}}
		if backend == "gemini" {
			want["llm-gateway"] = []int{443}
		}
		if backend == "provider" {
			want["lms"] = []int{443, 8080}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", backend, d)
		}
	}
}

func TestEverythingIsDeniedThatNoPolicyAllows(t *testing.T) {
	p := all[*networkingv1.NetworkPolicy](render(t, nil))["default-deny"].Spec
	want := networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Error(d)
	}
}

// TestTheImageHasTheProgramsThatPodsRunAndNoOther compares the Dockerfile, Docker's build context and the chart.
func TestTheImageHasTheProgramsThatPodsRunAndNoOther(t *testing.T) {
	want := map[string]bool{}
	for _, p := range pods(render(t, nil)) {
		for _, c := range p.spec.Containers {
			if len(c.Command) > 0 {
				if program, ok := strings.CutPrefix(c.Command[0], "/app/"); ok {
					want["bin/"+program] = true
				}
			}
		}
	}
	for _, w := range topo(t).Workloads {
		if w.Kind != topology.KindOperator && !want["bin/"+w.Binary] {
			t.Errorf("no pod runs %s", w.Binary)
		}
	}
	read := func(path string) string {
		b, err := os.ReadFile("../" + path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	copied, given := map[string]bool{}, map[string]bool{}
	for _, line := range strings.Split(read("Dockerfile"), "\n") {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "COPY" {
			if f[len(f)-1] != "/app/" {
				t.Errorf("copies to %s", f[len(f)-1])
			}
			for _, p := range f[1 : len(f)-1] {
				copied[p] = true
			}
		} else if len(f) > 0 && f[0] == "FROM" && f[1] != "scratch" {
			t.Errorf("stands on %s", f[1])
		}
	}
	lines := strings.Fields(read(".dockerignore"))
	if lines[0] != "*" {
		t.Error(".dockerignore does not begin with everything")
	}
	for _, line := range lines[1:] {
		given[strings.TrimPrefix(line, "!")] = true
	}
	if d := cmp.Diff(want, copied); d != "" {
		t.Errorf("Dockerfile (-pods +copied)\n%s", d)
	}
	if d := cmp.Diff(want, given); d != "" {
		t.Errorf(".dockerignore (-pods +given)\n%s", d)
	}
}
