package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/kube"
	"helm.sh/helm/v4/pkg/release/common"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/storage/driver"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/progress"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// Installation is one lab on one cluster, on its way up.
type Installation struct {
	Runtime *Runtime
	Folder  control.StateDir
	Spec    lab.Spec
	Name    string // of the runtime
	Context string // of kubectl
	Image   string // of the application, REPOSITORY:TAG
	Values  map[string]any

	// Before makes the cluster and brings it its images; nil where others do that.
	Before []Step
	// Made is called once there is a folder; nil if there is nothing to add to it.
	Made func(control.StateDir) error
	// Prepare is called before the chart is installed; nil if there is nothing to prepare.
	Prepare func(context.Context, kubernetes.Interface, Settings) error
	// Kubeconfig is what the supervisor will reach the cluster by: one context, with everything inside.
	Kubeconfig func() ([]byte, error)
	// Down is what the lab's Down calls.
	Down func(context.Context, *control.Lab) ([]string, error)
}

// Step is one step of a lab's way up.
type Step struct {
	What string
	Do   func(context.Context) error
}

// patience is how long the workloads of a cluster may take to be ready: images may have to be pulled.
const patience = 10 * time.Minute

// Up makes the lab, or mends it: each step leaves alone what is as it should be, and the chart is upgraded to this
// program's.
func (in *Installation) Up(ctx context.Context, p progress.Reporter) (lab.Lab, error) {
	turn, err := in.Folder.Turn(ctx, p)
	if err != nil {
		return nil, err
	}
	defer turn.Close()
	var settings Settings
	there := in.Folder.Read(&settings) == nil
	if there {
		if settings.Runtime != in.Name {
			return nil, &lab.Error{
				Code: lab.ExitConflict,
				What: "bring up " + in.Spec.Name,
				Why:  fmt.Errorf("it is a lab of the %s runtime", settings.Runtime),
				Try:  "lab down --name " + in.Spec.Name,
			}
		}
		if err := in.Folder.Same(in.Runtime.Lookup, in.Spec); err != nil {
			return nil, err
		}
	}
	var (
		l      *control.Lab
		client kubernetes.Interface
	)
	steps := append([]Step{{What: "lab folder", Do: func(context.Context) (err error) {
		if !there {
			if settings, err = in.prepare(); err != nil {
				return err
			}
		}
		if in.Made != nil {
			err = in.Made(in.Folder)
		}
		return err
	}}}, in.Before...)
	steps = append(steps,
		Step{What: "way to the cluster", Do: func(ctx context.Context) (err error) {
			if err := in.keepKubeconfig(settings); err != nil {
				return err
			}
			if l, err = control.LabOf(in.Folder, in.Down); err != nil {
				return err
			}
			if _, client, err = connect(settings.Kubeconfig, settings.Context); err != nil {
				return err
			}
			return awaitAPI(ctx, client)
		}},
		Step{What: "namespace, secrets", Do: func(ctx context.Context) error {
			if err := in.secrets(ctx, client, settings); err != nil || in.Prepare == nil {
				return err
			}
			return in.Prepare(ctx, client, settings)
		}},
		Step{What: "supervisor", Do: func(ctx context.Context) error {
			if _, err := l.Status(ctx); err == nil {
				return nil
			}
			return l.Spawn(ctx, in.Runtime.Self, toReachClusters(in.Runtime.Lookup)...)
		}},
		Step{What: "chart", Do: func(ctx context.Context) error { return in.install(ctx, settings) }},
		Step{What: "SPIRE, database, identities, workloads", Do: func(ctx context.Context) error {
			hurry, stop := context.WithCancel(ctx)
			defer stop()
			go hurryAgents(hurry, client, settings.Namespace)
			return l.AwaitReady(ctx, patience)
		}},
	)
	for _, step := range steps {
		if err := progress.Counted(ctx, p, step.What, step.Do); err != nil {
			var e *lab.Error
			if !there && l != nil && errors.As(err, &e) && e.Code == lab.ExitConflict { // nothing was made but the folder
				_, removeErr := l.StateDir().Remove()
				err = errors.Join(err, removeErr)
			}
			return nil, err
		}
	}
	return l, nil
}

