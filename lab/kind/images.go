package kind

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sync/errgroup"
	kindcluster "sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
	"sigs.k8s.io/kind/pkg/cluster/nodeutils"

	"example.org/security-training/lab/cluster"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/progress"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// Images are the images that a lab in kind needs, apart from the application's.
type Images struct {
	Node     string         // kind's node, with Kubernetes
	Official []string       // those that the chart's values name: SPIRE's and PostgreSQL's
	Values   map[string]any // the official images, as values for the chart
}

// imagesOf returns the images to use: kind's default and those of the chart's values, or those that LAB_KIND_NODE_IMAGE
// and the settings of cluster.Official name.
func imagesOf(lookup env.Lookup) (Images, error) {
	official, values, err := cluster.Official(lookup)
	if err != nil {
		return Images{}, err
	}
	return Images{
		Node:     env.Read(lookup).Optional("LAB_KIND_NODE_IMAGE", defaultNode),
		Official: official,
		Values:   values,
	}, nil
}

// keep stores in the lab's folder which images the lab was made with, and kept reads them again. So a second `up` does
// not need the variables of the first.
func (im Images) keep(f control.StateDir) error {
	b, err := json.MarshalIndent(im, "", "  ")
	if err != nil {
		return err
	}
	return control.Replace(f.Path("images.json"), b, 0o600)
}

func (im Images) kept(f control.StateDir) (Images, bool) {
	b, err := os.ReadFile(f.Path("images.json"))
	if err != nil {
		return im, false
	}
	var out Images
	if err := json.Unmarshal(b, &out); err != nil {
		return im, false
	}
	return out, true
}

// docker runs the docker command, as kind does, and returns its stdout.
func docker(ctx context.Context, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(errs.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return "", fmt.Errorf("docker %s: %w", args[0], err)
	}
	return strings.TrimSpace(out.String()), nil
}

// engine checks that the Docker engine answers within two seconds.
func engine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := docker(ctx, "version", "--format", "{{.Server.Version}}")
	return err
}

func isLocal(ctx context.Context, image string) bool {
	_, err := docker(ctx, "image", "inspect", "--format", "{{.Id}}", image)
	return err == nil
}

// missing returns the images that the engine does not have, with the size of each download. It returns an error if an
// image cannot be downloaded.
func (im Images) missing(ctx context.Context) (bytes map[string]int64, err error) {
	bytes = map[string]int64{}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	var faults []error
	for _, image := range append([]string{im.Node}, im.Official...) {
		if isLocal(ctx, image) {
			continue
		}
		n, err := download(ctx, image)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s is not here, and its registry: %w", image, err))
			continue
		}
		bytes[image] = n
	}
	return bytes, errors.Join(faults...)
}

// download returns how many bytes pulling an image takes at most.
func download(ctx context.Context, image string) (int64, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return 0, err
	}
	got, err := remote.Image(ref, remote.WithContext(ctx))
	if err != nil {
		return 0, err
	}
	m, err := got.Manifest()
	if err != nil {
		return 0, err
	}
	n := m.Config.Size
	for _, l := range m.Layers {
		n += l.Size
	}
	return n, nil
}

// programs lists the binaries of the application's image: those that the topology runs, and the one that connects SPIRE
// and the lab.
func programs(topo *topology.Topology) []string {
	out := []string{"bridge", "registrar"}
	for _, w := range topo.Workloads {
		if w.Binary != "" && !slices.Contains(out, w.Binary) {
			out = append(out, w.Binary)
		}
	}
	slices.Sort(out)
	return out
}

