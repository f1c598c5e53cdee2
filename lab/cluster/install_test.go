package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	release "helm.sh/helm/v4/pkg/release/v1"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/progress"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
)

// installation is one with a folder, and without a cluster.
func installation(t *testing.T, environment map[string]string) (*Installation, Settings) {
	t.Helper()
	in := &Installation{
		Runtime: &Runtime{
			Lookup:  env.Map(environment),
			Version: "test",
		}, Folder: control.StateDir(filepath.Join(t.TempDir(), "lab")),
		Spec: lab.Spec{Name: "lab"}, Name: RuntimeName, Context: "nowhere", Image: "registry.example.net:5000/app:1",
	}
	s, err := in.prepare()
	if err != nil {
		t.Fatal(err)
	}
	return in, s
}

// render renders the chart with the values that a lab sets.
func render(t *testing.T, in *Installation, s Settings) (string, error) {
	t.Helper()
	c, err := Chart()
	if err != nil {
		t.Fatal(err)
	}
	values, err := in.values(s)
	if err != nil {
		t.Fatal(err)
	}
	install := action.NewInstall(action.NewConfiguration())
	install.ReleaseName, install.Namespace, install.DryRunStrategy = s.Release, helmNamespace, action.DryRunClient
	install.KubeVersion = &common.KubeVersion{Version: "v1.34.0", Major: "1", Minor: "34"}
	made, err := install.RunWithContext(t.Context(), c, values)
	if err != nil {
		return "", err
	}
	return made.(*release.Release).Manifest, nil
}

func TestWhatTheLabSetsIsWhatTheChartTakes(t *testing.T) {
	in, s := installation(t, nil)
	text, err := render(t, in, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"image: registry.example.net:5000/app:1", peopleTLSSecret, "name: " + topologyMap, `value: stub`,
		"mountPath: " + filepath.Dir(auditInPod), "value: " + auditInPod,
		SPIRECommand[2][:strings.LastIndex(SPIRECommand[2], "/")],
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the chart as the lab installs it has no %q", want)
		}
	}
}

// A fault that the chart's own templates do not notice is reported with its line, before anything is installed.
func TestAFaultInTheEditedTopologyIsNotInstalled(t *testing.T) {
	in, s := installation(t, nil)
	edited := strings.Replace(string(manifests.Topology()), "POST /v1/generate: [lms]", "POST /v1/generate: [lsm]", 1)
	if err := os.WriteFile(in.Folder.Topology(), []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := in.values(s)
	var e *lab.Error
	if !errors.As(err, &e) || !strings.Contains(e.Error(), `caller "lsm"`) || !strings.Contains(e.Error(), "line ") ||
		!strings.Contains(e.Error(), in.Folder.Shipped()) {
		t.Errorf("a caller that there is not: %v", err)
	}
	if err := os.WriteFile(in.Folder.Topology(), []byte(strings.Replace(edited, "[lsm]", "[]", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := render(t, in, s); err != nil {
		t.Errorf("a route without a caller: %v", err)
	}
}

func TestAKeyTravelsByNameAndIsRememberedByName(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("AIzaSyCANARY-of-this-test"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, s := installation(t, map[string]string{"GEMINI_API_KEY_FILE": key})
	text, err := render(t, in, s)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "CANARY") || !strings.Contains(text, geminiSecret) {
		t.Error("the key is in the chart, or the secret's name is not")
	}
	kept, err := os.ReadFile(in.Folder.Path("lab.json"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(kept), "CANARY") {
		t.Error("the key is in the lab's settings")
	}
	// Another `up` without the variable does not take the key away.
	in.Runtime.Lookup = env.Map(nil)
	var again Settings
	if err := in.Folder.Read(&again); err != nil {
		t.Fatal(err)
	}
	if text, err = render(t, in, again); err != nil || !strings.Contains(text, geminiSecret) {
		t.Errorf("the second time the chart has no key: %v", err)
	}
}

func TestAProviderOfIdentitiesReachesTheChartAndItsClientsSecretByName(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("CANARY-of-this-test"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, s := installation(
		t,
		map[string]string{
			"OIDC_ISSUER":             "https://id.example.org",
			"OIDC_CLIENT_ID":          "training-client",
			"OIDC_CLIENT_SECRET_FILE": secret,
		},
	)
	text, err := render(t, in, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"https://id.example.org", "training-client", "http://" + s.Host + ":", "/sign-in/callback",
		"secretName: " + clientSecret, peopleTLSSecret,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the chart as the lab installs it has no %q", want)
		}
	}
	kept, err := os.ReadFile(in.Folder.Path("lab.json"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text+string(kept), "CANARY") {
		t.Error("the client's secret is in the chart or in the lab's settings")
	}
}

func TestALabThatIsThereWithoutAKeyTakesNoneInSilence(t *testing.T) {
	in, _ := installation(t, nil)
	in.Runtime.Lookup = env.Map(map[string]string{"GEMINI_API_KEY": "AIzaSyCANARY-of-this-test"})
	in.Kubeconfig = func() ([]byte, error) { return nil, errors.New("the cluster was asked") }
	_, err := in.Up(t.Context(), progress.Quiet{})
	var e *lab.Error
	if !errors.As(err, &e) || e.Code != lab.ExitConflict || !strings.Contains(e.Try, "lab down") {
		t.Errorf("got %v", err)
	}
}

func TestAWrongBackendIsRefusedBeforeAnythingIsMade(t *testing.T) {
	folder := control.StateDir(filepath.Join(t.TempDir(), "lab"))
	in := &Installation{
		Runtime: &Runtime{Lookup: env.Map(map[string]string{"LLM_BACKEND": "oracle"})},
		Folder:  folder,
		Name:    RuntimeName,
	}
	if _, err := in.prepare(); err == nil || !strings.Contains(err.Error(), "oracle") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(string(folder)); !os.IsNotExist(err) {
		t.Errorf("%s is there: %v", folder, err)
	}
}

func TestAnImageIsSplitAtItsTagAndNotAtAPort(t *testing.T) {
	for in, want := range map[string][2]string{
		"app:1": {"app", "1"}, "registry.example.net:5000/app": {
			"registry.example.net:5000/app", "",
		}, "registry.example.net:5000/app:1": {"registry.example.net:5000/app", "1"},
	} {
		if repository, tag := splitImage(in); [2]string{repository, tag} != want {
			t.Errorf("%s is %s and %s", in, repository, tag)
		}
	}
}

func TestTheEmbeddedChartIsTheWholeOne(t *testing.T) {
	c, err := Chart()
	if err != nil {
		t.Fatal(err)
	}
	helpers := false
	for _, f := range c.Templates {
		helpers = helpers || strings.HasSuffix(f.Name, "_helpers.tpl")
	}
	if !helpers || len(c.Files) == 0 || string(manifests.Topology()) == "" {
		t.Error("the embedded chart lacks its helpers or its files")
	}
}