// prepare makes the lab's folder; the settings come last, and make it a lab.
func (in *Installation) prepare() (Settings, error) {
	text := manifests.Topology()
	topo, err := topology.FromYAML(text)
	if err != nil {
		return Settings{}, err
	}
	s := Settings{
		Settings: control.Settings{Runtime: in.Name, Spec: in.Spec, Version: in.Runtime.Version, Identity: "spire"},
		ID:       rand.Text(),
		Kubeconfig: in.Folder.Path(
			"kubeconfig",
		), Context: in.Context, Namespace: defaultNamespace, Release: releaseName, Cluster: defaultCluster,
	}
	model, err := control.ModelOf(in.Runtime.Lookup)
	if err == nil {
		model, err = model.Choose()
	}
	if err != nil {
		return s, err
	}
	provider, err := control.ProviderOf(in.Runtime.Lookup)
	if err != nil {
		return s, err
	}
	if s.Host, err = control.FreeHost(topo); err != nil {
		return s, err
	}
	s.Chosen(model)
	s.Signs(provider, topo)
	s.Values = in.choices(model, s.Provider)
	if s.DBPort, err = control.FreePort(s.Host); err != nil {
		return s, err
	}
	for _, dir := range []string{string(in.Folder), in.Folder.Path("w")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return s, fmt.Errorf("make lab: %w", err)
		}
	}
	if err := in.Folder.WriteTopology(text); err != nil {
		return s, fmt.Errorf("make lab: %w", err)
	}
	return s, in.Folder.Write(s)
}

// toReachClusters is what of the caller's environment the supervisor needs where the kubeconfig names a program that
// signs in, as those of managed clusters do, or a proxy stands between: where things are, no secret.
func toReachClusters(lookup env.Lookup) []string {
	var out []string
	for _, name := range []string{
		"PATH", "HOME", "HTTPS_PROXY", "NO_PROXY", "AWS_PROFILE", "AWS_REGION", "AWS_CONFIG_FILE",
		"AWS_SHARED_CREDENTIALS_FILE", "CLOUDSDK_CONFIG", "AZURE_CONFIG_DIR",
	} {
		if v, ok := lookup(name); ok {
			out = append(out, name+"="+v)
		}
	}
	return out
}

func (in *Installation) keepKubeconfig(s Settings) error {
	b, err := in.Kubeconfig()
	if err != nil {
		return fmt.Errorf("find the way to the cluster: %w", err)
	}
	return control.Replace(s.Kubeconfig, b, 0o600)
}

// connect reads a kubeconfig file.
func connect(path, kubeContext string) (*rest.Config, kubernetes.Interface, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		rules, &clientcmd.ConfigOverrides{CurrentContext: kubeContext},
	).
		ClientConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	tame(config)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	return config, client, nil
}

// awaitAPI waits for the API server: of a cluster that was just started it takes a while.
func awaitAPI(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		err := answers(ctx, client)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return &lab.Error{Code: lab.ExitTimeout, What: "reach the cluster", Why: err, Try: "kubectl cluster-info"}
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// answers asks the API server whether it is there; it has five seconds.
func answers(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// tame lets a client ask for much at once, since a lab is small, and keep the API server's warnings to itself: what the
// chart does that Pod Security would warn of is listed, with its reasons, in the chart's tests.
func tame(config *rest.Config) {
	config.QPS, config.Burst, config.WarningHandlerWithContext = 100, 200, rest.NoWarnings{}
}

// secrets makes the namespace as Helm would, so that the chart takes it over, and puts into it what must be there
// before the workloads: the model's key, if there is one. It travels by file and API, never through a release's values.
func (in *Installation) secrets(ctx context.Context, client kubernetes.Interface, s Settings) error {
	ns := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   s.Namespace,
		Labels: map[string]string{"app.kubernetes.io/managed-by": "Helm"},
		Annotations: map[string]string{
			"meta.helm.sh/release-name": s.Release, "meta.helm.sh/release-namespace": helmNamespace,
			ownerName: s.Spec.Name, ownerID: s.ID,
		},
	}}
	// In a name of its own: Helm applies the chart in the name of this program, and takes away what that name has set and
	// the chart has not.
	_, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{FieldManager: "lab-owner"})
	if apierrors.IsAlreadyExists(err) {
		if err := own(ctx, client, s); err != nil {
			return err
		}
	} else if err != nil {
		return fmt.Errorf("make namespace: %w", err)
	}
	m, err := control.ModelOf(in.Runtime.Lookup)
	if err == nil && m.Key != "" {
		err = putSecret(ctx, client, s.Namespace, geminiSecret, map[string][]byte{"key": []byte(m.Key)})
	}
	if err != nil {
		return err
	}
	p, err := control.ProviderOf(in.Runtime.Lookup)
	if err == nil && p.Secret != "" {
		err = putSecret(ctx, client, s.Namespace, clientSecret, map[string][]byte{"secret": []byte(p.Secret)})
	}
	return err
}

