package manifests_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"example.org/security-training/manifests"
	"example.org/security-training/services/registrar"
	"example.org/security-training/services/topology"
)

func TestEverythingIsInTheNamespaceThatTheChartMakes(t *testing.T) {
	for _, ns := range []string{"security-training", "elsewhere"} {
		list := render(t, values{"namespace": ns})
		made := all[*corev1.Namespace](list)[ns]
		if made == nil {
			t.Fatalf("no namespace %s", ns)
		}
		for level, want := range map[string]string{"enforce": "privileged", "audit": "restricted", "warn": "restricted"} {
			if got := made.Labels["pod-security.kubernetes.io/"+level]; got != want {
				t.Errorf("%s is %q, want %s", level, got, want)
			}
		}
		for _, o := range list {
			m := o.(metav1.Object)
			kind := o.GetObjectKind().GroupVersionKind().Kind
			if slices.Contains([]string{"ClusterRole", "ClusterRoleBinding"}, kind) {
				if !strings.HasPrefix(m.GetName(), ns+"-") {
					t.Errorf("%s is of the whole cluster and does not carry the namespace", keyOf(o))
				}
			} else if m.GetNamespace() != ns && kind != "Namespace" {
				t.Errorf("%s is in %q", keyOf(o), m.GetNamespace())
			}
		}
		if text := manifest(t, list); ns != "security-training" && strings.Contains(text, "namespace: security-training") {
			t.Error("the default namespace is named elsewhere, too")
		}
	}
}

// TestRowsOfTheTopologyAreWhatIsInstalled compares both ways: the chart makes the objects that each row needs, and no
// others.
func TestRowsOfTheTopologyAreWhatIsInstalled(t *testing.T) {
	list := render(t, nil)
	var want []string
	for _, w := range running(t) {
		want = append(
			want,
			"Deployment/"+w.Name,
			"ServiceAccount/"+w.Name+"-sa",
			"Service/"+w.Host(),
			"PersistentVolumeClaim/"+w.Name+"-state",
			"NetworkPolicy/"+w.Name,
		)
		if s := "Secret/source-" + w.Source; w.Source != "" && !slices.Contains(want, s) {
			want = append(want, s)
		}
	}
	// These objects belong to no row.
	want = append(
		want,
		"Namespace/security-training",
		"ConfigMap/topology",
		"ConfigMap/postgres-server",
		"NetworkPolicy/default-deny",
		"NetworkPolicy/dns",
		"PodDisruptionBudget/postgres",
		"PodDisruptionBudget/spire-server",
		"ConfigMap/spire-bundle",
	)
	for _, part := range []string{"spire-server", "spire-agent", "spire-register-workloads"} {
		want = append(want, "ServiceAccount/"+part, "NetworkPolicy/"+part)
	}
	for _, part := range []string{"spire-server", "spire-agent"} {
		want = append(
			want,
			"ConfigMap/"+part,
			"ClusterRole/security-training-"+part,
			"ClusterRoleBinding/security-training-"+part,
		)
	}
	want = append(
		want,
		"Role/spire-server",
		"RoleBinding/spire-server",
		"Role/spire-register-workloads",
		"RoleBinding/spire-register-workloads",
		"Service/spire-server",
		"StatefulSet/spire-server",
		"DaemonSet/spire-agent",
		"Job/"+jobName(t, list),
	)
	var got []string
	for _, o := range list {
		got = append(got, keyOf(o))
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-topology +chart)\n%s", d)
	}
}

func jobName(t *testing.T, list objects) string {
	t.Helper()
	jobs := slices.Collect(maps.Keys(all[*batchv1.Job](list)))
	if len(jobs) != 1 {
		t.Fatalf("jobs: %v", jobs)
	}
	return jobs[0]
}

