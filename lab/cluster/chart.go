package cluster

import (
	"fmt"
	"os"
	"path/filepath"

	"helm.sh/helm/v4/pkg/chart/v2/util"
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
