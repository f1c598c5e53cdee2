// Package kind runs a lab on a Kubernetes cluster of its own, in a container of this machine's Docker engine. It makes
// the cluster with kind; package cluster does the rest.
package kind

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/kind/pkg/apis/config/defaults"
	kindcluster "sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
	"sigs.k8s.io/kind/pkg/log"

	"example.org/security-training/lab"
	"example.org/security-training/lab/cluster"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/progress"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// RuntimeName is the name of this runtime in a status.
const RuntimeName = "kind"

const defaultNode = defaults.Image

// Runtime runs each lab on a kind cluster of its own.
type Runtime struct {
	Lookup   env.Lookup
	Binaries string   // the folder with the built programs
	Self     []string // the command of a supervisor, to which the lab's folder is appended
	Version  string
}

var _ lab.Runtime = (*Runtime)(nil)

// Find returns the lab called name. It returns lab.ErrNone if there is none, and both the lab and control.ErrGone if
// its supervisor does not run.
func (r *Runtime) Find(ctx context.Context, name string) (lab.Lab, error) {
	return control.FindNamed(ctx, r.Lookup, name, down)
}

// clusterName is kind's name for a lab's cluster.
func clusterName(lab string) string { return "security-training-" + lab }

// Up implements lab.Runtime.
func (r *Runtime) Up(ctx context.Context, spec lab.Spec, p progress.Reporter) (lab.Lab, error) {
	if err := engine(ctx); err != nil {
		return nil, &lab.Error{
			Code: lab.ExitPrecondition,
			What: "find a Docker engine",
			Why:  err,
			Try:  "sudo systemctl start docker, or lab up --runtime local",
		}
	}
	f, err := control.StateDirOf(r.Lookup, spec.Name)
	if err != nil {
		return nil, err
	}
	b := &bringUp{provider: newProvider(), cluster: clusterName(spec.Name), folder: f}
	if err := b.refuseForeignCluster(ctx); err != nil {
		return nil, err
	}
	if b.images, err = r.chooseImages(ctx, f, p); err != nil {
		return nil, err
	}
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		return nil, err
	}
	b.claims = claims(topo)
	if b.app, b.tag, err = application(r.Binaries, topo); err != nil {
		return nil, err
	}
	b.images.Values["persistence"] = map[string]any{"storageClass": volumeClass}
	in := cluster.Installation{
		Runtime:    &cluster.Runtime{Lookup: r.Lookup, Self: r.Self, Version: r.Version},
		Folder:     f,
		Spec:       spec,
		Name:       RuntimeName,
		Context:    "kind-" + b.cluster,
		Image:      imageName(b.tag),
		Values:     b.images.Values,
		Down:       down,
		Before:     b.steps(),
		Made:       b.images.keep,
		Prepare:    b.prepare,
		Kubeconfig: b.kubeconfig,
	}
	return in.Up(ctx, p)
}

// chooseImages returns the images that the lab of f runs: those that its node has already, or those that the
// environment names. It tells p what has to be downloaded.
func (r *Runtime) chooseImages(ctx context.Context, f control.StateDir, p progress.Reporter) (Images, error) {
	images, err := imagesOf(r.Lookup)
	if err != nil {
		return images, err
	}
	if kept, ok := images.kept(f); ok {
		return kept, nil
	}
	missing, err := images.missing(ctx)
	if err != nil {
		return images, &lab.Error{
			Code: lab.ExitPrecondition, What: "find the images", Why: err,
			Try: "docker pull …, or name others: LAB_KIND_NODE_IMAGE, LAB_POSTGRES_IMAGE, LAB_SPIRE_VERSION",
		}
	}
	if len(missing) > 0 {
		p.Say("to download: %s", Sizes(missing))
	}
	return images, nil
}