// container finds a container by its name.
func container(t *testing.T, p pod, name string) corev1.Container {
	t.Helper()
	for _, c := range p.spec.Containers {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("%s has no container %s", p.owner, name)
	return corev1.Container{}
}

func TestEachRowRunsAsTheTopologySays(t *testing.T) {
	list := render(
		t,
		loader.MergeMaps(
			values{"global": values{"geminiApiKey": "k"}, "lms": values{"peopleTLSSecret": "people"}},
			provider("client"),
		),
	)
	all := pods(list)
	postgres := topo(t).OfKind(topology.KindDatabase)[0]
	for _, w := range running(t) {
		p := all[w.Name]
		c := container(t, p, w.Name)
		if d := cmp.Diff([]string{"/app/" + w.Binary}, c.Command); d != "" {
			t.Errorf("%s: command: %s", w.Name, d)
		}
		if p.spec.ServiceAccountName != w.Name+"-sa" || p.meta.Labels["security-training/kind"] != w.Kind ||
			p.meta.Labels["app.kubernetes.io/part-of"] != "security-training" {
			t.Errorf("%s: account %s, labels %v", w.Name, p.spec.ServiceAccountName, p.meta.Labels)
		}
		ports := map[string]int32{"health": int32(w.Health)}
		if len(w.Serves) > 0 {
			ports["mesh"] = int32(w.Port)
		}
		for name, port := range map[string]int{"web": w.Web, "web-tls": w.WebTLS} {
			if port != 0 {
				ports[name] = int32(port)
			}
		}
		got := map[string]int32{}
		for _, p := range c.Ports {
			got[p.Name] = p.ContainerPort
		}
		if d := cmp.Diff(ports, got); d != "" {
			t.Errorf("%s: ports: %s", w.Name, d)
		}
		want := map[string]string{
			"WORKLOAD": w.Name, "SPIFFE_ENDPOINT_SOCKET": "unix:///run/spire/agent-sockets/api.sock",
			"TRUST_DOMAIN":  topo(t).TrustDomain,
			"TOPOLOGY_FILE": "/etc/security-training/topology.yaml", "AUDIT_FILE": "/var/lib/security-training/audit",
			"DATA_DIR":         "/var/lib/security-training/state",
			"MEMORY_LIMIT_MIB": "", "GOMEMLIMIT": "$(MEMORY_LIMIT_MIB)000000",
		}
		if len(w.Database) > 0 {
			want["DB_HOST"], want["DB_PORT"], want["DB_NAME"] = postgres.Host(), fmt.Sprint(postgres.Port), "security_training"
		}
		if w.Source != "" {
			want["SOURCE_SECRET_FILE"] = "/etc/source/secret"
		}
		switch w.Kind {
		case topology.KindGateway:
			want["LLM_BACKEND"], want["GEMINI_MODEL"] = "gemini", "gemini-2.5-flash"
			want["GEMINI_API_KEY_FILE"] = "/etc/gemini/key"
		case topology.KindDatabase:
			want["PGHOST"], want["DB_PORT"], want["DB_NAME"], want["TLS_DIR"] = "/run/postgresql", fmt.Sprint(
				w.Port,
			), "security_training", "/run/postgresql-tls"
		case topology.KindDashboard:
			want["PEOPLE_TLS_DIR"], want["OIDC_CLIENT_SECRET_FILE"] = "/etc/people-tls", "/etc/oidc/secret"
			want["OIDC_ISSUER"], want["OIDC_CLIENT_ID"] = "https://id.example.org", "training"
			want["OIDC_REDIRECT_URL"] = "https://lms.example.org/sign-in/callback"
		}
		env := map[string]string{}
		for _, e := range c.Env {
			if _, twice := env[e.Name]; twice {
				t.Errorf("%s is told %s twice", w.Name, e.Name)
			}
			env[e.Name] = e.Value
		}
		if d := cmp.Diff(want, env); d != "" {
			t.Errorf("%s: environment: %s", w.Name, d)
		}
		// Each file and folder in the environment is on a mounted volume.
		for name, v := range env {
			path, ok := strings.CutPrefix(v, "unix://")
			if ok || strings.HasPrefix(v, "/") {
				if why := missing(list, p, c, path); why != "" {
					t.Errorf("%s: %s=%s: %s", w.Name, name, v, why)
				}
			}
		}
	}
}

// GOMEMLIMIT is slightly below the container's memory limit, for any limit. So the garbage collector works harder
// before the kernel ends the workload.
func TestAWorkloadIsToldToCollectBeforeItsContainersLimit(t *testing.T) {
	for _, limit := range []string{"256Mi", "300M", "1Gi", "100000000"} {
		all := pods(render(t, set("resources.app.limits.memory", limit)))
		for _, w := range running(t) {
			c := container(t, all[w.Name], w.Name)
			told := int64(0)
			mib := ""
			for _, e := range c.Env {
				switch {
				case e.ValueFrom != nil && e.ValueFrom.ResourceFieldRef != nil: // as a kubelet does it
					r := e.ValueFrom.ResourceFieldRef
					if r.Resource != "limits.memory" || e.Name != "MEMORY_LIMIT_MIB" {
						t.Fatalf("%s: %s is %s", w.Name, e.Name, r.Resource)
					}
					mib = fmt.Sprint((c.Resources.Limits.Memory().Value() + r.Divisor.Value() - 1) / r.Divisor.Value())
				case e.Name == "GOMEMLIMIT": // a kubelet replaces what stands before it alone
					var err error
					if told, err = strconv.ParseInt(strings.ReplaceAll(e.Value, "$(MEMORY_LIMIT_MIB)", mib), 10, 64); err != nil {
						t.Fatal(err)
					}
				}
			}
			if most := c.Resources.Limits.Memory().Value(); told < most/10*9 || told > most/100*97 {
				t.Errorf("%s: of a limit of %d bytes it is told %d", w.Name, most, told)
			}
		}
	}
}

// missing says why c has no file at path. It is empty if c can have one. Files of Secrets and ConfigMaps must be among
// their keys.
func missing(list objects, p pod, c corev1.Container, path string) string {
	for _, m := range c.VolumeMounts {
		if path != m.MountPath && !strings.HasPrefix(path, m.MountPath+"/") {
			continue
		}
		v := p.spec.Volumes[slices.IndexFunc(p.spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })]
		file := strings.TrimPrefix(strings.TrimPrefix(path, m.MountPath), "/")
		switch {
		case file == "":
		case v.ConfigMap != nil:
			if _, ok := all[*corev1.ConfigMap](list)[v.ConfigMap.Name].Data[file]; !ok {
				return "the ConfigMap " + v.ConfigMap.Name + " has no such key"
			}
		case v.Secret != nil:
			i := slices.IndexFunc(v.Secret.Items, func(k corev1.KeyToPath) bool { return k.Path == file })
			if i < 0 {
				return "no item is put there"
			}
			made := all[*corev1.Secret](list)[v.Secret.SecretName]
			if made == nil && v.Secret.SecretName == "client" {
				return "" // the installer's own, with the key that values.yaml names
			}
			if made == nil || made.Data[v.Secret.Items[i].Key] == nil {
				return "the Secret " + v.Secret.SecretName + " has no key " + v.Secret.Items[i].Key
			}
		}
		return ""
	}
	return "nothing is mounted there"
}

