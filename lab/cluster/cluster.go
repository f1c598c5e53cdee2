// Package cluster runs a lab on Kubernetes. It installs the Helm chart, in which SPIRE attests workloads and issues
// identities, and starts a supervisor on this machine through which the operator reaches the lab. It installs into the
// cluster of a kubectl context, and never makes or removes a cluster. Up lists the steps.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/progress"
	"example.org/security-training/services/env"
)

// RuntimeName is the name of this runtime in a status.
const RuntimeName = "cluster"

// peopleTLSSecret is the Secret with the dashboard's certificate for browsers.
const peopleTLSSecret = "lms-people-tls"

// geminiSecret is the Secret with the model's key, for the gateway alone.
const geminiSecret = "lab-gemini-key"

// clientSecret is the Secret with which the learning system authenticates as a client of the OpenID Connect provider.
const clientSecret = "lab-oidc-client"

// Settings are the settings of a lab on Kubernetes, in its folder.
type Settings struct {
	control.Settings
	ID         string `json:"id"`         // distinguishes it from a lab of the same name in another folder
	Kubeconfig string `json:"kubeconfig"` // the path of a file
	Context    string `json:"context"`
	Namespace  string `json:"namespace"`
	Release    string `json:"release"`
	Cluster    string `json:"cluster"` // SPIRE's name for the cluster

	Values map[string]any `json:"values"` // for the chart: what was chosen when the lab was made
}

// Runtime installs labs into the cluster of kubectl's current context.
type Runtime struct {
	Lookup  env.Lookup
	Self    []string // the command of a supervisor, to which the lab's folder is appended
	Version string
}

var _ lab.Runtime = (*Runtime)(nil)

// Find returns the lab called name. It returns lab.ErrNone if there is none, and both the lab and control.ErrGone if
// its supervisor does not run.
func (r *Runtime) Find(ctx context.Context, name string) (lab.Lab, error) {
	return control.FindNamed(ctx, r.Lookup, name, down)
}

// target returns the application's image, which the cluster must be able to pull, and kubectl's configuration, whose
// current context is the cluster.
func (r *Runtime) target() (image string, raw *api.Config, err error) {
	image, ok := r.Lookup("LAB_APP_IMAGE")
	if !ok || image == "" {
		return "", raw, &lab.Error{
			Code: lab.ExitPrecondition,
			What: "choose the application's image",
			Why:  errors.New("LAB_APP_IMAGE is not set: a cluster pulls its images, and only you know from where"),
			Try: "make build && docker build -t REGISTRY/security-training-app:TAG . && docker push …, then " +
				"LAB_APP_IMAGE=REGISTRY/security-training-app:TAG lab up --runtime cluster",
		}
	}
	raw, err = clientcmd.NewDefaultClientConfigLoadingRules().Load()
	if err != nil || raw.CurrentContext == "" {
		return "", raw, &lab.Error{
			Code: lab.ExitPrecondition,
			What: "find a cluster",
			Why:  errors.Join(err, errors.New("kubectl has no current context")),
			Try:  "kubectl config use-context …",
		}
	}
	return image, raw, nil
}

// Available describes the context and image that a lab would have. The error says why there can be none.
func (r *Runtime) Available(ctx context.Context) (found string, err error) {
	image, raw, err := r.target()
	if err != nil {
		return "", err
	}
	config, err := clientcmd.NewDefaultClientConfig(*raw, nil).ClientConfig()
	if err != nil {
		return "", fmt.Errorf("connect to the cluster: %w", err)
	}
	raiseLimits(config)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", fmt.Errorf("connect to the cluster: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := answers(ctx, client); err != nil {
		return "", fmt.Errorf("context %s: %w", raw.CurrentContext, err)
	}
	return "context " + raw.CurrentContext + ", image " + image, nil
}

// Up implements lab.Runtime. The application's image must be one that the cluster can pull: LAB_APP_IMAGE names it.
func (r *Runtime) Up(ctx context.Context, spec lab.Spec, p progress.Reporter) (lab.Lab, error) {
	image, raw, err := r.target()
	if err != nil {
		return nil, err
	}
	f, err := control.StateDirOf(r.Lookup, spec.Name)
	if err != nil {
		return nil, err
	}
	_, values, err := Official(r.Lookup)
	if err != nil {
		return nil, err
	}
	in := Installation{
		Runtime: r,
		Folder:  f,
		Spec:    spec,
		Name:    RuntimeName,
		Context: raw.CurrentContext,
		Image:   image,
		Values:  values,
		Down:    down,
		Kubeconfig: func() ([]byte, error) {
			one := raw.DeepCopy()
			if err := errors.Join(api.MinifyConfig(one), api.FlattenConfig(one)); err != nil {
				return nil, err
			}
			return clientcmd.Write(*one)
		},
	}
	return in.Up(ctx, p)
}
