package kind

import (
	"context"

	"github.com/google/go-containerregistry/pkg/name"

	"example.org/security-training/lab"
	"example.org/security-training/lab/progress"
	"example.org/security-training/manifests"
	"example.org/security-training/services/topology"
)

var _ lab.Renewer = (*Runtime)(nil)

// imageName is the name of the application's image in the chart.
func imageName(tag name.Tag) string { return tag.RepositoryStr() + ":" + tag.TagStr() }

// Outdated implements lab.Renewer. All workloads share one image, whose tag is a digest of its content, so usually all
// of them are outdated or none.
func (r *Runtime) Outdated(ctx context.Context, l lab.Lab) ([]string, error) {
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		return nil, err
	}
	_, tag, err := application(r.Binaries, topo)
	if err != nil {
		return nil, err
	}
	st, err := l.Status(ctx)
	if err != nil {
		return nil, err
	}
	return otherThan(imageName(tag), st), nil
}

// otherThan lists the workloads of st that are known to run another image.
func otherThan(image string, st lab.Status) []string {
	var out []string
	for _, w := range st.Workloads {
		if w.Program != "" && w.Program != image {
			out = append(out, w.Name)
		}
	}
	return out
}

// Renew implements lab.Renewer. It renews all workloads, whichever are listed: it loads the new image and upgrades the
// chart to it.
func (r *Runtime) Renew(ctx context.Context, l lab.Lab, _ []string, p progress.Reporter) error {
	st, err := l.Status(ctx)
	if err != nil {
		return err
	}
	_, err = r.Up(ctx, st.Spec, p)
	return err
}