func TestServicesHaveThePortsOfTheirRow(t *testing.T) {
	list := all[*corev1.Service](render(t, nil))
	for _, w := range running(t) {
		s := list[w.Host()]
		want := []int32{int32(w.Port)}
		for _, p := range []int{w.Web, w.WebTLS} {
			if p != 0 {
				want = append(want, int32(p))
			}
		}
		var got []int32
		for _, p := range s.Spec.Ports {
			got = append(got, p.Port)
		}
		if d := cmp.Diff(want, got); d != "" || s.Spec.Selector["app"] != w.Name || s.Spec.Type != "" {
			t.Errorf("%s: %s, selects %v, of type %q", s.Name, d, s.Spec.Selector, s.Spec.Type)
		}
	}
}

// TestWhatIsRegisteredIsWhatRuns compares the registrar's selectors with the pods: exactly one container matches each
// entry.
func TestWhatIsRegisteredIsWhatRuns(t *testing.T) {
	const ns = "elsewhere"
	list := pods(render(t, values{"namespace": ns}))
	node := registrar.Node(topo(t), "x")
	for _, e := range registrar.Entries(topo(t), node.SpiffeId, registrar.PodSelectors(ns)) {
		want := map[string]bool{}
		for _, s := range e.Selectors {
			want[s.Type+":"+s.Value] = true
		}
		var fits []string
		for _, p := range list {
			for _, c := range p.spec.Containers {
				is := map[string]bool{
					"k8s:ns:" + ns:                        true,
					"k8s:sa:" + p.spec.ServiceAccountName: true,
					"k8s:container-name:" + c.Name:        true,
				}
				if maps.Equal(want, is) {
					fits = append(fits, p.owner+" "+c.Name)
				}
			}
		}
		if d := cmp.Diff([]string{"Deployment/" + e.Id + " " + e.Id}, fits); d != "" {
			t.Errorf("entry %s: %s", e.Id, d)
		}
	}
}

