package manifests_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"example.org/security-training/services/topology"
)

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