// The annotations of a namespace that say which lab it is of.
const (
	ownerName = "security-training/lab"
	ownerID   = "security-training/lab-id"
)

// own refuses a namespace that is another lab's, or nobody's: neither to install into nor to remove.
func own(ctx context.Context, client kubernetes.Interface, s Settings) error {
	ns, err := client.CoreV1().Namespaces().Get(ctx, s.Namespace, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("ask whose namespace %s is: %w", s.Namespace, err)
	}
	switch owner := ns.Annotations[ownerName]; {
	case owner == s.Spec.Name && ns.Annotations[ownerID] == s.ID:
		return nil
	case owner == s.Spec.Name:
		return &lab.Error{
			Code: lab.ExitConflict,
			What: "take the namespace " + s.Namespace,
			Why:  fmt.Errorf("it is of another lab called %s, whose folder is elsewhere or gone", owner),
			Try: "lab down with the LAB_HOME that it was brought up with, or, if it is not needed: kubectl delete namespace " +
				s.Namespace,
		}
	case owner == "":
		return &lab.Error{
			Code: lab.ExitConflict,
			What: "take the namespace " + s.Namespace,
			Why:  errors.New("it is there, and of no lab"),
			Try:  "kubectl delete namespace " + s.Namespace + "   (if it is not needed)",
		}
	default:
		return &lab.Error{
			Code: lab.ExitConflict,
			What: "take the namespace " + s.Namespace,
			Why:  fmt.Errorf("it is of the lab %s", owner),
			Try:  "lab down --name " + owner,
		}
	}
}

// choices is what is chosen when the lab is made, and stays so, for the chart: the key and the client's secret by name.
func (in *Installation) choices(m control.Model, p control.Provider) map[string]any {
	values := map[string]any{"llm": map[string]any{"backend": m.Backend, "model": m.Name}}
	if m.Key != "" {
		values["global"] = map[string]any{"geminiSecret": geminiSecret}
	}
	if p.Issuer != "" {
		oidc := map[string]any{"issuer": p.Issuer, "clientID": p.Client, "redirectURL": p.Redirect}
		if p.Secret != "" {
			oidc["clientSecret"] = clientSecret
		}
		values["lms"] = map[string]any{"oidc": oidc}
	}
	return loader.MergeMaps(values, in.Values)
}

// putSecret makes a Secret, or replaces what it holds.
func putSecret(
	ctx context.Context,
	client kubernetes.Interface,
	namespace, name string,
	content map[string][]byte,
) error {
	secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Data: content}
	_, err := client.CoreV1().Secrets(namespace).Create(ctx, secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = client.CoreV1().Secrets(namespace).Update(ctx, secret, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("put secret %s: %w", name, err)
	}
	return nil
}

