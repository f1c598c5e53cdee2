package manifests_test

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"sigs.k8s.io/yaml"

	"example.org/security-training/manifests"
	"example.org/security-training/services/env/needtest"
)

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

// TestEachValueChangesWhatIsRendered changes each value alone and checks that the rendered text changes. The values
// that it tries are exactly those of values.yaml.
func TestEachValueChangesWhatIsRendered(t *testing.T) {
	needtest.Unhurried(t, "the chart is rendered once for each of its values")
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
		// These have an effect with backend gemini only, see below.
		"networkPolicy.gemini.cidr": "1.2.3.0/24", "networkPolicy.gemini.except": []any{"1.2.3.4/32"}, "llm.backend": "stub",
		// These have an effect with an OpenID provider only.
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