// application assembles the application's image from the built binaries, without a base image and without a Docker
// build. Its tag is a digest of its content, so other programs make another image.
func application(binaries string, topo *topology.Topology) (v1.Image, name.Tag, error) {
	fail := func(err error) (v1.Image, name.Tag, error) {
		return nil, name.Tag{}, fmt.Errorf("assemble the application's image: %w", err)
	}
	chart, err := cluster.Chart()
	if err != nil {
		return fail(err)
	}
	repository, _, err := cluster.ImageIn(chart.Values)
	if err != nil {
		return fail(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, p := range programs(topo) {
		if err := addFile(w, filepath.Join(binaries, p), "app/"+p, 0o755); err != nil {
			return fail(err)
		}
	}
	if err := w.Close(); err != nil {
		return fail(err)
	}
	l, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil },
		tarball.WithCompressionLevel(
			gzip.NoCompression,
		),
	) // not compressed: it goes no further than the node, and compressing takes longer than copying
	if err != nil {
		return fail(err)
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return fail(err)
	}
	platform, err := platformOf(filepath.Join(binaries, "bridge"))
	if err != nil {
		return fail(err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return fail(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", platform
	file.Config.User = "10001"
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return fail(err)
	}
	digest, err := image.ConfigName()
	if err != nil {
		return fail(err)
	}
	tag, err := name.NewTag(repository + ":" + digest.Hex[:12])
	return image, tag, err
}

func addFile(w *tar.Writer, from, to string, mode int64) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(
		&tar.Header{Name: to, Mode: mode, Size: info.Size(), Typeflag: tar.TypeReg, Format: tar.FormatPAX},
	); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

// nodeOf waits until containerd answers on a cluster's node, which is long before the cluster is ready.
func nodeOf(ctx context.Context, provider *kindcluster.Provider, c string) (nodes.Node, error) {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := provider.ListInternalNodes(c)
		if err == nil && len(list) > 0 && list[0].CommandContext(ctx, "ctr", "version").Run() == nil {
			return list[0], nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the cluster's node: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// load copies images to the node: the application's, and those of the official ones that the engine has. The node pulls
// the others itself. It skips images that the node has, and counts those that it has copied.
func load(
	ctx context.Context, provider *kindcluster.Provider, c string,
	app v1.Image, tag name.Tag, official []string, count *counter,
) error {
	node, err := nodeOf(ctx, provider, c)
	if err != nil {
		return err
	}
	has, err := onNode(ctx, node)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	bring := func(do func() error) {
		count.all.Add(1)
		group.Go(func() error {
			err := do()
			if err == nil {
				count.done.Add(1)
			}
			return err
		})
	}
	if !has(tag.String()) {
		bring(func() error {
			r, w := io.Pipe()
			go func() { w.CloseWithError(tarball.Write(tag, app, w)) }()
			if err := loadArchive(ctx, node, r); err != nil {
				return fmt.Errorf("load %s: %w", tag, err)
			}
			return nil
		})
	}
	for _, image := range official {
		if has(image) || !isLocal(ctx, image) {
			continue
		}
		bring(func() error { return loadFromEngine(ctx, node, image) })
	}
	return group.Wait()
}

// counter counts the images that are on the node, of those that have to be. They are copied while the cluster starts,
// and awaited by a later step.
type counter struct{ done, all atomic.Int64 }

// await waits for the result of loading, and shows meanwhile how many images are on the node.
func (c *counter) await(ctx context.Context, loaded <-chan error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	show := func() {
		if all := c.all.Load(); all > 0 {
			progress.Count(ctx, int(c.done.Load()), int(all), "images")
		}
	}
	for {
		select {
		case err := <-loaded:
			show()
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			show()
		}
	}
}

// loadArchive loads an image into a node. If the node stops in the middle, or ctx ends, it closes archive, so that the
// writer of archive does not block.
func loadArchive(ctx context.Context, node nodes.Node, archive io.ReadCloser) error {
	defer archive.Close()
	defer context.AfterFunc(ctx, func() { archive.Close() })()
	return nodeutils.LoadImageArchive(node, archive)
}

func loadFromEngine(ctx context.Context, node nodes.Node, image string) error {
	cmd := exec.CommandContext(ctx, "docker", "save", image)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("load %s: %w", image, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("load %s: %w", image, err)
	}
	err = loadArchive(ctx, node, out)
	if saved := cmd.Wait(); saved != nil {
		err = errors.Join(fmt.Errorf("%w: %s", saved, strings.TrimSpace(errs.String())), err)
	}
	if err != nil {
		return fmt.Errorf("load %s: %w", image, err)
	}
	return nil
}

// onNode returns a function that says whether an image is on a node, under any of the names that it may have there.
func onNode(ctx context.Context, node nodes.Node) (func(image string) bool, error) {
	var out bytes.Buffer
	if err := node.CommandContext(
		ctx, "ctr", "--namespace=k8s.io", "images", "ls", "-q",
	).SetStdout(&out).Run(); err != nil {
		return nil, fmt.Errorf("list the node's images: %w", err)
	}
	there := strings.Fields(out.String())
	return func(image string) bool {
		ref, err := name.ParseReference(image)
		if err != nil {
			return false
		}
		// A registry may have several names, as the default one has, so only repository and tag are compared.
		want := "/" + ref.Context().RepositoryStr() + ":" + ref.Identifier()
		return slices.ContainsFunc(there, func(is string) bool { return strings.HasSuffix("/"+is, want) })
	}, nil
}