func TestTopologyIsMountedAsTheFileThatEverybodyReads(t *testing.T) {
	list := render(t, nil)
	text := all[*corev1.ConfigMap](list)["topology"].Data["topology.yaml"]
	got, err := topology.FromYAML([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := topo(t).SameShape(got); err != nil {
		t.Error(err)
	}
	if strings.TrimSpace(text) != strings.TrimSpace(string(manifests.Topology())) {
		t.Error("the ConfigMap has another text than topology.yaml")
	}
	for _, w := range running(t) {
		p := pods(list)[w.Name]
		for _, m := range container(t, p, w.Name).VolumeMounts {
			if m.Name == "topology" && m.SubPath != "" {
				t.Errorf("%s mounts it by subPath, and would never see it change", w.Name)
			}
		}
		for key, v := range p.meta.Annotations {
			if strings.HasPrefix(key, "checksum/") &&
				v != pods(
					render(
						t, values{"topology": strings.Replace(text, "POST /v1/generate: [lms]", "POST /v1/generate: [instructor]", 1)},
					),
				)[w.Name].meta.Annotations[key] {
				t.Errorf("%s starts again when a caller is struck off", w.Name)
			}
		}
	}
}

func TestTheDatabaseIsRunByTheFilesThatManifestsHandsOut(t *testing.T) {
	list := render(t, nil)
	data := all[*corev1.ConfigMap](list)["postgres-server"].Data
	for name, want := range map[string][]byte{
		"pg_hba.conf": manifests.PostgresHBA(), "postgresql.conf": manifests.PostgresSettings(),
	} {
		if strings.TrimSpace(data[name]) != strings.TrimSpace(string(want)) || len(want) == 0 {
			t.Errorf("%s is not the file's text:\n%s", name, data[name])
		}
		if !strings.Contains(data["start.sh"], "_file=/etc/postgresql/"+name) {
			t.Errorf("start.sh does not name %s", name)
		}
	}
	var rules []string
	for _, line := range strings.Split(data["pg_hba.conf"], "\n") {
		if line != "" && !strings.HasPrefix(line, "#") {
			rules = append(rules, line)
		}
	}
	if d := cmp.Diff([]string{"local all postgres peer map=keeper", "hostssl all all all cert"}, rules); d != "" {
		t.Errorf("pg_hba.conf: %s", d)
	}
	for _, c := range pods(list)["postgres"].spec.Containers {
		for _, e := range c.Env {
			if strings.Contains(strings.ToUpper(e.Name), "PASSW") {
				t.Errorf("%s is told a password: %s", c.Name, e.Name)
			}
		}
	}
}

func TestTheBundleIsTheServersToWriteAndTheAgentWaitsForIt(t *testing.T) {
	list := render(t, nil)
	if b := all[*corev1.ConfigMap](list)["spire-bundle"]; b.Data != nil || b.BinaryData != nil {
		t.Errorf("the chart would take the bundle away: %v", b.Data)
	}
	server := all[*corev1.ConfigMap](list)["spire-server"].Data["server.conf"]
	for _, want := range []string{
		`BundlePublisher "k8s_configmap"`, `configmap_name = "spire-bundle"`, `configmap_key = "bundle.crt"`,
	} {
		if !strings.Contains(server, want) {
			t.Errorf("server.conf lacks %s", want)
		}
	}
	agent := pods(list)["spire-agent"]
	for _, v := range agent.spec.Volumes {
		if v.Name != "bundle" {
			continue
		}
		if v.ConfigMap.Name != "spire-bundle" || (v.ConfigMap.Optional != nil && *v.ConfigMap.Optional) ||
			len(v.ConfigMap.Items) != 1 ||
			v.ConfigMap.Items[0].Key != "bundle.crt" {
			t.Errorf("bundle: %+v", v.ConfigMap)
		}
	}
	conf := all[*corev1.ConfigMap](list)["spire-agent"].Data["agent.conf"]
	if !strings.Contains(conf, `trust_bundle_path = "/run/spire/bundle/bundle.crt"`) ||
		strings.Contains(conf, "insecure_bootstrap") {
		t.Errorf("agent.conf:\n%s", conf)
	}
	if !agent.spec.HostPID || agent.spec.HostNetwork {
		t.Errorf("the agent: hostPID %v, hostNetwork %v", agent.spec.HostPID, agent.spec.HostNetwork)
	}
	p := pods(list)["spire-server"]
	if p.spec.Containers[0].Name != "spire-server" ||
		p.meta.Annotations["kubectl.kubernetes.io/default-container"] != "spire-server" {
		t.Error("kubectl exec would not reach the container spire-server")
	}
}

func TestTheRegistrationIsAnotherJobWhenWhatItDoesIsAnother(t *testing.T) {
	plain := jobName(t, render(t, nil))
	if plain != jobName(t, render(t, nil)) || len(plain) != len("spire-register-workloads-")+8 {
		t.Errorf("%s, and another one the next time", plain)
	}
	for _, vals := range []values{
		set("image.tag", "2"), set("spire.svidTTL", "2m"), {"topology": string(manifests.Topology()) + "\n# another"},
	} {
		if jobName(t, render(t, vals)) == plain {
			t.Errorf("%v: the same job, which cannot be changed", vals)
		}
	}
	if jobName(t, render(t, set("llm.model", "x"))) != plain {
		t.Error("a setting of the gateway registers all workloads again")
	}
}
