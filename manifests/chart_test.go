package manifests_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"example.org/security-training/manifests"
	"example.org/security-training/services/registrar"
	"example.org/security-training/services/topology"
)

// values are nested maps, as a values file has them.
type values = map[string]any

// set is values with one leaf: set("a.b", 1) is {a: {b: 1}}.
func set(path string, v any) values {
	head, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		return values{head: v}
	}
	return values{head: set(rest, v)}
}

// provider are values with a provider of identities; secret is the name of a Secret, empty for none.
func provider(secret string) values {
	return set(
		"lms.oidc",
		values{
			"issuer":       "https://id.example.org",
			"clientID":     "training",
			"redirectURL":  "https://lms.example.org/sign-in/callback",
			"clientSecret": secret,
		},
	)
}

// cluster answers lookup from objects that are there already.
type cluster []runtime.Object

// GetClientFor implements engine.ClientProvider.
func (c cluster) GetClientFor(apiVersion, kind string) (dynamic.NamespaceableResourceInterface, bool, error) {
	gvr, _ := meta.UnsafeGuessKindToResource(schema.FromAPIVersionAndKind(apiVersion, kind))
	return dynamicfake.NewSimpleDynamicClient(scheme.Scheme, c...).Resource(gvr), true, nil
}

// texts renders every template of the embedded chart, as an install into cluster there would.
func texts(vals values, there cluster) (map[string]string, error) {
	var list []*archive.BufferedFile
	err := fs.WalkDir(manifests.Chart(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(manifests.Chart(), path)
		list = append(list, &archive.BufferedFile{Name: path, Data: b})
		return err
	})
	if err != nil {
		return nil, err
	}
	chart, err := loader.LoadFiles(list)
	if err != nil {
		return nil, err
	}
	full, err := util.ToRenderValues(
		chart,
		vals,
		common.ReleaseOptions{Name: "security-system", Namespace: "default", IsInstall: true},
		nil,
	)
	if err != nil {
		return nil, err
	}
	return engine.RenderWithClientProvider(chart, full, there)
}

// objects are what a rendering comes to.
type objects []runtime.Object

// render renders and decodes; a field that Kubernetes does not know is a fault.
func render(t *testing.T, vals values) objects {
	t.Helper()
	return renderInto(t, vals, nil)
}

func renderInto(t *testing.T, vals values, there cluster) objects {
	t.Helper()
	files, err := texts(vals, there)
	if err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	var out objects
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for _, text := range strings.Split("\n"+files[name], "\n---") {
			if len(bytes.TrimSpace([]byte(text))) == 0 || strings.HasSuffix(name, ".tpl") {
				continue
			}
			o, _, err := decoder.Decode([]byte(text), nil, nil)
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, text)
			}
			out = append(out, o)
		}
	}
	return out
}

// keyOf is "Kind/name".
func keyOf(o runtime.Object) string {
	return o.GetObjectKind().GroupVersionKind().Kind + "/" + o.(metav1.Object).GetName()
}

// all are the objects of type T by name.
func all[T runtime.Object](list objects) map[string]T {
	out := map[string]T{}
	for _, o := range list {
		if t, ok := o.(T); ok {
			out[any(t).(metav1.Object).GetName()] = t
		}
	}
	return out
}

// pod is a pod that some object makes.
type pod struct {
	owner string // "Deployment/lms"
	meta  metav1.ObjectMeta
	spec  corev1.PodSpec
}

func pods(list objects) map[string]pod {
	out := map[string]pod{}
	for _, o := range list {
		var t corev1.PodTemplateSpec
		switch o := o.(type) {
		case *appsv1.Deployment:
			t = o.Spec.Template
		case *appsv1.StatefulSet:
			t = o.Spec.Template
		case *appsv1.DaemonSet:
			t = o.Spec.Template
		case *batchv1.Job:
			t = o.Spec.Template
		default:
			continue
		}
		out[t.Labels["app"]] = pod{keyOf(o), t.ObjectMeta, t.Spec}
	}
	return out
}