// values is what the lab sets in the chart. A policy with a fault is not rendered: pods that start by it end again and
// again, and the chart's network policies would go by it while the workloads do not.
func (in *Installation) values(s Settings) (map[string]any, error) {
	if _, err := lab.RunningPolicy(in.Folder); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(in.Folder.Topology()) // which may have been edited
	if err != nil {
		return nil, fmt.Errorf("read the lab's topology: %w", err)
	}
	repository, tag := splitImage(in.Image)
	return loader.MergeMaps(map[string]any{
		"namespace": s.Namespace,
		"topology":  string(text),
		"image":     map[string]any{"repository": repository, "tag": tag},
		"lms":       map[string]any{"peopleTLSSecret": peopleTLSSecret},
		"spire":     map[string]any{"clusterName": s.Cluster},
	}, s.Values), nil
}

// splitImage splits REPOSITORY:TAG.
func splitImage(image string) (repository, tag string) {
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i], image[i+1:]
	}
	return image, ""
}

// Chart is the embedded chart.
func Chart() (*chart.Chart, error) {
	var files []*archive.BufferedFile
	err := fs.WalkDir(manifests.Chart(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(manifests.Chart(), path)
		files = append(files, &archive.BufferedFile{Name: filepath.ToSlash(path), Data: b})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	c, err := loader.LoadFiles(files)
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	return c, nil
}

// install installs the chart, or upgrades it. It does not wait: AwaitReady does, and says who is not ready and why.
func (in *Installation) install(ctx context.Context, s Settings) error {
	c, err := Chart()
	if err != nil {
		return err
	}
	values, err := in.values(s)
	if err != nil {
		return err
	}
	cfg, err := helm(s)
	if err != nil {
		return err
	}
	history, err := action.NewHistory(cfg).Run(s.Release)
	switch {
	case errors.Is(err, driver.ErrReleaseNotFound), err == nil && len(history) == 0:
		install := action.NewInstall(cfg)
		install.ReleaseName, install.Namespace = s.Release, helmNamespace
		install.WaitStrategy, install.Timeout = kube.HookOnlyStrategy, patience
		_, err = install.RunWithContext(ctx, c, values)
	case err == nil:
		if err = unlock(cfg, s.Release); err != nil {
			break
		}
		upgrade := action.NewUpgrade(cfg)
		upgrade.Namespace, upgrade.ForceConflicts = helmNamespace, true
		upgrade.WaitStrategy, upgrade.Timeout = kube.HookOnlyStrategy, patience
		_, err = upgrade.RunWithContext(ctx, s.Release, c, values)
	}
	if err != nil {
		return &lab.Error{
			Code: lab.ExitPartly,
			What: "install the chart",
			Why:  err,
			Try:  "helm history " + s.Release + "   (then lab up again, or lab down)",
		}
	}
	return nil
}

// unlock has Helm go on after a process that ended in the middle of an install or upgrade, which it would take for one
// that still runs: no other can be at work, since this one holds the lab's turn and the namespace is the lab's own.
func unlock(cfg *action.Configuration, name string) error {
	last, err := cfg.Releases.Last(name)
	if err != nil {
		return err
	}
	r, ok := last.(*release.Release)
	if !ok || !r.Info.Status.IsPending() {
		return nil
	}
	r.SetStatus(common.StatusFailed, "it was interrupted")
	return cfg.Releases.Update(r)
}

// helm is Helm's configuration for a cluster. Its releases are kept where `helm install` without a namespace keeps
// them.
func helm(s Settings) (*action.Configuration, error) {
	// Not Helm's own settings: those listen to HELM_KUBE… in the environment, which could send the chart elsewhere than
	// its secrets.
	flags, namespace := genericclioptions.NewConfigFlags(true), helmNamespace
	flags.KubeConfig, flags.Context, flags.Namespace = &s.Kubeconfig, &s.Context, &namespace
	flags.WrapConfigFn = func(config *rest.Config) *rest.Config {
		tame(config)
		return config
	}
	cfg := action.NewConfiguration(action.ConfigurationSetLogger(slog.DiscardHandler))
	if err := cfg.Init(flags, helmNamespace, "secret"); err != nil {
		return nil, fmt.Errorf("prepare Helm: %w", err)
	}
	return cfg, nil
}

// What `helm install security-system ./manifests/chart` would choose.
const (
	releaseName      = "security-system"
	helmNamespace    = "default"
	defaultNamespace = "security-training"
	defaultCluster   = "security-training"
)

// hurryAgents deletes an agent's pod that still waits for a trust bundle which has been published since: a kubelet's
// pauses between two looks at a missing volume grow to minutes.
func hurryAgents(ctx context.Context, client kubernetes.Interface, namespace string) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		bundle, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, "spire-bundle", metav1.GetOptions{})
		if err != nil || len(bundle.Data) == 0 {
			continue
		}
		pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=spire-agent"})
		if err != nil {
			continue
		}
		for _, p := range pods.Items {
			if p.Status.Phase == v1.PodPending && time.Since(p.CreationTimestamp.Time) > time.Second {
				_ = client.CoreV1().
					Pods(namespace).
					Delete(ctx, p.Name, metav1.DeleteOptions{})
				// it may have started meanwhile: then it starts again
			}
		}
		return
	}
}

