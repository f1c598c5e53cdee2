package kind

import (
	"context"
	"errors"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"k8s.io/client-go/kubernetes"
	kindcluster "sigs.k8s.io/kind/pkg/cluster"

	"example.org/security-training/lab"
	"example.org/security-training/lab/cluster"
	"example.org/security-training/lab/control"
)

// bringUp is what the steps of one Up share.
type bringUp struct {
	provider *kindcluster.Provider
	cluster  string // kind's name for it
	folder   control.StateDir
	images   Images
	app      v1.Image // of the programs, as an image
	tag      name.Tag
	claims   []string // the volumes that the chart's workloads ask for

	loaded  chan error // gets one value: the result of loading the images
	loading counter
	revived time.Time // when a stopped cluster was started again; zero if it was not
}

// refuseForeignCluster returns an error if the cluster's name is taken by another lab's cluster.
func (b *bringUp) refuseForeignCluster(ctx context.Context) error {
	own, err := owns(ctx, b.provider, b.cluster, b.folder)
	if err != nil || own {
		return err
	}
	return &lab.Error{
		Code: lab.ExitConflict,
		What: "make the cluster " + b.cluster,
		Why:  errors.New("it belongs to a lab whose folder is elsewhere or gone"),
		Try: "another --name, or lab down with the LAB_HOME that it was brought up with, or, if it is not needed: docker " +
			"rm -f -v " + b.cluster + "-control-plane",
	}
}

// steps make the cluster and load its images. The images are loaded while the cluster is being made.
func (b *bringUp) steps() []cluster.Step {
	return []cluster.Step{
		{What: "kind cluster " + b.cluster, Do: func(ctx context.Context) (err error) {
			b.loaded = make(chan error, 1)
			b.revived, err = ensure(ctx, b.provider, b.cluster, b.images.Node, func(ctx context.Context) {
				go func() {
					b.loaded <- load(ctx, b.provider, b.cluster, b.app, b.tag, b.images.Official, &b.loading)
				}()
			})
			if err != nil {
				return err
			}
			return mark(ctx, b.provider, b.cluster, b.folder)
		}},
		{What: "images", Do: func(ctx context.Context) error { return b.loading.await(ctx, b.loaded) }},
	}
}

// prepare waits for the pods of a cluster that was stopped, and makes the volumes.
func (b *bringUp) prepare(ctx context.Context, client kubernetes.Interface, s cluster.Settings) error {
	node, err := nodeOf(ctx, b.provider, b.cluster)
	if err != nil {
		return err
	}
	if !b.revived.IsZero() {
		if err := awaitRestarted(ctx, client, s.Namespace, b.revived); err != nil {
			return err
		}
	}
	return volumes(ctx, client, node, s.Namespace, b.claims)
}

func (b *bringUp) kubeconfig() ([]byte, error) {
	text, err := b.provider.KubeConfig(b.cluster, false)
	return []byte(text), err
}
