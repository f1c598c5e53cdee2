package kind

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"helm.sh/helm/v4/pkg/chart/common"
	helm "helm.sh/helm/v4/pkg/engine"

	"example.org/security-training/lab/cluster"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/progress"
	"example.org/security-training/manifests"
	"example.org/security-training/services/env"
	"example.org/security-training/services/topology"
)

// programsIn makes a folder with a program of each name. Each is a copy of this test's own, because the image's
// architecture is read from a program.
func programsIn(t *testing.T, names []string, extra string) string {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		content := b[:4096:4096]
		if n == "bridge" {
			content = b
		}
		if err := os.WriteFile(filepath.Join(dir, n), append(content, n+extra...), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func topo(t *testing.T) *topology.Topology {
	t.Helper()
	topo, err := topology.FromYAML(manifests.Topology())
	if err != nil {
		t.Fatal(err)
	}
	return topo
}

func contents(t *testing.T, image v1.Image) []string {
	t.Helper()
	in := tar.NewReader(mutate.Extract(image))
	var names []string
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func TestTheImageHoldsTheProgramsOfTheTopologyAndNothingElse(t *testing.T) {
	names := programs(topo(t))
	image, tag, err := application(programsIn(t, append(names, "lab", "synth"), ""), topo(t))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, n := range names {
		want = append(want, "app/"+n)
	}
	got := slices.DeleteFunc(contents(t, image), func(n string) bool { return n == "etc/ssl/certs/ca-certificates.crt" })
	if !slices.Equal(got, want) {
		t.Errorf("the image holds %v, want %v", got, want)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if file.Config.User == "" || file.Config.User == "0" || file.OS != "linux" {
		t.Errorf("the image runs as %q on %q", file.Config.User, file.OS)
	}
	_, same, err := application(programsIn(t, names, ""), topo(t))
	if err != nil || same.String() != tag.String() {
		t.Errorf("the same programs are the image %s, and %s before (%v)", same, tag, err)
	}
	_, other, err := application(programsIn(t, names, "changed"), topo(t))
	if err != nil || other.String() == tag.String() {
		t.Errorf("other programs are the same image %s (%v)", other, err)
	}
}

func TestAnImageWithoutAProgramIsNotMade(t *testing.T) {
	names := programs(topo(t))
	if _, _, err := application(programsIn(t, names[:len(names)-1], ""), topo(t)); err == nil ||
		!strings.Contains(err.Error(), names[len(names)-1]) {
		t.Errorf("without %s: %v", names[len(names)-1], err)
	}
}

func TestEachImageCanBeAnother(t *testing.T) {
	official, err := imagesOf(env.Map(nil))
	if err != nil {
		t.Fatal(err)
	}
	if official.Node != defaultNode || len(official.Official) != 3 {
		t.Fatalf("by default: %+v", official)
	}
	own, err := imagesOf(env.Map(map[string]string{
		"LAB_KIND_NODE_IMAGE": "node:of-mine", "LAB_POSTGRES_IMAGE": "registry.example.net:5000/postgres:of-mine",
		"LAB_SPIRE_VERSION": "9.9.9",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if own.Node != "node:of-mine" || !slices.Contains(own.Official, "registry.example.net:5000/postgres:of-mine") {
		t.Errorf("as named: %+v", own)
	}
	spire := slices.DeleteFunc(slices.Clone(own.Official), func(i string) bool { return !strings.HasSuffix(i, ":9.9.9") })
	if len(spire) != 2 {
		t.Errorf("SPIRE's images are %v", own.Official)
	}
	// The images that were chosen are in the chart's values and in the lab's folder.
	f := control.StateDir(t.TempDir())
	if err := own.keep(f); err != nil {
		t.Fatal(err)
	}
	kept, ok := official.kept(f)
	if !ok || kept.Node != own.Node || !slices.Equal(kept.Official, own.Official) {
		t.Errorf("a lab remembers %+v, want %+v", kept, own)
	}
	repository, tag, err := cluster.ImageIn(kept.Values, "postgres")
	if err != nil || repository+":"+tag != "registry.example.net:5000/postgres:of-mine" {
		t.Errorf("the chart is given %s:%s, %v", repository, tag, err)
	}
	chart, err := cluster.Chart()
	if err != nil {
		t.Fatal(err)
	}
	for key := range maps.Keys(own.Values) {
		if _, ok := chart.Values[key]; !ok {
			t.Errorf("the chart has no value %s", key)
		}
	}
}

func TestWhatIsToBeDownloadedIsSaidWithItsSize(t *testing.T) {
	got := Sizes(map[string]int64{"kindest/node:v1@sha256:0123": 400_000_000, "postgres:17": 150_000_000})
	if want := "kindest/node:v1 400 MB, postgres:17 150 MB; 550 MB in all"; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}

func TestEveryClaimOfTheChartHasItsVolume(t *testing.T) {
	c, err := cluster.Chart()
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	files, err := helm.Render(
		c,
		common.Values{
			"Values":       c.Values,
			"Release":      map[string]any{"Name": "lab", "Service": "Helm"},
			"Chart":        map[string]any{"Name": c.Name(), "Version": c.Metadata.Version},
			"Capabilities": common.DefaultCapabilities,
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text += f
	}
	names := claims(topo(t))
	for _, n := range names {
		if n != serverClaim && !strings.Contains(text, "name: "+n) {
			t.Errorf("the chart claims no %s", n)
		}
	}
	if want := strings.Count(text, "kind: PersistentVolumeClaim") + strings.Count(text, "volumeClaimTemplates:"); len(
		names,
	) != want {
		t.Errorf("%d volumes for %d claims", len(names), want)
	}
}

// told is a running step that records what it is told.
type told struct {
	progress.Quiet
	mu     sync.Mutex
	counts []string
}

func (s *told) Begin(string) progress.Running { return s }

func (s *told) Count(done, all int, word string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts = append(s.counts, fmt.Sprintf("%d of %d %s", done, all, word))
}

func (s *told) End(error) {}

func (s *told) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.counts) == 0 {
		return ""
	}
	return s.counts[len(s.counts)-1]
}

func TestImagesAreCountedAsTheyAreBrought(t *testing.T) {
	var c counter
	step, loaded := &told{}, make(chan error, 1)
	c.all.Store(3)
	err := progress.Counted(t.Context(), step, "images", func(ctx context.Context) error {
		c.done.Store(2)
		go func() {
			for step.last() != "2 of 3 images" { // shown while it waits
				runtime.Gosched()
			}
			c.done.Store(3)
			loaded <- nil
		}()
		return c.await(ctx, loaded)
	})
	if err != nil || step.last() != "3 of 3 images" {
		t.Errorf("%q, %v", step.last(), err)
	}
}
