package manifests_test

import (
	"bytes"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"example.org/security-training/manifests"
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

// provider are values with an OpenID provider. secret is the name of a Secret, empty for none.
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

// cluster answers the template function lookup from objects that exist already.
type cluster []runtime.Object

// GetClientFor implements engine.ClientProvider.
func (c cluster) GetClientFor(apiVersion, kind string) (dynamic.NamespaceableResourceInterface, bool, error) {
	gvr, _ := meta.UnsafeGuessKindToResource(schema.FromAPIVersionAndKind(apiVersion, kind))
	return dynamicfake.NewSimpleDynamicClient(scheme.Scheme, c...).Resource(gvr), true, nil
}

// texts renders every template of the embedded chart, as an install into the cluster there would.
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

// objects are the rendered objects.
type objects []runtime.Object

// render renders the chart and decodes the objects. A field that Kubernetes does not know is an error.
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

// pod is a pod that an object of the chart creates.
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

// running are the rows that have a program.
func running(t *testing.T) []topology.Workload {
	t.Helper()
	return slices.DeleteFunc(slices.Clone(topo(t).Workloads), func(w topology.Workload) bool { return w.Binary == "" })
}

// manifest is list as text, without the random secrets of the sources.
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