// owns says whether the cluster called c, if there is one, was made by the lab of f. It may have been made by a lab of
// the same name of another user or in another LAB_HOME. An `up` that was interrupted before it marked its cluster left
// settings and no mark; that cluster is the lab's own.
func owns(ctx context.Context, provider *kindcluster.Provider, c string, f control.StateDir) (bool, error) {
	is, err := containerOf(ctx, provider, c)
	if err != nil || is == "" {
		return err == nil, err
	}
	marked, err := os.ReadFile(f.Path(markFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return string(marked) == is, err
	}
	var s control.Settings
	if err := f.Read(&s); !errors.Is(err, fs.ErrNotExist) {
		return err == nil, err
	}
	return false, nil
}

// markFile, in a lab's folder, holds the ID of its cluster's container.
const markFile = "container"

func mark(ctx context.Context, provider *kindcluster.Provider, c string, f control.StateDir) error {
	is, err := containerOf(ctx, provider, c)
	if err != nil {
		return err
	}
	return control.Replace(f.Path(markFile), []byte(is), 0o600)
}

// containerOf returns the ID of a cluster's container, or "" if there is no such cluster.
func containerOf(ctx context.Context, provider *kindcluster.Provider, c string) (string, error) {
	list, err := provider.ListInternalNodes(c)
	if err != nil || len(list) == 0 {
		return "", err
	}
	return docker(ctx, "inspect", "--format", "{{.Id}}", list[0].String())
}

// Sizes describes the images that would be downloaded, with their sizes.
func Sizes(missing map[string]int64) string {
	var parts []string
	total := int64(0)
	for image, n := range missing {
		image, _, _ = strings.Cut(image, "@")
		parts = append(parts, fmt.Sprintf("%s %d MB", image, n/1_000_000))
		total += n
	}
	slices.Sort(parts)
	return fmt.Sprintf("%s; %d MB in all", strings.Join(parts, ", "), total/1_000_000)
}

// Available says whether a lab in kind can be brought up here. It returns the sizes of the images to download, or an
// error that says why it cannot.
func (r *Runtime) Available(ctx context.Context) (toDownload map[string]int64, err error) {
	if err := engine(ctx); err != nil {
		return nil, fmt.Errorf("no Docker engine answers (%w)", err)
	}
	images, err := imagesOf(r.Lookup)
	if err != nil {
		return nil, err
	}
	return images.missing(ctx)
}

// ensure finds the cluster, starts it if it was stopped, or makes it. It replaces an incomplete cluster, which an
// interrupted start left. It calls meanwhile when a node exists or is being made. It returns when it started a stopped
// cluster, or zero.
func ensure(
	ctx context.Context,
	provider *kindcluster.Provider,
	c, image string,
	meanwhile func(context.Context),
) (revived time.Time, err error) {
	list, err := provider.ListInternalNodes(c)
	if err != nil {
		return revived, err
	}
	if len(list) > 0 {
		if revived, err = revive(ctx, list); err != nil {
			return revived, err
		}
		if _, err := provider.KubeConfig(c, false); err == nil {
			meanwhile(ctx)
			return revived, nil
		}
		if err := provider.Delete(c, ""); err != nil {
			return revived, fmt.Errorf("remove half a cluster: %w", err)
		}
	}
	loading, stop := context.WithCancel(ctx)
	made := make(chan error, 1)
	go func() {
		made <- provider.Create(
			c, kindcluster.CreateWithNodeImage(image), kindcluster.CreateWithDisplayUsage(false),
			kindcluster.CreateWithDisplaySalutation(false),
		)
	}()
	meanwhile(loading)
	select {
	case err = <-made:
	case <-ctx.Done(): // kind cannot be interrupted: wait for it, and then remove the cluster
		stop()
		return time.Time{}, errors.Join(ctx.Err(), <-made, provider.Delete(c, ""))
	}
	if err != nil {
		stop()
		return time.Time{}, &lab.Error{Code: lab.ExitPartly, What: "make the cluster", Why: err, Try: "docker info"}
	}
	context.AfterFunc(ctx, stop)
	return time.Time{}, nil
}

// revive starts the nodes that are stopped. It returns when, or zero if none was stopped.
func revive(ctx context.Context, list []nodes.Node) (at time.Time, err error) {
	for _, n := range list {
		state, err := docker(ctx, "inspect", "--format", "{{.State.Running}}", n.String())
		if err != nil {
			return at, err
		}
		if state == "true" {
			continue
		}
		if _, err := docker(ctx, "start", n.String()); err != nil {
			return at, fmt.Errorf("start the stopped cluster: %w", err)
		}
		at = time.Now()
	}
	return at, nil
}

// awaitRestarted waits until every container of the namespace has started after since. Right after a stopped cluster
// starts, the API server still reports the state from before.
func awaitRestarted(ctx context.Context, client kubernetes.Interface, namespace string, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	old := func(p v1.Pod) bool {
		if p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed {
			return false
		}
		return len(p.Status.ContainerStatuses) == 0 ||
			slices.ContainsFunc(p.Status.ContainerStatuses, func(c v1.ContainerStatus) bool {
				return c.State.Running == nil || c.State.Running.StartedAt.Time.Before(since.Truncate(time.Second))
			})
	}
	for {
		pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err == nil && !slices.ContainsFunc(pods.Items, old) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the pods of the cluster that was stopped: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// down removes the cluster with everything in it, and the lab's folder.
func down(ctx context.Context, l *control.Lab) ([]string, error) {
	removed, s, err := cluster.EndSupervisor(ctx, l)
	if err != nil {
		return removed, err
	}
	more, err := remove(ctx, s.Spec.Name, l.StateDir())
	removed = append(removed, more...)
	if err != nil {
		return removed, err
	}
	more, err = l.StateDir().Remove()
	return append(removed, more...), err
}

// remove removes the cluster that the lab of f made, if there is one: its containers and volumes, its entries of
// kubeconfig and, if no other cluster is left, kind's network.
func remove(ctx context.Context, name string, f control.StateDir) ([]string, error) {
	c := clusterName(name)
	provider := newProvider()
	if own, err := owns(ctx, provider, c, f); err != nil || !own {
		return nil, err
	}
	list, err := provider.ListNodes(c)
	if err != nil {
		return nil, err
	}
	if err := provider.Delete(c, ""); err != nil {
		return nil, fmt.Errorf("remove the cluster: %w", err)
	}
	var removed []string
	for _, n := range list {
		removed = append(removed, "container "+n.String())
	}
	left, err := provider.List()
	if err != nil || len(left) > 0 {
		return removed, err
	}
	if _, err := docker(ctx, "network", "rm", "kind"); err == nil {
		removed = append(removed, "network kind")
	}
	return removed, nil
}

func newProvider() *kindcluster.Provider {
	return kindcluster.NewProvider(kindcluster.ProviderWithDocker(), kindcluster.ProviderWithLogger(log.NoopLogger{}))
}

// platformOf returns the architecture that a program was built for, by its name in images.
func platformOf(program string) (string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return "", fmt.Errorf("%s: a program for Linux is needed: %w", program, err)
	}
	defer f.Close()
	switch f.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	}
	return "", fmt.Errorf("%s: built for %s", program, f.Machine)
}
