package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// Installation is a lab that is being brought up on a cluster.
type Installation struct {
	Runtime *Runtime
	Folder  control.StateDir
	Spec    lab.Spec
	Name    string // of the runtime
	Context string // of kubectl
	Image   string // of the application, REPOSITORY:TAG
	Values  map[string]any

	// Before makes the cluster and loads its images. It is nil if the cluster exists and pulls its images.
	Before []Step
	// Made is called when the lab's folder exists, to add to it. It may be nil.
	Made func(control.StateDir) error
	// Prepare is called before the chart is installed. It may be nil.
	Prepare func(context.Context, kubernetes.Interface, Settings) error
	// Kubeconfig returns the supervisor's kubeconfig: one context with all that it needs.
	Kubeconfig func() ([]byte, error)
	// Down takes the lab down; the lab's own Down calls it.
	Down func(context.Context, *control.Lab) ([]string, error)
}

// Step is one step of bringing a lab up.
type Step struct {
	What string
	Do   func(context.Context) error
}

// patience is how long the workloads may take to be ready. The cluster may have to pull images.
const patience = 10 * time.Minute

// Up makes the lab or repairs it. Each step does nothing if its result is there already, and upgrades the chart to this
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
			if !there && l != nil && errors.As(err, &e) && e.Code == lab.ExitConflict { // nothing but the folder was made
				_, removeErr := l.StateDir().Remove()
				err = errors.Join(err, removeErr)
			}
			return nil, err
		}
	}
	return l, nil
}

// prepare makes the lab's folder. It writes the settings last, because they make the folder a lab.
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

// toReachClusters returns the variables of the caller's environment that the supervisor needs to reach the cluster: for
// a kubeconfig that runs a program to sign in, as those of managed clusters do, and for a proxy. They are paths and
// addresses, and no secrets.
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

// connect makes a client from a kubeconfig file.
func connect(path, kubeContext string) (*rest.Config, kubernetes.Interface, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		rules, &clientcmd.ConfigOverrides{CurrentContext: kubeContext},
	).
		ClientConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	raiseLimits(config)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	return config, client, nil
}

// awaitAPI waits for the API server, which needs a while in a cluster that was just started.
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

// answers checks that the API server answers within five seconds.
func answers(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// raiseLimits raises the client's rate limits, since a lab is small, and suppresses the API server's warnings: the
// chart's tests list what Pod Security would warn of, with the reasons.
func raiseLimits(config *rest.Config) {
	config.QPS, config.Burst, config.WarningHandlerWithContext = 100, 200, rest.NoWarnings{}
}

// secrets makes the namespace in such a way that Helm takes it over, and in it the Secrets that must exist before the
// workloads, such as the model's key. They are read from files and sent to the API, and are never values of a release.
func (in *Installation) secrets(ctx context.Context, client kubernetes.Interface, s Settings) error {
	ns := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   s.Namespace,
		Labels: map[string]string{"app.kubernetes.io/managed-by": "Helm"},
		Annotations: map[string]string{
			"meta.helm.sh/release-name": s.Release, "meta.helm.sh/release-namespace": helmNamespace,
			ownerName: s.Spec.Name, ownerID: s.ID,
		},
	}}
	// It has a field manager of its own: Helm applies the chart under this program's name, and removes fields that this
	// name has set and the chart does not have.
	_, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{FieldManager: "lab-owner"})
	if apierrors.IsAlreadyExists(err) {
		if err := checkOwner(ctx, client, s); err != nil {
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

// The annotations of a namespace that say to which lab it belongs.
const (
	ownerName = "security-training/lab"
	ownerID   = "security-training/lab-id"
)

// checkOwner returns an error if a namespace belongs to another lab or to none: then it must not be used or removed.
func checkOwner(ctx context.Context, client kubernetes.Interface, s Settings) error {
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
			Why:  fmt.Errorf("it belongs to another lab called %s, whose folder is elsewhere or gone", owner),
			Try: "lab down with the LAB_HOME that it was brought up with, or, if it is not needed: kubectl delete namespace " +
				s.Namespace,
		}
	case owner == "":
		return &lab.Error{
			Code: lab.ExitConflict,
			What: "take the namespace " + s.Namespace,
			Why:  errors.New("it exists, and belongs to no lab"),
			Try:  "kubectl delete namespace " + s.Namespace + "   (if it is not needed)",
		}
	default:
		return &lab.Error{
			Code: lab.ExitConflict,
			What: "take the namespace " + s.Namespace,
			Why:  fmt.Errorf("it belongs to the lab %s", owner),
			Try:  "lab down --name " + owner,
		}
	}
}

// putSecret creates a Secret, or replaces its content.
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

// The choices of `helm install security-system ./manifests/chart`.
const (
	releaseName      = "security-system"
	helmNamespace    = "default"
	defaultNamespace = "security-training"
	defaultCluster   = "security-training"
)

// hurryAgents deletes the pod of an agent that still waits for the trust bundle when that has been published. The
// kubelet looks for a missing volume less and less often, up to minutes apart.
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
				// It may have started meanwhile: then it starts once more.
				_ = client.CoreV1().Pods(namespace).Delete(ctx, p.Name, metav1.DeleteOptions{})
			}
		}
		return
	}
}