// down removes the lab from its cluster, and its folder.
func down(ctx context.Context, l *control.Lab) ([]string, error) {
	removed, s, err := EndSupervisor(ctx, l)
	if err != nil {
		return removed, err
	}
	more, err := uninstall(ctx, s)
	removed = append(removed, more...)
	if err != nil {
		return removed, err
	}
	more, err = l.StateDir().Remove()
	return append(removed, more...), err
}

// uninstall removes the release and the namespace with everything in it.
func uninstall(ctx context.Context, s Settings) ([]string, error) {
	_, client, err := connect(s.Kubeconfig, s.Context)
	if err != nil {
		return nil, err
	}
	cfg, err := helm(s)
	if err != nil {
		return nil, err
	}
	var removed []string
	if _, err := client.CoreV1().Namespaces().Get(ctx, s.Namespace, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		return removed, nil
	} else if err != nil {
		return removed, fmt.Errorf("uninstall: %w", err)
	}
	if err := own(ctx, client, s); err != nil { // what another lab has there stays
		var conflict *lab.Error
		if errors.As(err, &conflict) {
			return removed, nil
		}
		return removed, err
	}
	remove := action.NewUninstall(cfg)
	remove.IgnoreNotFound, remove.WaitStrategy, remove.Timeout = true, kube.HookOnlyStrategy, patience
	if _, err := remove.Run(s.Release); err != nil && !errors.Is(err, driver.ErrReleaseNotFound) {
		return removed, fmt.Errorf("uninstall: %w", err)
	}
	removed = append(removed, "release "+s.Release)
	if err := client.CoreV1().Namespaces().Delete(ctx, s.Namespace, metav1.DeleteOptions{}); err != nil &&
		!apierrors.IsNotFound(err) {
		return removed, fmt.Errorf("remove namespace: %w", err)
	}
	for {
		_, err := client.CoreV1().Namespaces().Get(ctx, s.Namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return append(removed, "namespace "+s.Namespace), nil
		}
		select {
		case <-ctx.Done():
			return removed, fmt.Errorf("remove namespace: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// EndSupervisor ends a lab's supervisor, if it runs, and reads the lab's settings. One that does not end keeps its
// folder.
func EndSupervisor(ctx context.Context, l *control.Lab) (removed []string, s Settings, err error) {
	if err := l.StateDir().Read(&s); err != nil {
		return nil, s, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	stuck := &lab.Error{Code: lab.ExitTimeout, What: "end the supervisor", Log: l.StateDir().Log(),
		Try: fmt.Sprintf("ps ax | grep 'supervise %s'   (end what it shows, then lab down again)", l.StateDir())}
	err = l.End(ctx)
	if control.Gone(err) {
		return nil, s, nil
	}
	if stuck.Why = err; err != nil {
		return nil, s, stuck
	}
	for !control.Gone(err) {
		select {
		case <-ctx.Done():
			stuck.Why = fmt.Errorf("it still answers: %w", ctx.Err())
			return nil, s, stuck
		case <-time.After(10 * time.Millisecond):
		}
		_, err = l.Status(ctx)
	}
	return []string{"process supervisor"}, s, nil
}