func topo(t *testing.T) *topology.Topology {
	t.Helper()
	out, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// running are the rows that something runs for.
func running(t *testing.T) []topology.Workload {
	t.Helper()
	return slices.DeleteFunc(slices.Clone(topo(t).Workloads), func(w topology.Workload) bool { return w.Binary == "" })
}

// manifest is list as text that does not depend on what is random: the secrets of the sources.
func manifest(t *testing.T, list objects) string {
	t.Helper()
	var b strings.Builder
	for _, o := range list {
		if s, ok := o.(*corev1.Secret); ok && strings.HasPrefix(s.Name, "source-") {
			s.Data = nil
		}
		text, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
		b.WriteString("---\n")
	}
	return b.String()
}

func TestChartHasNothingToComplainAbout(t *testing.T) {
	result := action.NewLint().Run([]string{"chart"}, nil)
	for _, m := range result.Messages {
		if m.Severity > support.InfoSev {
			t.Error(m.Error())
		}
	}
	if result.TotalChartsLinted != 1 || len(result.Errors) > 0 {
		t.Errorf("linted %d charts: %v", result.TotalChartsLinted, result.Errors)
	}
}

// leaves are the paths of all values that are no maps, with the value.
func leaves(prefix string, v values) values {
	out := values{}
	for k, v := range v {
		if m, ok := v.(values); ok {
			maps.Copy(out, leaves(prefix+k+".", m))
			continue
		}
		out[prefix+k] = v
	}
	return out
}

func defaults(t *testing.T) values {
	t.Helper()
	b, err := fs.ReadFile(manifests.Chart(), "values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var v values
	if err := yaml.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestEachValueChangesWhatIsRendered sets each value to another one, alone: it must be heard. What is in values.yaml
// and not here is a fault, and the other way round.
func TestEachValueChangesWhatIsRendered(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	tried := values{
		"namespace": "elsewhere", "global.geminiApiKey": "k", "global.geminiSecret": "mine",
		"image.repository": "registry.example.org/app", "image.tag": "1", "image.digest": digest, "image.pullPolicy": "Never",
		"imagePullSecrets": []any{
			"pull",
		}, "topology": strings.ReplaceAll(string(manifests.Topology()), "security-training.example.org", "other.example.org"),
		"llm.model": "gemini-9", "lms.peopleTLSSecret": "people", "lms.hosts": []any{"training.example.org"},
		"lms.oidc.issuer": "https://other.example.org", "lms.oidc.clientID": "other",
		"lms.oidc.redirectURL": "https://other.example.org/sign-in/callback", "lms.oidc.clientSecret": "mine",
		"postgres.image.repository": "registry.example.org/pg", "postgres.image.tag": "18", "postgres.image.digest": digest,
		"postgres.image.pullPolicy": "Never",
		"spire.clusterName":         "other", "spire.caTTL": "1h", "spire.svidTTL": "10m", "spire.socket": "csi",
		"spire.server.image.repository": "registry.example.org/s", "spire.server.image.tag": "2",
		"spire.server.image.digest": digest, "spire.server.image.pullPolicy": "Never",
		"spire.agent.image.repository": "registry.example.org/a", "spire.agent.image.tag": "2",
		"spire.agent.image.digest": digest, "spire.agent.image.pullPolicy": "Never",
		"spire.agent.syncInterval": "5s", "spire.agent.kubeletVerification": true,
		"persistence.storageClass": "fast", "persistence.size": "2Gi", "persistence.spireSize": "2Gi",
		"networkPolicy.apiServer.cidr": "10.0.0.1/32", "networkPolicy.apiServer.ports": []any{8443},
		"networkPolicy.kubelet.cidr": "10.0.0.0/24", "networkPolicy.kubelet.port": 10251,
		// Heard with backend gemini alone, see below.
		"networkPolicy.gemini.cidr": "1.2.3.0/24", "networkPolicy.gemini.except": []any{"1.2.3.4/32"}, "llm.backend": "stub",
		// Heard with a provider of identities alone.
		"networkPolicy.oidc.cidr": "1.2.3.0/24", "networkPolicy.oidc.except": []any{
			"1.2.3.4/32",
		}, "networkPolicy.oidc.ports": []any{8443},
	}
	for _, who := range []string{"app", "database", "spire"} {
		for _, what := range []string{"requests", "limits"} {
			tried["resources."+who+"."+what+".cpu"] = "1500m"
			tried["resources."+who+"."+what+".memory"] = "333Mi"
			tried["resources."+who+"."+what+".ephemeral-storage"] = "77Mi"
		}
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(leaves("", defaults(t)))), slices.Sorted(maps.Keys(tried))); d != "" {
		t.Fatalf("values.yaml and what is tried here (-documented +tried):\n%s", d)
	}
	plain, withKey, withProvider := manifest(
		t,
		render(t, nil),
	), manifest(
		t,
		render(t, set("global.geminiSecret", "mine")),
	), manifest(
		t,
		render(t, provider("")),
	)
	for path, v := range tried {
		vals, before := set(path, v), plain
		if strings.HasPrefix(path, "networkPolicy.gemini") || path == "llm.backend" {
			vals = loader.MergeMaps(vals, set("global.geminiSecret", "mine"))
			before = withKey
		}
		if strings.Contains(path, "oidc.") {
			vals, before = loader.MergeMaps(provider(""), vals), withProvider
		}
		if manifest(t, render(t, vals)) == before {
			t.Errorf("%s: %v changes nothing", path, v)
		}
	}
}

func TestAValueThatNobodyKnowsIsRefused(t *testing.T) {
	check := func(vals values, what string) {
		if _, err := texts(vals, nil); err == nil || !strings.Contains(err.Error(), "schema") {
			t.Errorf("%s is taken: %v", what, err)
		}
	}
	for path, v := range leaves("", defaults(t)) {
		var wrong any = true
		if _, is := v.(bool); is {
			wrong = "yes"
		}
		check(set(path, wrong), path+" of a wrong type")
		if parent := path[:strings.LastIndex(path, ".")+1]; !strings.HasPrefix(path, "global.") {
			check(set(parent+"unknown", v), parent+"unknown")
		}
	}
	check(set("global.unknown", "x"), "global.unknown")
	for path, wrong := range map[string]any{
		"namespace": "Not A Name", "llm.backend": "openai", "spire.socket": "tcp", "spire.svidTTL": "1 hour",
		"image.digest":     "sha256:1",
		"image.pullPolicy": "Sometimes", "networkPolicy.kubelet.port": 0, "networkPolicy.apiServer.cidr": "anywhere",
	} {
		check(set(path, wrong), fmt.Sprintf("%s: %v", path, wrong))
	}
}

func TestATopologyThatCannotBeReadFailsTheChart(t *testing.T) {
	for text, want := range map[string]string{
		"workloads: {x": "read topology.yaml", "trustDomain: a.example.org": "no workloads",
	} {
		if _, err := texts(values{"topology": text}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

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

// TestRowsOfTheTopologyAreWhatIsInstalled compares both ways: what each row asks for is there, and nothing is there for
// which no row asks.
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
	// What belongs to no row.
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

// container finds one by name.
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
		// Each file and folder that it is told of is in something that is mounted.
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

// The collector of a workload in Go works harder before the kernel ends the workload: it is told less than the
// container's limit, for any limit, and not much less.
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

// missing says why there is nothing at path in c, empty if there may be. Files of Secrets and ConfigMaps must be among
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

// TestWhatIsRegisteredIsWhatRuns holds the registrar's selectors against the pods: exactly one container fits each
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

func TestTheGeminiKeyIsInOneSecretThatTheGatewayAloneMounts(t *testing.T) {
	const canary = "canary-7c1e0b7d"
	list := render(t, set("global.geminiApiKey", canary))
	for _, o := range list {
		text, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		encoded, _ := json.Marshal([]byte(canary)) // base64
		if found := bytes.Contains(
			text, []byte(canary),
		) || bytes.Contains(text, encoded); found != (keyOf(o) == "Secret/gemini-api-key") {
			t.Errorf("%s: has the key: %v", keyOf(o), found)
		}
	}
	if got := string(all[*corev1.Secret](list)["gemini-api-key"].Data["key"]); got != canary {
		t.Errorf("the Secret has %q", got)
	}
	for name, secret := range map[string]string{"gemini-api-key": canary, "mine": ""} {
		vals := set("global.geminiSecret", name)
		if secret != "" {
			vals = set("global.geminiApiKey", secret)
		}
		list := render(t, vals)
		if _, made := all[*corev1.Secret](list)["gemini-api-key"]; made != (secret != "") {
			t.Errorf("%s: makes a Secret: %v", name, made)
		}
		for who, p := range pods(list) {
			text, err := json.Marshal(p.spec)
			if err != nil {
				t.Fatal(err)
			}
			if mounts := bytes.Contains(text, []byte(`"secretName":"`+name+`"`)); mounts != (who == "llm-gateway") {
				t.Errorf("%s mounts the Secret %s: %v", who, name, mounts)
			}
		}
	}
}

func TestTheBackendIsGeminiWhenThereIsAKeyAndElseTheStub(t *testing.T) {
	for _, c := range []struct {
		vals values
		want string // empty: refused
	}{
		{nil, "stub"},
		{set("global.geminiApiKey", "k"), "gemini"},
		{set("global.geminiSecret", "s"), "gemini"},
		{values{"global": values{"geminiApiKey": "k"}, "llm": values{"backend": "stub"}}, "stub"},
		{set("llm.backend", "gemini"), ""},
	} {
		if c.want == "" {
			if _, err := texts(c.vals, nil); err == nil || !strings.Contains(err.Error(), "global.geminiSecret") {
				t.Errorf("%v: %v", c.vals, err)
			}
			continue
		}
		for _, e := range container(t, pods(render(t, c.vals))["llm-gateway"], "llm-gateway").Env {
			if e.Name == "LLM_BACKEND" && e.Value != c.want {
				t.Errorf("%v: %s, want %s", c.vals, e.Value, c.want)
			}
		}
	}
}

func TestAProviderOfIdentitiesIsTheLearningSystemsAloneAndWhole(t *testing.T) {
	for who, p := range pods(render(t, provider("client"))) {
		text, err := json.Marshal(p.spec)
		if err != nil {
			t.Fatal(err)
		}
		if mounts := bytes.Contains(text, []byte(`"secretName":"client"`)); mounts != (who == "lms") {
			t.Errorf("%s mounts the client's secret: %v", who, mounts)
		}
		if told := bytes.Contains(text, []byte(`"OIDC_`)); told != (who == "lms") {
			t.Errorf("%s is told of the provider: %v", who, told)
		}
	}
	public := render(t, provider(""))
	for _, e := range container(t, pods(public)["lms"], "lms").Env {
		if e.Name == "OIDC_CLIENT_SECRET_FILE" {
			t.Error("a public client is told of a secret that there is none of")
		}
	}
	for _, leaf := range []string{"clientID", "redirectURL"} {
		if _, err := texts(loader.MergeMaps(provider(""), set("lms.oidc."+leaf, "")), nil); err == nil ||
			!strings.Contains(err.Error(), "lms.oidc."+leaf) {
			t.Errorf("without %s: %v", leaf, err)
		}
	}
	for _, issuer := range []string{"http://id.example.org", "id.example.org"} {
		if _, err := texts(loader.MergeMaps(provider(""), set("lms.oidc.issuer", issuer)), nil); err == nil ||
			!strings.Contains(err.Error(), "schema") {
			t.Errorf("the issuer %s: %v", issuer, err)
		}
	}
}

func TestSecretsOfSourcesAreRandomSharedByTwoAndKept(t *testing.T) {
	first, second := all[*corev1.Secret](render(t, nil)), all[*corev1.Secret](render(t, nil))
	users := map[string][]string{}
	for name, p := range pods(render(t, nil)) {
		for _, v := range p.spec.Volumes {
			if v.Secret != nil {
				users[v.Secret.SecretName] = append(users[v.Secret.SecretName], name)
			}
		}
	}
	seen := map[string]bool{}
	for _, w := range topo(t).OfKind(topology.KindCollector) {
		name := "source-" + w.Source
		text := string(first[name].Data["secret"])
		if len(text) != 40 || seen[text] || text == string(second[name].Data["secret"]) {
			t.Errorf("%s: %q is no secret", name, text)
		}
		seen[text] = true
		slices.Sort(users[name])
		if d := cmp.Diff([]string{w.Name, "sim-" + w.Source}, users[name]); d != "" {
			t.Errorf("%s is used by: %s", name, d)
		}
	}
	there := &unstructured.Unstructured{Object: values{
		"apiVersion": "v1", "kind": "Secret", "metadata": values{
			"name": "source-git", "namespace": "security-training",
		}, "data": values{"secret": "a2VwdA=="},
	}}
	upgraded := all[*corev1.Secret](renderInto(t, nil, cluster{there}))
	if got := string(upgraded["source-git"].Data["secret"]); got != "kept" {
		t.Errorf("an upgrade changes the secret to %q", got)
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
		t.Error("a setting of the gateway registers everybody anew")
	}
}

func TestOnlyTheValueOfTheImagesTagSaysLatest(t *testing.T) {
	var found []string
	err := fs.WalkDir(manifests.Chart(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(manifests.Chart(), path)
		for _, line := range strings.Split(string(b), "\n") {
			if strings.Contains(line, "latest") {
				found = append(found, path+": "+strings.TrimSpace(line))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"values.yaml: tag: latest"}, found); d != "" {
		t.Error(d)
	}
}
