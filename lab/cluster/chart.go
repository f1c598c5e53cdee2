package cluster

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/chart/v2/util"

	"example.org/security-training/manifests"
)

// ChartVersion is the version of the chart that this program brings.
func ChartVersion() (string, error) {
	c, err := Chart()
	if err != nil {
		return "", err
	}
	return c.Metadata.Version, nil
}

// PackageChart writes the chart into a folder as Helm packages it, in the place of the package of another version, and
// returns the file's path. It makes the folder.
func PackageChart(dir string) (string, error) {
	c, err := Chart()
	if err != nil {
		return "", err
	}
	old, err := filepath.Glob(filepath.Join(dir, c.Metadata.Name+"-*.tgz"))
	if err != nil {
		return "", err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return "", fmt.Errorf("package the chart: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("package the chart: %w", err)
	}
	path, err := util.Save(c, dir)
	if err != nil {
		return "", fmt.Errorf("package the chart: %w", err)
	}
	return path, nil
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
